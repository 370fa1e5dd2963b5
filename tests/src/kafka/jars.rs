//! Apache's jars, by Maven from Maven Central into `target`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use super::KAFKA_VERSION;

/// Everything that runs here: the server, its tools, and the clients with Streams.
const ARTIFACTS: [(&str, &str, &str); 4] = [
    ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
    ("org.apache.kafka", "kafka-tools", KAFKA_VERSION),
    ("org.apache.kafka", "kafka-streams", KAFKA_VERSION),
    ("org.slf4j", "slf4j-simple", "1.7.36"),
];

/// A small heap and a quick start: for tools and clients that live for seconds.
const JVM: [&str; 5] = [
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
];

/// The folder with all jars.
#[derive(Clone, Debug)]
pub struct Jars {
    folder: PathBuf,
}

impl Jars {
    /// Fetches the jars once; they stay in `target` from run to run.
    ///
    /// # Errors
    /// When Java, Maven or Maven Central cannot be had here; in one sentence, the same each time.
    pub fn fetch() -> Result<Self> {
        static FETCHED: OnceLock<Result<Jars, String>> = OnceLock::new();
        FETCHED
            .get_or_init(|| fetch().map_err(|error| format!("{error:#}")))
            .clone()
            .map_err(anyhow::Error::msg)
    }

    /// `java` with a small heap, this class path and this main class.
    pub fn java(&self, main: &str) -> Command {
        let mut java = Command::new("java");
        java.args(JVM).args(self.arguments(main));
        java
    }

    /// The same, with compiled classes of one's own.
    pub fn java_with(&self, classes: &Path, main: &str) -> Command {
        let class_path = format!("{}:{}", classes.display(), self.class_path());
        let mut java = Command::new("java");
        java.args(JVM).args(["-cp", &class_path, main]);
        java
    }

    /// The class path and the main class, for a `java` with other settings.
    pub fn arguments(&self, main: &str) -> [String; 3] {
        ["-cp".to_owned(), self.class_path(), main.to_owned()]
    }

    /// All jars, as `java -cp` and `javac -cp` take it.
    pub fn class_path(&self) -> String {
        format!("{}/*", self.folder.display())
    }
}

fn fetch() -> Result<Jars> {
    for program in ["java", "javac", "mvn"] {
        let probe = Command::new(program).arg("-version").output();
        if !probe.is_ok_and(|output| output.status.success()) {
            bail!(
                "{program} is missing: install Java 17 or newer and Maven \
                 (Debian: default-jdk-headless and maven)"
            );
        }
    }
    let kept = target_folder()?.join("kafka");
    std::fs::create_dir_all(&kept)?;
    // Test binaries run one after another, but two people may run them at once.
    let lock = File::create(kept.join("lock"))?;
    lock.lock().context("failed to lock the folder of jars")?;
    let folder = kept.join(format!("jars-{KAFKA_VERSION}"));
    if !folder.exists() {
        let partial = kept.join("partial");
        copy_dependencies(&kept, &partial)?;
        std::fs::rename(&partial, &folder)?;
    }
    Ok(Jars { folder })
}

fn copy_dependencies(kept: &Path, partial: &Path) -> Result<()> {
    let dependencies: String = ARTIFACTS
        .iter()
        .map(|(group, artifact, version)| {
            format!(
                "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
                 <version>{version}</version></dependency>\n"
            )
        })
        .collect();
    let pom = kept.join("pom.xml");
    std::fs::write(
        &pom,
        format!(
            "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n\
             <modelVersion>4.0.0</modelVersion>\n\
             <groupId>outbox</groupId><artifactId>kafka-jars</artifactId><version>1</version>\n\
             <packaging>pom</packaging>\n\
             <dependencies>\n{dependencies}</dependencies>\n</project>\n"
        ),
    )?;
    if partial.exists() {
        std::fs::remove_dir_all(partial)?;
    }
    let output = Command::new("mvn")
        .args(["--batch-mode", "--quiet", "--file"])
        .arg(&pom)
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", partial.display()))
        .stdin(Stdio::null())
        .output()
        .context("failed to run mvn")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        let reason = said
            .lines()
            .find(|line| line.contains("[ERROR]"))
            .unwrap_or("mvn said nothing");
        bail!("Maven Central does not give Apache's jars: {reason}");
    }
    Ok(())
}

/// Cargo's target folder, which holds the program that runs.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let own = std::env::current_exe().context("failed to find the running program")?;
    own.ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists())
        .map(Path::to_owned)
        .with_context(|| format!("{} is not in cargo's target folder", own.display()))
}
