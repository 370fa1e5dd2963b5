//! Alerts to a command.

use std::error::Error;
use std::process::Stdio;

use async_trait::async_trait;
use outbox_core::{Alert, AlertSink};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs a command for each alert, with the alert as one JSON object on its standard input.
///
/// It runs without a shell, and is killed when it takes longer than an alert may. Its output is
/// dropped; a status other than 0 is logged as a failure.
#[derive(Clone, Debug)]
pub struct CommandSink {
    program: String,
    arguments: Vec<String>,
}

/// Why a command is no sink.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("start {program:?}: {source}")]
    Start {
        program: String,
        source: std::io::Error,
    },
    #[error("run {program:?}: it ended with {status}")]
    Status {
        program: String,
        status: std::process::ExitStatus,
    },
}

impl CommandSink {
    /// A sink that runs `program` with `arguments`.
    pub fn new(
        program: impl Into<String>,
        arguments: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
        }
    }
}

#[async_trait]
impl AlertSink for CommandSink {
    fn name(&self) -> &str {
        "command"
    }

    /// Dropping the future kills the command.
    async fn send(&self, alert: &Alert) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut json = serde_json::to_vec(alert)?;
        json.push(b'\n');
        let program = self.program.clone();
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| CommandError::Start { program, source })?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read its input closes the pipe: its status decides.
            let _ = stdin.write_all(&json).await;
        }
        let status = child.wait().await?;
        match status.success() {
            true => Ok(()),
            false => Err(CommandError::Status {
                program: self.program.clone(),
                status,
            }
            .into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_core::{AlertKind, AlertState};
    use std::time::Duration;

    fn alert() -> Alert {
        Alert {
            kind: AlertKind::Lag,
            state: AlertState::Firing,
            destination: None,
            text: "slow".to_owned(),
            count: 1,
            at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    fn shell(script: &str) -> CommandSink {
        CommandSink::new("sh", ["-c", script])
    }

    #[tokio::test]
    async fn the_command_reads_the_alert_as_json() {
        let sink = shell(r#"grep -q '"kind":"lag"'"#);
        sink.send(&alert()).await.expect("found");
    }

    #[tokio::test]
    async fn a_status_other_than_zero_is_a_failure() {
        let error = shell("exit 3").send(&alert()).await.expect_err("status 3");
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        let none = CommandSink::new("/nonexistent/alert", [""; 0]);
        let error = none.send(&alert()).await.expect_err("no such program");
        assert!(error.to_string().contains("/nonexistent/alert"), "{error}");
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_given_up() {
        let sink = shell("exec sleep 600");
        let hung = tokio::time::timeout(Duration::from_millis(100), sink.send(&alert())).await;
        assert!(hung.is_err());
    }
}
