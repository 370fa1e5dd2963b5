//! A log whose files were damaged: it is opened, read, appended to and verified.
//!
//! The first byte says whether checksums are made right again. Then come edits: which file, how many
//! bytes, where (two bytes), the bytes.
#![no_main]

use std::path::Path;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use outbox_fuzz::fixture::{DIR, WAL_FILE_BYTES, seal_segment, seal_state, seal_wal, unpack};
use outbox_fuzz::memory::Memory;
use outbox_log_broker::{Append, Isolation, Log, LogOptions, Storage, verify_on};

type Files = Vec<(std::path::PathBuf, Vec<u8>)>;

static FIXTURE: LazyLock<Files> = LazyLock::new(|| unpack(include_bytes!("../fixture.bin")));
static SEED: LazyLock<u32> = LazyLock::new(|| {
    let state = FIXTURE.iter().find(|(path, _)| path.ends_with("state"));
    let text = String::from_utf8_lossy(&state.expect("a checkpoint").1).into_owned();
    let id = text.split_once("\"log_id\":\"").expect("an id").1;
    let id: Vec<u8> = id[..36].bytes().filter(|&b| b != b'-').collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16);
    let id: Vec<u8> = id.chunks(2).map(|pair| byte(pair).expect("hex")).collect();
    crc32c::crc32c(&id)
});

fuzz_target!(
    init: outbox_fuzz::allow_allocations_up_to(64 << 20),
    |data: &[u8]| {
        let Some((seal, edits)) = data.split_first() else {
            return;
        };
        let mut files = FIXTURE.clone();
        edit(&mut files, edits);
        if seal & 1 == 1 {
            for (path, bytes) in &mut files {
                match path.extension() {
                    Some(extension) if extension == "wal" => seal_wal(bytes, *SEED),
                    Some(extension) if extension == "log" => seal_segment(bytes),
                    None if path.ends_with("state") => seal_state(bytes),
                    _ => {}
                }
            }
        }
        let memory = Memory::with(files);
        // A damaged log may be refused, or be read-only; it may not bring the program down.
        let _ = verify_on(&memory, Path::new(DIR));
        look(Arc::new(memory.clone()));
        // What was opened once is opened again the same way.
        look(Arc::new(memory));
    }
);

fn edit(files: &mut Files, mut edits: &[u8]) {
    while let [file, count, low, high, rest @ ..] = edits {
        let count = usize::from(*count).min(rest.len());
        let (new, rest) = rest.split_at(count);
        edits = rest;
        let index = usize::from(*file) % files.len();
        let bytes = &mut files[index].1;
        let at = usize::from(u16::from_le_bytes([*low, *high]));
        if new.is_empty() {
            bytes.truncate(at);
        } else {
            if bytes.len() < at + new.len() {
                bytes.resize(at + new.len(), 0);
            }
            bytes[at..at + new.len()].copy_from_slice(new);
        }
    }
}

fn look(storage: Arc<dyn Storage>) {
    let options = LogOptions {
        wal_file_bytes: WAL_FILE_BYTES,
        ..LogOptions::new(DIR)
    };
    let Ok(log) = Log::open_on(storage, options) else {
        return;
    };
    for (topic, options) in log.topics() {
        for partition in 0..options.partitions.min(4) {
            let Ok((first, end)) = log.offsets(&topic, partition) else {
                continue;
            };
            let mut at = first;
            for _ in 0..64 {
                let all = Isolation::Committed;
                let fetched = log.fetch_isolated(&topic, partition, at, 1 << 16, all);
                let Ok(fetched) = fetched else { break };
                if fetched.batches.is_empty() || at >= end {
                    break;
                }
                at += 3;
            }
            let _ = log.offset_at_time(&topic, partition, 0);
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let empty = Append::default();
    let _ = runtime.expect("a runtime").block_on(log.append(empty));
    log.close();
}
