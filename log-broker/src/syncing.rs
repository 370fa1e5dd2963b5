//! Syncs many files at a time: a file system shares one journal commit among those that wait for it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Context, DiskError};
use crate::layout::Layout;
use crate::limits::{SYNC_ALONE_MAX, SYNC_THREADS};
use crate::shared::Dirty;
use crate::storage::Storage;

/// Makes durable what was written to the segments, and their names.
pub(crate) fn sync_dirty(
    storage: &dyn Storage,
    layout: &Layout,
    dirty: &Dirty,
) -> Result<(), DiskError> {
    let files: Vec<_> = dirty.files.iter().collect();
    each(&files, |(path, file)| file.sync().during("sync", path))?;
    let dirs = dirty.dirs.iter().flat_map(|dir| layout.with_parents(dir));
    let dirs: Vec<&Path> = dirs.collect::<BTreeSet<_>>().into_iter().collect();
    each(&dirs, |dir| storage.sync_dir(dir).during("sync", dir))
}

/// Does something to every item; many of them by several threads. Answers the first error, after
/// which nothing more is begun.
fn each<T: Sync>(
    items: &[T],
    act: impl Fn(&T) -> Result<(), DiskError> + Sync,
) -> Result<(), DiskError> {
    if items.len() <= SYNC_ALONE_MAX {
        return items.iter().try_for_each(act);
    }
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let failed_now = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed_now().is_some() {
                return;
            }
            if let Err(error) = act(item) {
                failed_now().get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..SYNC_THREADS {
            // Without another thread the work is done by those that there are.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_met_once_and_the_first_error_is_told() {
        for count in [0, 1, SYNC_ALONE_MAX, SYNC_ALONE_MAX + 1, 1000] {
            let items: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            let met = each(&items, |item| {
                item.fetch_add(1, Ordering::Relaxed);
                Ok(())
            });
            met.expect("no error");
            assert!(items.iter().all(|n| n.load(Ordering::Relaxed) == 1));
            let failed = each(&items, |_| {
                let error = std::io::Error::other("no");
                Err(DiskError::new("sync", Path::new("/x"), error))
            });
            assert_eq!(failed.is_err(), count > 0);
        }
    }
}
