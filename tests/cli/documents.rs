//! The documents a newcomer reads first: their links lead somewhere, their commands exist.

use std::path::{Path, PathBuf};

use crate::harness::Place;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Targets of `[text](target)`, without addresses and anchors.
fn links(text: &str) -> Vec<&str> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .collect()
}

#[test]
fn every_link_leads_to_a_file_or_a_heading() {
    for document in [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/cli.md",
        "docs/configuration.md",
    ] {
        let path = root().join(document);
        let text = std::fs::read_to_string(&path).expect(document);
        let folder = path.parent().expect("a folder");
        for link in links(&text) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = std::fs::read_to_string(folder.join(file));
            let Ok(target) = target else {
                assert!(
                    heading.is_empty() && folder.join(file).exists(),
                    "{document} links to {link}, which is not there"
                );
                continue;
            };
            assert!(
                heading.is_empty()
                    || target
                        .lines()
                        .any(|line| anchor(line) == Some(heading.to_owned())),
                "{document} links to {link}, which is no heading there"
            );
        }
    }
}

/// What a link calls the heading on this line, if it is one.
fn anchor(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#').trim();
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
}

#[test]
fn the_configuration_in_the_readme_and_the_manual_is_valid() {
    for document in ["README.md", "docs/configuration.md"] {
        let text = std::fs::read_to_string(root().join(document)).expect(document);
        let example = text
            .split("```toml\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next());
        let place = Place::new();
        let secret = place.path().join("alert-url");
        std::fs::write(&secret, "https://hooks.example/x").expect("written");
        let example = example.unwrap_or_else(|| panic!("{document} has no example"));
        let secret = secret.to_str().expect("a path");
        place.write(
            "outbox.toml",
            example.replace("/run/secrets/alert-url", secret),
        );
        let variables = [("DATABASE_URL", "postgres://db/shop")];
        let json = place
            .run_with(&variables, &["config", "check", "--json"])
            .ended_with(0)
            .json();
        assert_eq!(json["destinations"][0]["name"], "orders", "{document}");
    }
}

#[test]
fn every_command_of_the_manual_exists() {
    let text = std::fs::read_to_string(root().join("docs/cli.md")).expect("the manual");
    let overview = text
        .split("```text\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let place = Place::new();
    for line in overview.expect("an overview").lines() {
        let command = line.split_whitespace().nth(1).expect("a command");
        place.run(&[command, "--help"]).ended_with(0);
    }
}
