//! What the operating system says: memory and processor time of processes, and the machine itself.

use crate::Result;
use crate::process::Process;
use crate::server::count;
use std::fs::read_to_string;
use std::process::Command;
use std::time::{Duration, Instant};

/// Which pages of a process count.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pages {
    /// All in memory.
    Resident,
    /// Those that it shares with others by its share.
    Proportional,
}

/// MiB of memory that processes take.
pub(crate) fn memory_mib(pids: &[u32], pages: Pages) -> Result<f64> {
    let name = match pages {
        Pages::Resident => "Rss:",
        Pages::Proportional => "Pss:",
    };
    let mut kib = 0;
    for pid in pids {
        let rollup = read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).ok_or(name)?;
        kib += line.trim().trim_end_matches(" kB").parse::<u64>()?;
    }
    Ok(count(kib) / 1024.0)
}

/// Up to so many busy cores of others count as none.
pub(crate) const QUIET: f64 = 0.15;

/// How busy everybody else keeps the machine.
#[derive(Debug)]
pub(crate) struct Others {
    pids: Vec<u32>,
    started: Instant,
    ticks: u64,
}

impl Others {
    /// Begins to watch everybody but these processes, this one and those it starts and sees end.
    pub(crate) fn watch(pids: Vec<u32>) -> Result<Self> {
        let ticks = ticks_of_others(&pids)?;
        Ok(Self { pids, started: Instant::now(), ticks })
    }

    /// Waits until the others leave the machine alone for a moment, but not longer than `patience`.
    pub(crate) fn await_quiet(pids: &[u32], patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        while Instant::now() < end {
            let others = Self::watch(pids.to_vec())?;
            // A shorter look may fall into a pause between two compilers.
            std::thread::sleep(Duration::from_secs(1));
            if others.cores()? <= QUIET {
                break;
            }
        }
        Ok(())
    }

    /// Cores that the others kept busy since then.
    pub(crate) fn cores(&self) -> Result<f64> {
        let ticks = count(ticks_of_others(&self.pids)?.saturating_sub(self.ticks));
        let per_second = count(rustix::param::clock_ticks_per_second());
        // One tick of somebody's says nothing about a few milliseconds.
        Ok(ticks / per_second / self.started.elapsed().as_secs_f64().max(0.3))
    }
}

fn ticks_of_others(pids: &[u32]) -> Result<u64> {
    let stat = read_to_string("/proc/stat")?;
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .into_iter()
        .flat_map(str::split_ascii_whitespace)
        .filter_map(|field| field.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = fields[..] else {
        return Err("/proc/stat has too few fields".into());
    };
    let mut ours = 0;
    for pid in pids {
        ours += ticks(&format!("/proc/{pid}/stat"), 2)?;
    }
    // With children that have ended: llama-bench and the neighbour.
    ours += ticks("/proc/self/stat", 4)?;
    Ok((user + nice + system + irq + softirq).saturating_sub(ours))
}

/// The sum of the first so many of utime, stime, cutime and cstime.
fn ticks(path: &str, n_fields: usize) -> Result<u64> {
    let stat = read_to_string(path)?;
    // The name before it may hold anything.
    let (_, rest) = stat.rsplit_once(") ").ok_or("no name in stat")?;
    let fields = rest.split(' ').skip(11).take(n_fields);
    fields.map(|field| Ok(field.parse::<u64>()?)).sum()
}

/// The variant of ggml's CPU code that one of these processes has loaded, such as `zen4`.
pub(crate) fn cpu_module(pids: &[u32]) -> Result<String> {
    for pid in pids {
        let maps = read_to_string(format!("/proc/{pid}/maps"))?;
        let name = maps.lines().find_map(|line| line.split("/libggml-cpu-").nth(1));
        if let Some(name) = name.and_then(|name| name.strip_suffix(".so")) {
            return Ok(name.into());
        }
    }
    Err("no CPU module of ggml is loaded".into())
}

/// A process that keeps one core busy until it is dropped.
pub(crate) fn busy_neighbour() -> Result<Process> {
    Process::spawn(Command::new(std::env::current_exe()?).arg(SPIN))
}

/// The argument that makes this program such a process.
pub(crate) const SPIN: &str = "spin";

/// Never returns.
pub(crate) fn spin() -> ! {
    loop {
        std::hint::black_box(0);
    }
}

/// Processor, cores and memory, for a person.
pub(crate) fn describe() -> Result<String> {
    let cpuinfo = read_to_string("/proc/cpuinfo")?;
    let value = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_string())
    };
    let processor = value(&cpuinfo, "model name").unwrap_or_else(|| "unknown processor".into());
    let n_cores = std::thread::available_parallelism()?;
    let memory = value(&read_to_string("/proc/meminfo")?, "MemTotal").unwrap_or_default();
    let kib: u64 = memory.trim_end_matches(" kB").parse()?;
    let kernel = read_to_string("/proc/sys/kernel/osrelease")?;
    let gib = count(kib) / f64::from(1 << 20);
    Ok(format!("{n_cores} cores of {processor}, {gib:.0} GiB, Linux {}", kernel.trim()))
}
