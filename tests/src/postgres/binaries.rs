//! Finds `initdb` and `postgres` on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Folder that holds `initdb` and `postgres`; it goes before every other place.
pub const BIN_VARIABLE: &str = "OUTBOX_TEST_POSTGRES_BIN";

/// Folders that hold one folder for each major version.
const VERSIONED: [&str; 2] = ["/usr/lib/postgresql", "/opt/homebrew/opt"];

/// The folder of one installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries(PathBuf);

impl Binaries {
    /// What [`BIN_VARIABLE`] names; `None` when it is not set.
    ///
    /// # Errors
    /// When it names a folder without the programs.
    pub fn from_variable() -> Result<Option<Self>> {
        let Some(folder) = std::env::var_os(BIN_VARIABLE) else {
            return Ok(None);
        };
        let folder = PathBuf::from(folder);
        match Self::in_folder(&folder) {
            Some(found) => Ok(Some(found)),
            None => bail!(
                "{BIN_VARIABLE} is {}, which does not hold initdb and postgres",
                folder.display()
            ),
        }
    }

    /// Looks on `PATH`, then where the distributions put them, newest major first.
    pub fn on_this_machine() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .find_map(|folder| Self::in_folder(&folder))
            .or_else(|| {
                VERSIONED
                    .iter()
                    .find_map(|root| newest_below(Path::new(root)))
            })
    }

    /// An installation that also holds the client programs `names`, for those must be of the
    /// server's version. Not every set of binaries brings them.
    ///
    /// # Errors
    /// When [`BIN_VARIABLE`] names a folder without a server.
    pub fn with_programs(names: &[&str]) -> Result<Option<Self>> {
        let mut known = vec![Self::from_variable()?, Self::on_this_machine()];
        // Where PATH holds links to some of the programs, these hold them all.
        known.extend(VERSIONED.iter().map(|root| newest_below(Path::new(root))));
        let whole = |found: &Self| names.iter().all(|name| found.program(name).is_file());
        Ok(known.into_iter().flatten().find(whole))
    }

    /// The installation in `folder`, if it is one. Links are followed, for `postgres` finds its
    /// libraries beside the file it was started as.
    pub fn in_folder(folder: &Path) -> Option<Self> {
        let whole =
            |folder: &Path| folder.join("initdb").is_file() && folder.join("postgres").is_file();
        if whole(folder) {
            return Some(Self(folder.to_owned()));
        }
        // `initdb` alone is on PATH as a link into the real folder on some systems.
        let real = folder.join("initdb").canonicalize().ok()?;
        let real = real.parent()?;
        whole(real).then(|| Self(real.to_owned()))
    }

    /// Full path of one program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// Installs the distribution's package, without its cluster: Debian and Ubuntu, as root.
    ///
    /// # Errors
    /// One sentence that says what to install when that cannot be done.
    pub fn install() -> Result<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/usr/bin/apt-get").exists() {
            bail!(
                "the tests need a PostgreSQL 15 or later and found none: install the package \
                 `postgresql`, start Docker, or set OUTBOX_TEST_POSTGRES_URL to a superuser's URL \
                 of a server that may be filled with test databases"
            );
        }
        // Without this file the package would create and start a cluster of its own.
        let config = Path::new("/etc/postgresql-common");
        if !config.join("createcluster.conf").exists() {
            std::fs::create_dir_all(config)?;
            std::fs::write(
                config.join("createcluster.conf"),
                "create_main_cluster = false\nstart_conf = 'manual'\n",
            )?;
        }
        apt_get(&["update", "--quiet"])?;
        apt_get(&[
            "install",
            "--quiet",
            "--yes",
            "--no-install-recommends",
            "postgresql",
        ])?;
        Self::on_this_machine().context("`apt-get install postgresql` left no initdb behind")
    }
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .context("failed to run apt-get")?;
    if !output.status.success() {
        bail!(
            "`apt-get {}` failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// `root/17/bin` before `root/15/bin`; `root/postgresql@17/bin` likewise.
fn newest_below(root: &Path) -> Option<Binaries> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(root)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix("postgresql@").unwrap_or(&name);
            Some((version.parse().ok()?, entry.path().join("bin")))
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.iter().find_map(|(_, bin)| Binaries::in_folder(bin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        for name in ["initdb", "postgres"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
    }

    #[test]
    fn the_newest_major_wins_by_number_not_by_name() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9", "15", "bin"] {
            install(&root.path().join(version).join("bin"));
        }
        let found = newest_below(root.path()).unwrap();
        assert_eq!(found.folder(), root.path().join("15/bin"));
    }

    #[test]
    fn a_linked_initdb_leads_to_its_real_folder() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().canonicalize().unwrap().join("real");
        install(&real);
        let links = root.path().join("links");
        std::fs::create_dir(&links).unwrap();
        std::os::unix::fs::symlink(real.join("initdb"), links.join("initdb")).unwrap();
        assert_eq!(Binaries::in_folder(&links), Some(Binaries(real)));
    }

    #[test]
    fn a_folder_without_the_programs_is_no_installation() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Binaries::in_folder(root.path()), None);
    }
}
