//! Which file this is: what tells a store from its copy.
//!
//! A copy of the file holds the same destinations, cursors and leases. If it published too, every
//! message would be sent twice, and its new messages would carry seqs that the original also uses,
//! which a broker that drops duplicates would swallow. So the store keeps, beside its random
//! `store_id`, the identity of the file it was at home in: the inode and its time of birth.
//!
//! - `cp`, a restored backup, a dump, `VACUUM INTO`, another machine: another inode or birth. The
//!   store stops with [`StoreError::Foreign`]; nothing is lost; `outbox adopt` gives it a
//!   `store_id` of its own and it goes on where the copy was made.
//! - `mv` within a file system: the same inode. It goes on.
//! - A reboot or another mount: the same inode and birth. The device number is left out because
//!   it changes then.
//! - A backup written over the file in place (`cp backup.db outbox.db`): the same inode and
//!   birth, but [`crate::witness`] sees that the sequence was set back.
//! - **Not seen:** a clone of the whole disk. Run `outbox adopt` on it before its relay.
//!
//! Where a file system keeps no time of birth, the inode alone decides.

use std::path::Path;
use std::time::UNIX_EPOCH;

use outbox_core::StoreError;

/// The identity of the file at `path`, as one printable word.
pub(crate) fn of_file(path: &Path) -> Result<String, StoreError> {
    let metadata = std::fs::metadata(path).map_err(|e| StoreError::Outage(Box::new(e)))?;
    let born = metadata
        .created()
        .ok()
        .and_then(|t| t.duration_since(UNIX_EPOCH).ok())
        .map_or_else(|| "unknown".to_owned(), |d| d.as_nanos().to_string());
    Ok(format!("inode-{}-born-{born}", inode(&metadata)))
}

#[cfg(unix)]
fn inode(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

/// Elsewhere the time of birth decides alone.
#[cfg(not(unix))]
fn inode(_: &std::fs::Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_another_file_and_a_moved_file_is_the_same() {
        let folder = tempfile::tempdir().expect("folder");
        let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
        std::fs::write(&a, "x").expect("write");
        let home = of_file(&a).expect("identity");
        std::fs::copy(&a, &b).expect("copy");
        assert_ne!(of_file(&b).expect("identity"), home);
        std::fs::rename(&a, &c).expect("move");
        assert_eq!(of_file(&c).expect("identity"), home);
        std::fs::write(&c, "longer than before").expect("write");
        assert_eq!(of_file(&c).expect("identity"), home);
        assert!(matches!(of_file(&a), Err(StoreError::Outage(_))));
    }
}
