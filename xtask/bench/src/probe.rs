//! What the machine itself can do, measured under the same load.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Times an fdatasync of 4 KiB every 20 ms on a thread of its own.
pub struct FdatasyncProbe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<Vec<f64>>>,
}

impl FdatasyncProbe {
    /// Starts probing a fresh file in `dir`.
    pub fn start(dir: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, stopped) = (dir.join("fdatasync.probe"), stop.clone());
        let thread = std::thread::spawn(move || probe(&path, &stopped));
        Self { stop, thread }
    }

    /// Stops; answers each sync's time in milliseconds.
    pub fn stop(self) -> anyhow::Result<Vec<f64>> {
        self.stop.store(true, Ordering::Relaxed);
        let times = self
            .thread
            .join()
            .map_err(|_| anyhow::anyhow!("the probe panicked"))??;
        Ok(times)
    }
}

fn probe(path: &Path, stop: &AtomicBool) -> std::io::Result<Vec<f64>> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(path)?;
    file.write_all_at(&vec![0; 1 << 20], 0)?;
    file.sync_all()?;
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        file.write_all_at(
            &[times.len() as u8; 4096],
            (times.len() as u64 % 256) * 4096,
        )?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(times)
}

/// CPU seconds (user and system) used so far by `pids`, from `/proc`.
pub fn cpu_seconds(pids: &[u32]) -> f64 {
    let ticks: u64 = pids.iter().filter_map(|pid| ticks_of(*pid)).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

fn ticks_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Fields are counted behind the command's closing parenthesis, for it may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let tick = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok());
    // utime, stime, and the same of children that were waited for (backends that ended).
    Some(tick(11)? + tick(12)? + tick(13)? + tick(14)?)
}

/// `pid` and its children.
pub fn with_children(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    all.extend(
        children
            .split_whitespace()
            .filter_map(|p| p.parse::<u32>().ok()),
    );
    all
}

/// The process that started `pid`.
pub fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}
