//! A log that somebody else may have open, as it stands now, to look at.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use crate::error::{DiskError, OpenError};
use crate::layout::Layout;
use crate::recovery::{Recovered, survey};
use crate::storage::{File, Mode, Storage};

/// How often a view is begun anew when its log goes on too fast.
const TRIES: usize = 8;

/// A storage that nothing is written to: what recovery writes is there already.
pub(crate) struct Untouched(pub Arc<dyn Storage>);

struct UntouchedFile(Arc<dyn File>);

/// Brings the log in `layout` back in memory alone. Its owner may go on meanwhile: when it has made
/// a checkpoint, this begins anew.
pub(crate) fn view(storage: &dyn Storage, layout: &Layout) -> Result<Recovered, OpenError> {
    let mut last = None;
    for _ in 0..TRIES {
        match survey(storage, layout) {
            Ok((recovered, true)) => return Ok(recovered),
            Ok((_, false)) => {}
            // A file may have gone with a checkpoint; if not, it is gone the next time as well.
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| {
        let busy = io::Error::from(io::ErrorKind::ResourceBusy);
        DiskError::new("read", &layout.state(), busy).into()
    }))
}

fn refused() -> io::Error {
    io::ErrorKind::ReadOnlyFilesystem.into()
}

impl Storage for Untouched {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        match mode {
            Mode::Truncate => Err(refused()),
            Mode::Read | Mode::Write => {
                let file = self.0.open(path, Mode::Read)?;
                Ok(Arc::new(UntouchedFile(file)))
            }
        }
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Err(refused())
    }
}

impl File for UntouchedFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buf, position)
    }

    /// The owner wrote it before it wrote the WAL.
    fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(refused())
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
