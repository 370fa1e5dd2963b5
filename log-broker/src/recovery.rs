//! What happens when a log is opened: the last checkpoint, then the WAL behind it.
//!
//! Everything is looked at before anything is changed. When nothing is damaged, the frames are
//! written to the segments again, whether or not they are there, and synced, together with a new
//! checkpoint of the next generation: after a failed sync the page cache may show what the disk
//! does not hold, so that only what is written and synced anew is known to be durable. When
//! something is damaged, nothing is cut and no checkpoint is written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::{Context, Damage, DiskError, OpenError};
use crate::layout::{Layout, wal_number};
use crate::segments::SegmentWriter;
use crate::shared::{Dirty, Identity};
use crate::state::State;
use crate::storage::{Mode, Storage};
use crate::syncing::sync_dirty;
use crate::tables::Tables;
use crate::wal::{Entry, WalScan};

/// A log that was brought back.
pub(crate) struct Recovered {
    pub tables: Tables,
    pub identity: Identity,
    /// Set when something durable no longer reads as it was written.
    pub damage: Option<Damage>,
    /// Frames that were replayed.
    pub frames: u64,
}

/// Brings the log in `layout` back, or creates it.
pub(crate) fn recover(
    storage: &dyn Storage,
    layout: &Layout,
    wal_file_bytes: u64,
) -> Result<Recovered, OpenError> {
    let state = match State::load(storage, layout)? {
        Some(state) => state,
        None => create(storage, layout, wal_file_bytes)?,
    };
    let (mut recovered, dirty) = look(storage, layout, &state)?;
    if recovered.damage.is_none() {
        recovered.identity.generation += 1;
        let (tables, identity) = (&mut recovered.tables, recovered.identity);
        finish(storage, layout, tables, identity, &dirty)?;
    }
    Ok(recovered)
}

/// Looks at everything, and applies the frames behind the checkpoint to segments and tables.
fn look(
    storage: &dyn Storage,
    layout: &Layout,
    state: &State,
) -> Result<(Recovered, Dirty), OpenError> {
    let mut scan = WalScan::new(storage, layout, state);
    while scan.next()?.is_some() {}
    let mut tables = state.tables(layout);
    let wal = scan.damage()?;
    let segments = inspect(storage, &tables)?;
    let (dirty, frames) = replay(storage, layout, state, &mut tables)?;
    // Those that compaction made behind the checkpoint are looked at as well.
    let made = inspect(storage, &tables)?;
    let recovered = Recovered {
        tables,
        identity: Identity {
            log_id: state.log_id,
            seed: state.seed(),
            generation: state.generation,
            wal_file_bytes: state.wal_file_bytes,
        },
        damage: wal.or(segments).or(made),
        frames,
    };
    Ok((recovered, dirty))
}

/// As [`recover`], of a log that somebody else may have open, in memory alone; and whether no
/// checkpoint was made meanwhile.
pub(crate) fn survey(
    storage: &dyn Storage,
    layout: &Layout,
) -> Result<(Recovered, bool), OpenError> {
    let load = || {
        State::load(storage, layout)?.ok_or_else(|| OpenError::State {
            dir: layout.dir.clone(),
            problem: "it has no checkpoint: it is not a log, or was never opened".to_owned(),
        })
    };
    let state = load()?;
    let (recovered, _) = look(storage, layout, &state)?;
    let now = load()?;
    let still = (now.generation, now.wal_position) == (state.generation, state.wal_position);
    Ok((recovered, still))
}

fn create(storage: &dyn Storage, layout: &Layout, wal_file_bytes: u64) -> Result<State, OpenError> {
    for dir in [layout.wal(), layout.topics()] {
        if !storage.list(&dir).during("list", &dir)?.is_empty() {
            return Err(OpenError::State {
                dir: layout.dir.clone(),
                problem: format!("it has no checkpoint but {} is not empty", dir.display()),
            });
        }
        storage.create_dir(&dir).during("create", &dir)?;
    }
    let state = State::fresh(wal_file_bytes);
    state.save(storage, layout)?;
    // The folder itself must be found again after a power loss.
    for dir in layout.dir.ancestors().skip(1) {
        let here = Path::new(".");
        let dir = if dir.as_os_str().is_empty() {
            here
        } else {
            dir
        };
        match storage.sync_dir(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => break,
            other => other.during("sync", dir)?,
        }
    }
    Ok(state)
}

/// Looks at the segments that the checkpoint knows: they must have the bytes it says.
fn inspect(storage: &dyn Storage, tables: &Tables) -> Result<Option<Damage>, DiskError> {
    let mut first = None;
    for partition in tables.topics.values().flat_map(|t| &t.partitions) {
        for segment in &partition.segments {
            let path = segment.state.path(&partition.dir);
            let damage = inspect_segment(storage, &path, segment.state.bytes)?;
            first = first.or(damage);
        }
    }
    Ok(first)
}

fn inspect_segment(
    storage: &dyn Storage,
    path: &Path,
    bytes: u64,
) -> Result<Option<Damage>, DiskError> {
    let damage = |position, problem| {
        Ok(Some(Damage {
            path: path.to_owned(),
            position,
            problem,
        }))
    };
    let file = match storage.open(path, Mode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return damage(0, format!("the file of {bytes} bytes is gone"));
        }
        Err(e) => return Err(DiskError::new("open", path, e)),
    };
    let len = file.len().during("measure", path)?;
    if len < bytes {
        return damage(len, format!("it ends here, {bytes} bytes were durable"));
    }
    Ok(None)
}

/// Applies every whole frame again.
fn replay(
    storage: &dyn Storage,
    layout: &Layout,
    state: &State,
    tables: &mut Tables,
) -> Result<(Dirty, u64), OpenError> {
    let (mut dirty, mut frames) = (Dirty::default(), 0);
    let mut scan = WalScan::new(storage, layout, state);
    while let Some(frame) = scan.next()? {
        let bad = |problem: &str| OpenError::State {
            dir: layout.dir.clone(),
            problem: format!("the WAL frame at {}: {problem}", frame.header.position),
        };
        let entries = Entry::read_all(frame.meta());
        let entries = entries.ok_or_else(|| bad("written by a newer version"))?;
        let (mut rest, mut written) = (frame.data(), Vec::new());
        let mut segments = SegmentWriter::new(storage, tables);
        for entry in &entries {
            let Entry::Append {
                topic,
                partition,
                first_offset,
                data_len,
            } = entry
            else {
                continue;
            };
            let data = rest.split_at_checked(*data_len as usize);
            let (data, tail) = data.ok_or_else(|| bad("its lengths do not agree"))?;
            rest = tail;
            written.push(segments.write(topic, *partition, *first_offset, data)?);
        }
        let waiting = dirty.note(segments.touched, segments.dirs);
        if waiting > storage.open_files_max() {
            sync_dirty(storage, layout, &dirty)?;
            dirty.files.clear();
            dirty.dirs.clear();
        }
        tables.bound_open_segments(storage.open_files_max());
        let aftermath = tables.apply(
            layout,
            &entries,
            &written,
            frame.header.wall_ms,
            frame.header.end(),
        );
        dirty.note_aftermath(aftermath);
        frames += 1;
    }
    Ok((dirty, frames))
}

/// Makes the replayed tables the new checkpoint. Only then may a WAL file be used again.
fn finish(
    storage: &dyn Storage,
    layout: &Layout,
    tables: &mut Tables,
    identity: Identity,
    dirty: &Dirty,
) -> Result<(), OpenError> {
    sync_dirty(storage, layout, dirty)?;
    // The WAL goes on in a file that no frame of an earlier start stands in at its own place.
    let dir = layout.wal();
    let names = storage.list(&dir).during("list", &dir)?;
    let unused = names.iter().filter_map(|name| wal_number(name)).max();
    tables.position = unused.map_or(tables.position, |n| (n + 1) * identity.wal_file_bytes);
    State::of(
        tables,
        identity.log_id,
        identity.generation,
        identity.wal_file_bytes,
    )
    .save(storage, layout)?;
    remove_deleted(storage, layout, tables)?;
    remove_orphans(storage, tables)?;
    Ok(())
}

/// Removes the folders of topics that were deleted.
fn remove_deleted(
    storage: &dyn Storage,
    layout: &Layout,
    tables: &Tables,
) -> Result<(), DiskError> {
    let known: BTreeSet<&PathBuf> = tables.topics.values().map(|t| &t.dir).collect();
    let all = layout.topics();
    for topic in storage.list(&all).during("list", &all)? {
        // Anything else is not ours.
        let ours = topic
            .rsplit('.')
            .next()
            .is_some_and(|id| Uuid::try_parse(id).is_ok());
        let topic = all.join(topic);
        if !ours || known.contains(&topic) {
            continue;
        }
        for partition in storage.list(&topic).during("list", &topic)? {
            let partition = topic.join(partition);
            for name in storage.list(&partition).during("list", &partition)? {
                let path = partition.join(name);
                storage.remove(&path).during("remove", &path)?;
            }
            storage
                .remove_dir(&partition)
                .during("remove", &partition)?;
        }
        storage.remove_dir(&topic).during("remove", &topic)?;
    }
    Ok(())
}

/// Cuts what stands behind the segments' ends, and removes segments that nothing refers to: they
/// were begun by frames that were never durable, or given up by retention.
fn remove_orphans(storage: &dyn Storage, tables: &Tables) -> Result<(), DiskError> {
    let partitions = tables.topics.values().flat_map(|t| &t.partitions);
    for partition in partitions {
        let dir = &partition.dir;
        let states = || partition.segments.iter().map(|s| &s.state);
        let known: BTreeSet<PathBuf> = states()
            .flat_map(|s| [s.path(dir), s.index_path(dir)])
            .collect();
        for name in storage.list(dir).during("list", dir)? {
            let path = dir.join(&name);
            if !known.contains(&path) {
                storage.remove(&path).during("remove", &path)?;
            }
        }
        if let Some(last) = states().next_back() {
            let path = last.path(dir);
            let file = storage.open(&path, Mode::Write).during("open", &path)?;
            if file.len().during("measure", &path)? > last.bytes {
                file.set_len(last.bytes).during("cut", &path)?;
            }
        }
    }
    Ok(())
}
