//! The state that a server's memory is in after a day.

use std::fs::File;
use std::io::Write;

use anyhow::Context;
use tempfile::TempDir;

/// What the benchmark, its servers and their page cache are left with.
const LEFT: u64 = 5 << 30;
/// Part of it that no page cache is made of: what programs take.
const SPARE: u64 = 1 << 30;
const CHUNK: usize = 1 << 20;

/// Memory that nobody else gets until this is dropped.
pub struct Warm {
    _memory: Vec<u8>,
    _page_cache: TempDir,
}

/// Takes all but 5 GiB of the free memory, and fills the rest with a page cache that new pages take
/// the place of.
///
/// On a server that has run for a day no memory is free: a new page of the cache was another one's
/// before. On a fresh virtual machine it comes from the host instead, which on some takes 10 µs for
/// each 4 KiB, as long as writing 60 KiB, and is paid by whatever appends to files.
pub fn fill() -> anyhow::Result<Warm> {
    // Not 0, for pages of zeros may stay imaginary.
    let memory = vec![1; free()?.saturating_sub(LEFT) as usize];
    // Beside the program, for the system's folder of temporary files may be made of memory.
    let program = std::env::current_exe()?;
    let page_cache = tempfile::tempdir_in(program.parent().context("the program lies somewhere")?)?;
    let mut file = File::create(page_cache.path().join("warm"))?;
    let mut left = free()?.saturating_sub(SPARE);
    let chunk = vec![1; CHUNK];
    while left >= CHUNK as u64 {
        file.write_all(&chunk)?;
        left -= CHUNK as u64;
    }
    file.sync_all().context("fill the page cache")?;
    Ok(Warm {
        _memory: memory,
        _page_cache: page_cache,
    })
}

/// Bytes of memory that nothing uses, not even as a cache.
fn free() -> anyhow::Result<u64> {
    let all = std::fs::read_to_string("/proc/meminfo")?;
    let line = all.lines().find_map(|line| line.strip_prefix("MemFree:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("no MemFree in /proc/meminfo")?.parse::<u64>()? * 1024)
}
