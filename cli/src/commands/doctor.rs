//! `outbox doctor`: looks for everything that is known to hurt.

use outbox_core::{Admin, Finding, Severity};
use serde::Serialize;

use crate::exit::{Exit, Problem};
use crate::output::Output;

#[derive(Debug, Serialize)]
struct Examined {
    /// The worst of the findings.
    severity: Severity,
    findings: Vec<Finding>,
}

/// Runs the command: [`Exit::Failed`] when it found an error.
pub async fn run(admin: &dyn Admin, output: Output) -> Result<Exit, Problem> {
    let mut findings = admin.doctor().await?;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let severity = findings
        .first()
        .map_or(Severity::Ok, |worst| worst.severity);
    output.emit(&Examined { severity, findings }, human)?;
    Ok(if severity == Severity::Error {
        Exit::Failed
    } else {
        Exit::Ok
    })
}

fn human(examined: &Examined) -> String {
    let lines = examined.findings.iter().map(|finding| {
        let word = match finding.severity {
            Severity::Ok => "ok     ",
            Severity::Warning => "warning",
            Severity::Error => "ERROR  ",
        };
        let cure = match finding.cure.as_str() {
            "" => String::new(),
            cure => format!("\n         cure: {cure}"),
        };
        format!("{word}  {}: {}{cure}\n", finding.check, finding.text)
    });
    match examined.findings.is_empty() {
        true => "ok: nothing to report".to_owned(),
        false => lines.collect(),
    }
}
