//! A simulated disk: what was not synced is lost, torn or kept, as chance will have it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use outbox_log_broker::{File, Mode, Storage};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A small random generator whose seed is all there is to a run.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// A disk that tests own. Clones share it.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<Sim>>);

#[derive(Default)]
struct Sim {
    files: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names since the last sync, by folder and in order.
    name_changes: BTreeMap<PathBuf, Vec<NameChange>>,
    locks: BTreeSet<PathBuf>,
    inodes: u64,
    /// Operations that change something, so far.
    operations: u64,
    /// Syncs of files that succeeded.
    syncs: u64,
    /// The power goes at this operation.
    power_off_at: Option<u64>,
    off: bool,
    /// Bytes that all files together may have.
    capacity: Option<u64>,
    /// The next sync of a path that contains this fails.
    fail_sync_of: Option<String>,
    /// Whether nothing may be changed.
    read_only: bool,
}

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

#[derive(Clone)]
enum NameChange {
    Set(PathBuf, u64),
    Move(PathBuf, PathBuf),
    Gone(PathBuf),
}

struct SimFile {
    disk: SimDisk,
    inode: u64,
    path: PathBuf,
}

struct SimLock(SimDisk, PathBuf);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.sim().locks.remove(&self.1);
    }
}

impl SimDisk {
    fn sim(&self) -> MutexGuard<'_, Sim> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Cuts the power at the n-th operation from now.
    pub fn power_off_after(&self, operations: u64) {
        let mut sim = self.sim();
        sim.power_off_at = Some(sim.operations + operations);
    }

    /// Bounds the bytes of all files together.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.sim().capacity = bytes;
    }

    /// Bytes of all files together.
    pub fn used(&self) -> u64 {
        self.sim().used()
    }

    /// Lets the next sync of a path that contains `part` fail, or none.
    pub fn fail_sync_of(&self, part: Option<&str>) {
        self.sim().fail_sync_of = part.map(str::to_owned);
    }

    /// Lets nothing be changed, as after an error that makes the kernel mount it read-only.
    pub fn set_read_only(&self, read_only: bool) {
        self.sim().read_only = read_only;
    }

    /// The disk after the power came back: of what was not synced, each sector and each change
    /// of a name's folder was kept or lost as chance has it, in the order of writing.
    pub fn after_power_loss(&self, chance: &mut Chance) -> Self {
        let sim = self.sim();
        let keep_all = chance.below(4);
        let mut names = sim.durable_names.clone();
        for changes in sim.name_changes.values() {
            let kept = match keep_all {
                0 => 0,
                1 => changes.len(),
                _ => chance.below(changes.len() as u64 + 1) as usize,
            };
            changes[..kept].iter().for_each(|c| c.apply(&mut names));
        }
        let files = sim.files.iter().map(|(&n, file)| {
            let mut bytes = file.durable.clone();
            for change in &file.unsynced {
                change.apply_torn(&mut bytes, keep_all, chance);
            }
            (n, Inode::whole(bytes))
        });
        Self::of(files.collect(), names, sim.inodes)
    }

    /// The disk after a power loss that took all that was not synced.
    pub fn after_worst_power_loss(&self) -> Self {
        let sim = self.sim();
        let files = sim.files.iter();
        let files = files.map(|(&n, file)| (n, Inode::whole(file.durable.clone())));
        Self::of(files.collect(), sim.durable_names.clone(), sim.inodes)
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.sim().syncs
    }

    /// The disk after a process was killed: everything that was written is there.
    pub fn after_kill(&self) -> Self {
        let sim = self.sim();
        let files = sim.files.iter();
        let files = files.map(|(&n, file)| (n, Inode::whole(file.bytes.clone())));
        Self::of(files.collect(), sim.names.clone(), sim.inodes)
    }

    fn of(files: BTreeMap<u64, Inode>, names: BTreeMap<PathBuf, u64>, inodes: u64) -> Self {
        Self(Arc::new(Mutex::new(Sim {
            files,
            durable_names: names.clone(),
            names,
            inodes,
            ..Sim::default()
        })))
    }

    /// Paths of all files that contain `part`.
    pub fn paths(&self, part: &str) -> Vec<PathBuf> {
        let sim = self.sim();
        let paths = sim
            .names
            .keys()
            .filter(|p| p.to_string_lossy().contains(part));
        paths.cloned().collect()
    }

    /// The bytes of a file.
    pub fn read(&self, path: &Path) -> Vec<u8> {
        let sim = self.sim();
        sim.files[&sim.names[path]].bytes.clone()
    }

    /// Changes a file behind the log's back.
    pub fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut sim = self.sim();
        let inode = sim.names[path];
        if let Some(file) = sim.files.get_mut(&inode) {
            change(&mut file.bytes);
            file.durable = file.bytes.clone();
        }
    }

    /// Removes a file behind the log's back.
    pub fn delete(&self, path: &Path) {
        let mut sim = self.sim();
        sim.names.remove(path);
        sim.durable_names.remove(path);
    }
}

impl Sim {
    fn used(&self) -> u64 {
        let live: BTreeSet<u64> = self.names.values().copied().collect();
        live.iter().map(|n| self.files[n].bytes.len() as u64).sum()
    }

    /// Counts an operation; fails when there is no power, or nothing may be changed.
    fn operate(&mut self) -> io::Result<()> {
        self.writable()?;
        self.operations += 1;
        if self.power_off_at.is_some_and(|at| self.operations >= at) {
            self.off = true;
        }
        self.powered()
    }

    fn writable(&self) -> io::Result<()> {
        match self.read_only {
            true => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            false => Ok(()),
        }
    }

    fn powered(&self) -> io::Result<()> {
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        Ok(())
    }

    fn change_name(&mut self, dir: &Path, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes
            .entry(dir.to_owned())
            .or_default()
            .push(change);
    }
}

impl Inode {
    fn whole(bytes: Vec<u8>) -> Self {
        Self {
            durable: bytes.clone(),
            bytes,
            unsynced: Vec::new(),
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Len(len) => bytes.resize(*len, 0),
            Self::Write(at, data) => write(bytes, *at, data),
        }
    }

    fn apply_torn(&self, bytes: &mut Vec<u8>, keep_all: u64, chance: &mut Chance) {
        match self {
            _ if keep_all == 0 => {}
            _ if keep_all == 1 => self.apply(bytes),
            Self::Len(len) => {
                if chance.below(2) == 0 {
                    bytes.resize(*len, 0);
                }
            }
            Self::Write(at, data) => {
                let mut from = 0;
                while from < data.len() {
                    let sector_end = (at + from) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
                    let to = data.len().min(sector_end - at);
                    if chance.below(2) == 0 {
                        write(bytes, at + from, &data[from..to]);
                    }
                    from = to;
                }
            }
        }
    }
}

fn write(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Set(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Move(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Gone(path) => {
                names.remove(path);
            }
        }
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

impl Storage for SimDisk {
    /// Folders are there as soon as they have a file: they are not what is tested here.
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        self.sim().powered()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let sim = self.sim();
        sim.powered()?;
        let inside = sim.names.keys().filter_map(|p| p.strip_prefix(dir).ok());
        let first = inside.filter_map(|p| p.components().next());
        let names: BTreeSet<_> = first
            .map(|c| c.as_os_str().to_string_lossy().into_owned())
            .collect();
        Ok(names.into_iter().collect())
    }

    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        let mut sim = self.sim();
        sim.powered()?;
        let inode = match sim.names.get(path).copied() {
            Some(inode) => {
                if mode == Mode::Truncate {
                    sim.operate()?;
                    if let Some(file) = sim.files.get_mut(&inode) {
                        file.bytes.clear();
                        file.unsynced.push(Change::Len(0));
                    }
                }
                inode
            }
            None if mode == Mode::Read => return Err(io::ErrorKind::NotFound.into()),
            None => {
                sim.operate()?;
                sim.inodes += 1;
                let inode = sim.inodes;
                sim.files.insert(inode, Inode::default());
                sim.change_name(&parent(path), NameChange::Set(path.to_owned(), inode));
                inode
            }
        };
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            inode,
            path: path.to_owned(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut sim = self.sim();
        sim.operate()?;
        if !sim.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        sim.change_name(
            &parent(from),
            NameChange::Move(from.to_owned(), to.to_owned()),
        );
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut sim = self.sim();
        sim.powered()?;
        if !sim.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        sim.operate()?;
        sim.change_name(&parent(path), NameChange::Gone(path.to_owned()));
        Ok(())
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        self.sim().powered()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut sim = self.sim();
        sim.operate()?;
        for change in sim.name_changes.remove(dir).unwrap_or_default() {
            change.apply(&mut sim.durable_names);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut sim = self.sim();
        sim.writable()?;
        if !sim.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock(self.clone(), path.to_owned())))
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let sim = self.disk.sim();
        sim.powered()?;
        let bytes = &sim.files[&self.inode].bytes;
        let from = (position as usize).min(bytes.len());
        let count = buf.len().min(bytes.len() - from);
        buf[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut sim = self.disk.sim();
        sim.writable()?;
        let powered = sim.operate();
        let mut data: Vec<u8> = parts.iter().flat_map(|p| p.iter().copied()).collect();
        let (used, capacity) = (sim.used(), sim.capacity);
        let Some(file) = sim.files.get_mut(&self.inode) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let at = position as usize;
        let grows = (at + data.len()).saturating_sub(file.bytes.len());
        let room = capacity.map_or(usize::MAX, |c| c.saturating_sub(used) as usize);
        let full = grows > room;
        if full {
            // As much as there is room for gets through.
            data.truncate(data.len().saturating_sub(grows - room));
        }
        // When the power goes during a write, it is under way: any sector may get through.
        let change = Change::Write(at, data);
        if powered.is_ok() {
            change.apply(&mut file.bytes);
        }
        file.unsynced.push(change);
        powered?;
        if full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut sim = self.disk.sim();
        sim.operate()?;
        if let Some(file) = sim.files.get_mut(&self.inode) {
            file.bytes.resize(len as usize, 0);
            file.unsynced.push(Change::Len(len as usize));
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let sim = self.disk.sim();
        sim.powered()?;
        Ok(sim.files[&self.inode].bytes.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut sim = self.disk.sim();
        sim.operate()?;
        let path = self.path.to_string_lossy().into_owned();
        if sim
            .fail_sync_of
            .as_ref()
            .is_some_and(|part| path.contains(part))
        {
            sim.fail_sync_of = None;
            // As a kernel does: the pages count as clean now, though the disk never got them.
            if let Some(file) = sim.files.get_mut(&self.inode) {
                file.unsynced.clear();
            }
            return Err(io::Error::other("simulated sync failure"));
        }
        sim.syncs += 1;
        if let Some(file) = sim.files.get_mut(&self.inode) {
            for change in std::mem::take(&mut file.unsynced) {
                change.apply(&mut file.durable);
            }
        }
        Ok(())
    }
}
