//! Looks at every byte of a log that is not open, without changing anything.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::batch::{BatchHeader, Records, open};
use crate::disk::Disk;
use crate::error::{Context, Damage, DiskError, OpenError};
use crate::index::Index;
use crate::layout::Layout;
use crate::limits::VERIFY_FINDINGS_MAX;
use crate::partition::{Partition, SegmentState};
use crate::reader::{ReadError, SegmentReader};
use crate::state::State;
use crate::storage::{Mode, Storage};
use crate::tables::Tables;
use crate::wal::{Entry, Frame, WalScan};

/// What was found in a log's folder.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Topics as of the last checkpoint.
    pub topics: usize,
    /// Their partitions.
    pub partitions: usize,
    /// Their segments.
    pub segments: usize,
    /// Batches in those.
    pub batches: u64,
    /// Records in those.
    pub records: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Whole frames in the WAL behind the checkpoint: they are replayed at the next start.
    pub frames: u64,
    /// What no longer reads as it was written: of each file the first place. At most
    /// [`VERIFY_FINDINGS_MAX`].
    pub damage: Vec<Damage>,
    /// What is not as it should be and mends itself, or takes room in vain. At most
    /// [`VERIFY_FINDINGS_MAX`].
    pub notes: Vec<Damage>,
}

/// Checks the log in a folder of the machine's file system: every frame of the WAL, every batch and
/// every record of every segment, every index. Blocks for as long as it takes to read it all.
///
/// # Errors
/// When it is open, its checkpoint cannot be read, or a file cannot be. What is wrong with the
/// records is no error: see [`Verified::damage`].
pub fn verify(dir: &Path) -> Result<Verified, OpenError> {
    verify_on(&Disk, dir)
}

/// As [`verify`], on any storage.
///
/// # Errors
/// As [`verify`].
pub fn verify_on(storage: &dyn Storage, dir: &Path) -> Result<Verified, OpenError> {
    let layout = Layout {
        dir: dir.to_owned(),
    };
    let _lock = match storage.lock(&layout.lock()) {
        Ok(lock) => Some(lock),
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
            return Err(OpenError::Locked { dir: layout.dir });
        }
        // Where nothing can be written nobody else writes.
        Err(_) => None,
    };
    let state = State::load(storage, &layout)?.ok_or_else(|| OpenError::State {
        dir: layout.dir.clone(),
        problem: "it has no checkpoint: it is not a log, or was never opened".to_owned(),
    })?;
    let mut check = Check {
        storage,
        layout: &layout,
        found: Verified::default(),
    };
    check.wal(&state)?;
    let tables = state.tables(&layout);
    check.topics(&tables)?;
    check.leftovers(&tables)?;
    Ok(check.found)
}

struct Check<'a> {
    storage: &'a dyn Storage,
    layout: &'a Layout,
    found: Verified,
}

impl Check<'_> {
    fn damage(&mut self, damage: Damage) {
        if self.found.damage.len() < VERIFY_FINDINGS_MAX {
            self.found.damage.push(damage);
        }
    }

    fn note(&mut self, path: &Path, problem: impl Into<String>) {
        if self.found.notes.len() < VERIFY_FINDINGS_MAX {
            self.found.notes.push(Damage {
                path: path.to_owned(),
                position: 0,
                problem: problem.into(),
            });
        }
    }

    fn wal(&mut self, state: &State) -> Result<(), DiskError> {
        let mut scan = WalScan::new(self.storage, self.layout, state);
        while let Some(frame) = scan.next()? {
            self.found.frames += 1;
            if let Err(problem) = check_frame(&frame) {
                let (position, size) = (frame.header.position, state.wal_file_bytes);
                self.damage(Damage {
                    path: self.layout.wal_file(position / size),
                    position: position % size,
                    problem,
                });
            }
        }
        if let Some(damage) = scan.damage()? {
            self.damage(damage);
        }
        Ok(())
    }

    fn topics(&mut self, tables: &Tables) -> Result<(), DiskError> {
        self.found.topics = tables.topics.len();
        for topic in tables.topics.values() {
            for partition in &topic.partitions {
                self.found.partitions += 1;
                self.partition(partition)?;
            }
        }
        Ok(())
    }

    fn partition(&mut self, partition: &Partition) -> Result<(), DiskError> {
        let states: Vec<_> = partition.segments.iter().map(|s| &s.state).collect();
        for state in &states {
            self.found.segments += 1;
            if let Err(error) = self.segment(&partition.dir, state) {
                match error {
                    ReadError::Damaged(damage) => self.damage(damage),
                    ReadError::Disk(error) => return Err(error),
                }
            }
        }
        // Compaction may take a whole segment; nothing else leaves a hole.
        for pair in states.windows(2) {
            let holes = pair.iter().any(|s| s.has_holes());
            if pair[0].end != pair[1].base && !holes {
                self.damage(Damage {
                    path: pair[1].path(&partition.dir),
                    position: 0,
                    problem: format!(
                        "it begins at offset {}, the segment before it ends at {}",
                        pair[1].base, pair[0].end
                    ),
                });
            }
        }
        Ok(())
    }

    fn segment(&mut self, dir: &Path, state: &SegmentState) -> Result<(), ReadError> {
        let path = state.path(dir);
        let damage = |position, problem| Damage {
            path: path.clone(),
            position,
            problem,
        };
        let file = match self.storage.open(&path, Mode::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let text = format!("the file of {} bytes is gone", state.bytes);
                return Err(damage(0, text).into());
            }
            Err(e) => return Err(DiskError::new("open", &path, e).into()),
        };
        let len = file.len().during("measure", &path)?;
        if len < state.bytes {
            let text = format!("it ends here, {} bytes were durable", state.bytes);
            return Err(damage(len, text).into());
        }
        let mut reader = SegmentReader::open(self.storage, dir, state)?;
        while let Some((header, batch)) = reader.next()? {
            self.found.batches += 1;
            self.found.records += header.records as u64;
            self.found.bytes += header.bytes as u64;
            let checked = check_records(&header, batch);
            checked.map_err(|problem| damage(reader.position() - header.bytes as u64, problem))?;
        }
        let (found, due) = (reader.offset(), state.end);
        if found != due && !(state.has_holes() && found < due) {
            let text = format!("it ends at offset {found}, not at {due}");
            return Err(damage(state.bytes, text).into());
        }
        self.index(dir, state)?;
        Ok(())
    }

    fn index(&mut self, dir: &Path, state: &SegmentState) -> Result<(), DiskError> {
        let path = state.index_path(dir);
        let Some(stored) = Index::load(self.storage, &path, state.bytes) else {
            if self.storage.open(&path, Mode::Read).is_ok() {
                self.note(
                    &path,
                    "it does not fit its segment, and is built again when needed",
                );
            }
            return Ok(());
        };
        let segment = state.path(dir);
        let file = self.storage.open(&segment, Mode::Read);
        let file = file.during("open", &segment)?;
        if !stored.is_right(&*file, &segment, state.base, state.has_holes())? {
            self.damage(Damage {
                path,
                position: 0,
                problem: "it leads to wrong places. Cure: delete it".to_owned(),
            });
        }
        Ok(())
    }

    /// Files that the checkpoint does not speak of. The WAL behind it may; the next start removes
    /// the others.
    fn leftovers(&mut self, tables: &Tables) -> Result<(), DiskError> {
        let known: BTreeSet<PathBuf> = tables
            .topics
            .values()
            .flat_map(|t| &t.partitions)
            .flat_map(|p| p.segments.iter().map(move |s| (p, &s.state)))
            .flat_map(|(p, s)| [s.path(&p.dir), s.index_path(&p.dir)])
            .collect();
        let topics = self.layout.topics();
        for topic in self.storage.list(&topics).during("list", &topics)? {
            let topic = topics.join(topic);
            for partition in self.storage.list(&topic).during("list", &topic)? {
                let dir = topic.join(partition);
                for name in self.storage.list(&dir).during("list", &dir)? {
                    let path = dir.join(name);
                    if !known.contains(&path) {
                        self.note(&path, "the checkpoint does not speak of it");
                    }
                }
            }
        }
        Ok(())
    }
}

fn check_frame(frame: &Frame) -> Result<(), String> {
    let entries = Entry::read_all(frame.meta()).ok_or("its entries cannot be read")?;
    let mut rest = frame.data();
    for entry in &entries {
        let Entry::Append { data_len, .. } = entry else {
            continue;
        };
        let batches = rest.split_at_checked(*data_len as usize);
        let (mut batches, tail) = batches.ok_or("its lengths do not agree")?;
        rest = tail;
        while !batches.is_empty() {
            let header = BatchHeader::verify(batches).map_err(|e| e.to_string())?;
            check_records(&header, batches)?;
            batches = &batches[header.bytes..];
        }
    }
    Ok(())
}

/// Every record must be readable, and in its place.
fn check_records(header: &BatchHeader, batch: &[u8]) -> Result<(), String> {
    let opened = open(batch).map_err(|e| e.to_string())?;
    let (mut last, mut count) = (header.base_offset - 1, 0);
    for record in Records::new(&opened).map_err(|e| e.to_string())? {
        let record = record.map_err(|e| e.to_string())?;
        if record.offset <= last || record.offset >= header.next_offset() {
            return Err(format!("record {count} has offset {}", record.offset));
        }
        last = record.offset;
        count += 1;
    }
    match count == header.records {
        true => Ok(()),
        false => Err(format!("it has {count} records, not {}", header.records)),
    }
}
