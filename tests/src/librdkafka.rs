//! librdkafka as its authors build it: its load generator and its own test suite.
//!
//! The sources are those that the crate `rdkafka-sys` carries. A manifest of its own below
//! `target/librdkafka` fetches them, so that the workspace does not depend on that crate.

pub mod suite;
mod tools;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::kafka::target_folder;

/// The release of `rdkafka-sys`, and with it of librdkafka.
pub const VERSION: &str = "4.10.0+2.12.1";

/// What a build needs besides a C and a C++ compiler: headers of OpenSSL, zlib and zstd.
const DEBIAN_PACKAGES: &str = "g++ make python3 libssl-dev zlib1g-dev libzstd-dev \
    rapidjson-dev";

/// A built tree.
#[derive(Clone, Debug)]
pub struct Librdkafka {
    folder: PathBuf,
}

impl Librdkafka {
    /// Builds the library and its load generator, unless that was done before.
    ///
    /// # Errors
    /// When the sources cannot be had, or something is missing to build them.
    pub fn build() -> Result<Self> {
        let kept = target_folder()?.join("librdkafka");
        std::fs::create_dir_all(&kept)?;
        let folder = kept.join(VERSION);
        let built = Self { folder };
        if built.performance().exists() {
            return Ok(built);
        }
        let sources = sources(&kept)?;
        if built.folder.exists() {
            std::fs::remove_dir_all(&built.folder)?;
        }
        run(
            &kept,
            Command::new("cp")
                .arg("-R")
                .arg(&sources)
                .arg(&built.folder),
        )?;
        let configure = [
            "--disable-gssapi",
            "--disable-curl",
            "--enable-ssl",
            "--enable-zstd",
        ];
        run(&built.folder, Command::new("./configure").args(configure))
            .with_context(|| format!("librdkafka needs {DEBIAN_PACKAGES} to build"))?;
        run(&built.folder, Command::new("make").args(["-j2", "libs"]))?;
        let performance = ["-C", "examples", "rdkafka_performance"];
        run(&built.folder, Command::new("make").args(performance))?;
        Ok(built)
    }

    /// The load generator.
    pub fn performance(&self) -> PathBuf {
        self.folder.join("examples/rdkafka_performance")
    }

    /// The folder of the test suite, in which its runner must be started.
    pub fn tests(&self) -> PathBuf {
        self.folder.join("tests")
    }

    /// Creates topics with one replica where the suite would have three.
    fn let_one_node_do(&self) -> Result<()> {
        for (name, three, one) in THREE_REPLICAS {
            let file = self.tests().join(name);
            let source = std::fs::read_to_string(&file)?;
            ensure!(
                source.contains(three),
                "{name} is not as it was in {VERSION}"
            );
            std::fs::write(&file, source.replace(three, one))?;
        }
        Ok(())
    }

    /// Builds the test suite as well; answers its runner.
    ///
    /// # Errors
    /// When it does not build.
    pub fn build_tests(&self) -> Result<PathBuf> {
        let runner = self.tests().join("test-runner");
        if !runner.exists() {
            self.let_one_node_do()?;
            let targets = ["-j2", "-C", "tests", "interceptor_test", "test-runner"];
            run(&self.folder, Command::new("make").args(targets))?;
        }
        Ok(runner)
    }
}

/// Where topics get three replicas, for the suite's authors have three brokers; nothing in these
/// files needs more than one. (File, what stands there, what one broker can do.)
const THREE_REPLICAS: [(&str, &str, &str); 4] = [
    ("0098-consumer-txn.cpp", ", 3, 5000)", ", 1, 5000)"),
    ("0103-transactions.c", ", 3, 5000)", ", 1, 5000)"),
    ("0107-topic_recreate.c", ", 3, 5000)", ", 1, 5000)"),
    ("0111-delay_create_topics.cpp", ", 1, 3);", ", 1, 1);"),
];

/// Fetches the crate; answers the folder of the library's sources within it.
fn sources(folder: &Path) -> Result<PathBuf> {
    let manifest = format!(
        "[package]\nname = \"sources\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
         [lib]\npath = \"lib.rs\"\n\
         [dependencies]\nrdkafka-sys = {{ version = \"={VERSION}\", default-features = false }}\n\
         [workspace]\n"
    );
    std::fs::write(folder.join("Cargo.toml"), manifest)?;
    std::fs::write(folder.join("lib.rs"), "")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let metadata = run(
        folder,
        Command::new(cargo).args(["metadata", "--format-version", "1"]),
    )?;
    let metadata: Value = serde_json::from_slice(&metadata)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "rdkafka-sys")
        .and_then(|package| package["manifest_path"].as_str())
        .context("cargo did not fetch rdkafka-sys")?;
    Ok(Path::new(manifest).with_file_name("librdkafka"))
}

fn run(folder: &Path, command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .current_dir(folder)
        .output()
        .with_context(|| format!("failed to run {command:?}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n");
        bail!("{command:?} failed:\n{tail}");
    }
    Ok(output.stdout)
}
