//! The clients, and how each is installed: once, into cargo's target folder.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use outbox_tests::kafka::Jars;
use serde_json::Value;

/// A client library behind its driver.
pub struct Client {
    /// As its users call it.
    pub name: &'static str,
    /// Keeps one transaction open past a restart of the broker, and repeats what was not acked.
    pub outlives_the_broker: bool,
    /// Hands over the broker's refusal of a setting.
    pub tells_refused_settings: bool,
    command: fn() -> Option<Command>,
}

/// librdkafka behind Python, as Confluent ships it.
pub const CONFLUENT: Client = Client {
    name: "confluent-kafka",
    outlives_the_broker: true,
    tells_refused_settings: true,
    command: || Some(python("confluent.py")),
};

/// Python without C.
pub const KAFKA_PYTHON: Client = Client {
    name: "kafka-python",
    outlives_the_broker: true,
    tells_refused_settings: true,
    command: || Some(python("kafka_python.py")),
};

/// Node.
pub const KAFKAJS: Client = Client {
    name: "KafkaJS",
    // Its producer gives up after five tries, and answers an error for what it may have sent.
    outlives_the_broker: false,
    tells_refused_settings: true,
    command: || Some(node()),
};

/// Apache's own, from Maven Central.
pub const JAVA: Client = Client {
    name: "Apache's Java client",
    outlives_the_broker: true,
    tells_refused_settings: true,
    command: || java("Driver"),
};

/// librdkafka behind Rust.
pub const RDKAFKA: Client = Client {
    name: "rdkafka",
    outlives_the_broker: true,
    // It drops the error that librdkafka has for each resource.
    tells_refused_settings: false,
    command: || Some(Command::new(rust())),
};

impl Client {
    /// Its driver with this job, not started yet; `None` when the client cannot be had here,
    /// which has been said.
    pub fn driver(&self, job: &Value) -> Option<Command> {
        let mut command = (self.command)()?;
        command.arg(job.to_string());
        Some(command)
    }

    /// Whether it can be had here.
    pub fn is_here(&self) -> bool {
        (self.command)().is_some()
    }
}

fn sources() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/kafka_clients/drivers"
    ))
}

/// `target/…/deps` holds this test, `target` what is kept from run to run.
fn target() -> PathBuf {
    let own = std::env::current_exe().expect("its own path");
    let target = own.ancestors().find(|it| it.join("CACHEDIR.TAG").exists());
    target.expect("cargo's target folder").to_owned()
}

/// A folder that `install` fills, once for each content of `recipe`.
fn kept(name: &str, recipe: &str, install: impl FnOnce(&Path)) -> PathBuf {
    let folder = target().join("kafka-clients").join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    let lock = File::create(folder.join("lock")).expect("a file");
    lock.lock().expect("locked");
    let installed = folder.join("installed");
    if std::fs::read_to_string(&installed).is_ok_and(|it| it == recipe) {
        return folder;
    }
    install(&folder);
    std::fs::write(installed, recipe).expect("written");
    folder
}

fn read(file: &str) -> String {
    std::fs::read_to_string(sources().join(file)).expect("a file of the drivers")
}

fn python(script: &str) -> Command {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        kept("python", &read("requirements.txt"), |folder| {
            run(Command::new("python3").args(["-m", "venv"]).arg(folder));
            let mut pip = Command::new(folder.join("bin/python"));
            pip.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ]);
            run(pip.arg("-r").arg(sources().join("requirements.txt")));
        })
    });
    let mut command = Command::new(folder.join("bin/python"));
    command.arg(sources().join(script));
    command
}

fn node() -> Command {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let recipe = read("package.json") + &read("kafkajs.mjs");
        kept("node", &recipe, |folder| {
            // Node looks for packages beside the script.
            for file in ["package.json", "kafkajs.mjs"] {
                std::fs::copy(sources().join(file), folder.join(file)).expect("copied");
            }
            let mut npm = Command::new("npm");
            npm.args(["install", "--silent", "--no-audit", "--no-fund"]);
            run(npm.current_dir(folder));
        })
    });
    let mut command = Command::new("node");
    command.arg(folder.join("kafkajs.mjs"));
    command
}

/// A class of the drivers; `None`, with one sentence, where Apache's jars cannot be had.
pub fn java(main: &str) -> Option<Command> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let jars = jars()?;
    let folder = FOLDER.get_or_init(|| {
        let files = ["Driver.java", "WordCount.java"];
        let recipe: String = files.iter().map(|file| read(file)).collect();
        kept("java", &recipe, |folder| {
            let mut javac = Command::new("javac");
            javac.args(["-nowarn", "-cp", &jars.class_path(), "-d"]);
            javac
                .arg(folder)
                .args(files.map(|file| sources().join(file)));
            run(&mut javac);
        })
    });
    Some(jars.java_with(folder, main))
}

/// Apache's jars; `None`, said once, where they cannot be had.
pub fn jars() -> Option<&'static Jars> {
    static JARS: OnceLock<Option<Jars>> = OnceLock::new();
    let fetched = JARS.get_or_init(|| {
        Jars::fetch()
            .inspect_err(|error| {
                // Past the test runner, which would keep it to itself.
                let _ = writeln!(
                    std::io::stderr(),
                    "NOT TESTED with Apache's Java clients, console tools and Streams: {error:#}"
                );
            })
            .ok()
    });
    fetched.as_ref()
}

/// A package of its own, which cargo builds once.
fn rust() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let recipe = read("rust/Cargo.toml") + &read("rust/Cargo.lock") + &read("rust/main.rs");
        let folder = kept("rust", &recipe, |folder| {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "--locked"]);
            build
                .arg("--manifest-path")
                .arg(sources().join("rust/Cargo.toml"));
            run(build.arg("--target-dir").arg(folder));
        });
        folder.join("debug/rdkafka-driver")
    })
}

fn run(command: &mut Command) {
    let program = command.get_program().to_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
