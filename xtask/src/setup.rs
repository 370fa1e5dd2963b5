//! What the tests need from the machine besides Rust, git and a C compiler.
//!
//! PostgreSQL is not in this list: the tests' own `with_postgres` finds or installs it. The rest
//! is installed from the distribution's packages on Debian or Ubuntu as root, and named in one
//! clear sentence anywhere else.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

/// A program or module that some test uses.
#[derive(Clone, Copy, Debug)]
struct Need {
    /// What it is for.
    used_by: &'static str,
    /// A command that succeeds when it is there.
    probe: &'static [&'static str],
    /// Debian's packages that bring it.
    packages: &'static [&'static str],
    /// Without it the tests run all the same, and say what they did not test.
    optional: bool,
}

const NEEDS: [Need; 7] = [
    Need {
        used_by: "the build of SQLite and of the TLS library",
        probe: &["cc", "--version"],
        packages: &["gcc", "libc6-dev"],
        optional: false,
    },
    Need {
        used_by: "the tests behind PgBouncer",
        probe: &["pgbouncer", "--version"],
        packages: &["pgbouncer"],
        optional: false,
    },
    Need {
        used_by: "the Python example and Python's Kafka clients",
        probe: &["python3", "-c", "import venv, ensurepip"],
        packages: &["python3", "python3-venv"],
        optional: false,
    },
    Need {
        used_by: "the Node example and KafkaJS",
        probe: &["npm", "--version"],
        packages: &["nodejs", "npm"],
        optional: false,
    },
    Need {
        used_by: "the tests with Kafka clients",
        probe: &["kcat", "-V"],
        packages: &["kcat"],
        optional: false,
    },
    Need {
        used_by: "the build of librdkafka",
        probe: &["g++", "--version"],
        packages: &["g++", "make", "zlib1g-dev"],
        optional: false,
    },
    Need {
        used_by: "Apache's Kafka clients",
        probe: &["mvn", "-version"],
        packages: &["default-jdk-headless", "maven"],
        optional: true,
    },
];

/// What librdkafka needs to be built, with its load generator and its own tests.
const LIBRDKAFKA: [Need; 2] = [
    Need {
        used_by: "librdkafka",
        probe: &["sh", "-c", "c++ --version && make --version && python3 -V"],
        packages: &["g++", "make", "python3"],
        optional: false,
    },
    Need {
        used_by: "librdkafka",
        probe: &[
            "sh",
            "-c",
            "printf '#include <openssl/ssl.h>\n#include <zlib.h>\n#include <zstd.h>\n' | cc -E -",
        ],
        packages: &["libssl-dev", "zlib1g-dev", "libzstd-dev", "rapidjson-dev"],
        optional: false,
    },
];

/// Installs what is missing for the tests, or says what to install.
///
/// # Errors
/// When something is missing and cannot be installed: in one sentence, all of it.
pub fn provide() -> Result<()> {
    provide_all(&NEEDS)
}

/// The same for what is compared with librdkafka.
pub fn provide_librdkafka() -> Result<()> {
    provide_all(&LIBRDKAFKA)
}

fn provide_all(needs: &[Need]) -> Result<()> {
    let missing: Vec<Need> = needs.iter().copied().filter(|n| !is_there(n)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing
        .iter()
        .flat_map(|need| need.packages)
        .copied()
        .collect();
    if can_install() {
        eprintln!(
            "xtask: install {} (missing for the tests)",
            packages.join(" ")
        );
        install(&packages);
    }
    let missing: Vec<Need> = missing.into_iter().filter(|need| !is_there(need)).collect();
    let (optional, needed): (Vec<Need>, Vec<Need>) =
        missing.into_iter().partition(|need| need.optional);
    if !optional.is_empty() {
        let what = describe(&optional);
        eprintln!("xtask: some tests will be left out, and say so: please install {what}");
    }
    if needed.is_empty() {
        return Ok(());
    }
    anyhow::bail!("please install {}, then run this again", describe(&needed))
}

fn describe(missing: &[Need]) -> String {
    let what: Vec<String> = missing
        .iter()
        .map(|need| format!("{} (for {})", need.packages.join(" and "), need.used_by))
        .collect();
    what.join(", ")
}

fn is_there(need: &Need) -> bool {
    let Some((program, arguments)) = need.probe.split_first() else {
        return true;
    };
    // PgBouncer lies in /usr/sbin, which is not on everybody's path.
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn can_install() -> bool {
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|out| out.stdout == b"0\n");
    is_root && Path::new("/usr/bin/apt-get").exists()
}

/// Quiet unless it fails; whether it worked is seen by probing again.
fn install(packages: &[&str]) {
    let apt = |arguments: &[&str]| {
        let output = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) if output.status.success() => true,
            Ok(output) => {
                eprintln!("{}", String::from_utf8_lossy(&output.stderr));
                false
            }
            Err(error) => {
                eprintln!("xtask: failed to run apt-get: {error}");
                false
            }
        }
    };
    let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(packages);
    // Fresh images have no package lists, and old lists name packages that are gone.
    if !apt(&arguments) && apt(&["update", "-q"]) {
        apt(&arguments);
    }
}
