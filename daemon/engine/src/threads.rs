//! How many threads compute: as many as there are processors that nobody else uses.
//!
//! An engine's threads meet at a barrier after every operation, so one that shares its processor with somebody holds up all
//! of them: beside one busy process, two threads on two processors were seen at a half to a thirtieth of the speed that
//! one thread keeps. So a few times a second the engine asks how much of its processors was idle or its own, and computes with
//! as many threads as fit there. That does not depend on what the steps are, and nothing has to be tried.
//!
//! But one thing: what others take may be what nobody else wanted, because a niced process gives way. That shows only
//! while all threads ask for it, so now and then they do.

use std::time::{Duration, Instant};

/// Between two looks at the processors. The kernel counts in hundredths of a second.
const EVERY: Duration = Duration::from_millis(100);
/// A thread is worth keeping while the share of its processor that others take, times the number of threads, is at most
/// this. With that share all threads wait, and without the thread one in so many is missing; a little less than 1, because
/// the last thread never brings its whole part. On two processors 0.4 was seen.
const WORTH: f64 = 0.8;
/// Looks until all threads are tried, doubled each time up to the second while others do not give way.
const PATIENCE: (u32, u32) = (50, 800);

#[derive(Debug)]
pub(crate) struct Threads {
    most: u32,
    now: u32,
    last: Option<Look>,
    patience: u32,
    /// Looks until all are tried.
    wait: u32,
}

impl Threads {
    /// Begins with as many as the plugin chose.
    pub(crate) fn new(most: u32) -> Self {
        let most = most.max(1);
        Self { most, now: most, last: None, patience: PATIENCE.0, wait: PATIENCE.0 }
    }

    /// Called before each step. Answers how many threads to compute with from now on, if that changes.
    pub(crate) fn adapt(&mut self) -> Option<u32> {
        if self.most == 1 || self.last.is_some_and(|last| last.at.elapsed() < EVERY) {
            return None;
        }
        let before = self.now;
        self.learn(Look::take()?);
        (self.now != before).then_some(self.now)
    }

    /// How many compute now.
    pub(crate) fn in_use(&self) -> u32 {
        self.now
    }

    /// After a rest: what others did in it says nothing about now.
    pub(crate) fn look_anew(&mut self) {
        self.last = None;
    }

    fn learn(&mut self, look: Look) {
        let Some(last) = self.last.replace(look) else { return };
        let free = (look.free - last.free) / look.at.duration_since(last.at).as_secs_f64();
        let fits = |n: u32| (f64::from(n) - free) * f64::from(n) <= WORTH;
        let n_fitting = (2..=self.most).rev().find(|n| fits(*n)).unwrap_or(1);
        if n_fitting == self.most {
            self.patience = PATIENCE.0;
            self.wait = self.patience;
            self.now = self.most;
        } else if self.wait == 0 {
            self.patience = (self.patience * 2).min(PATIENCE.1);
            self.wait = self.patience;
            self.now = self.most;
        } else {
            self.wait -= 1;
            self.now = n_fitting;
        }
    }
}

/// What the processors that this process may use have done.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    /// Seconds that they were idle or this process ran, since some beginning.
    free: f64,
}

impl Look {
    #[cfg(target_os = "linux")]
    fn take() -> Option<Self> {
        use rustix::param::clock_ticks_per_second;
        use rustix::thread::{CpuSet, sched_getaffinity};
        use rustix::time::{ClockId, clock_gettime};
        let allowed = sched_getaffinity(None).ok()?;
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let ticks = idle_ticks(&stat, |cpu| cpu < CpuSet::MAX_CPU && allowed.is_set(cpu));
        let own = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).ok()?;
        #[allow(clippy::cast_precision_loss)] // Centuries of hundredths are exact.
        let idle = ticks as f64 / clock_ticks_per_second() as f64;
        Some(Self { at: Instant::now(), free: idle + own.as_secs_f64() })
    }

    /// Other systems are not asked yet, and all threads compute.
    #[cfg(not(target_os = "linux"))]
    fn take() -> Option<Self> {
        None
    }
}

/// The sum of the idle time of some processors, from Linux's `/proc/stat`.
#[cfg(any(test, target_os = "linux"))]
fn idle_ticks(stat: &str, counts: impl Fn(usize) -> bool) -> u64 {
    let of_line = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        // The first line, of all processors together, has no number.
        let cpu: usize = fields.next()?.strip_prefix("cpu")?.parse().ok()?;
        let mut fields = fields.skip(3).map(|field| field.parse::<u64>().ok());
        let (idle, waiting_for_disks) = (fields.next()??, fields.next()??);
        counts(cpu).then_some(idle + waiting_for_disks)
    };
    stat.lines().filter_map(of_line).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which others want so many processors.
    struct Machine {
        n_processors: f64,
        others: f64,
        /// They take only what is left.
        is_niced: bool,
    }

    impl Machine {
        fn new(n_processors: u32, others: f64) -> Self {
            Self { n_processors: n_processors.into(), others, is_niced: false }
        }

        /// What others take beside so many threads.
        fn taken(&self, n_threads: u32) -> f64 {
            let n_threads = f64::from(n_threads);
            let fair = self.n_processors * self.others / (n_threads + self.others);
            let left = self.n_processors - n_threads;
            self.others.min(if self.is_niced { left } else { fair.max(left) })
        }

        /// Computes for so many looks. Answers how many threads were used in each.
        fn run(&self, threads: &mut Threads, n_looks: usize) -> Vec<u32> {
            let mut look = *threads.last.get_or_insert(Look { at: Instant::now(), free: 0.0 });
            let next = |_| {
                let used = threads.now;
                look.at += EVERY;
                look.free += EVERY.as_secs_f64() * (self.n_processors - self.taken(used));
                threads.learn(look);
                used
            };
            (0..n_looks).map(next).collect()
        }
    }

    #[test]
    fn a_quiet_machine_computes_with_all() {
        for (n_processors, others) in [(2, 0.0), (2, 0.3), (4, 0.1), (16, 7.0)] {
            let mut threads = Threads::new(n_processors.min(8));
            let used = Machine::new(n_processors, others).run(&mut threads, 500);
            assert!(used.iter().all(|n| *n == n_processors.min(8)), "{others} of {n_processors}");
        }
    }

    #[test]
    fn beside_a_busy_neighbour_a_thread_fewer_computes_at_once_and_later_all_again() {
        let mut threads = Threads::new(2);
        Machine::new(2, 0.0).run(&mut threads, 10);
        let used = Machine::new(2, 1.0).run(&mut threads, 1000);
        assert_eq!(used[..20], [[2].as_slice(), &[1; 19]].concat());
        assert!(used.iter().filter(|n| **n == 2).count() < 8, "{used:?}");
        assert_eq!(Machine::new(2, 0.0).run(&mut threads, 3), [1, 2, 2]);
    }

    #[test]
    fn a_niced_neighbour_is_found_out() {
        let mut threads = Threads::new(2);
        threads.now = 1;
        let niced = Machine { is_niced: true, ..Machine::new(2, 1.0) };
        let used = niced.run(&mut threads, 500);
        assert!(used[60..].iter().all(|n| *n == 2), "{used:?}");
    }

    #[test]
    fn several_neighbours_get_several_processors() {
        let mut threads = Threads::new(8);
        Machine::new(8, 3.0).run(&mut threads, 10);
        assert_eq!(threads.now, 5);
        Machine::new(8, 20.0).run(&mut threads, 10);
        assert_eq!(threads.now, 1);
    }

    #[test]
    fn one_thread_is_left_alone() {
        assert_eq!(Threads::new(1).adapt(), None);
        assert_eq!(Threads::new(0).adapt(), None);
    }

    #[test]
    fn processors_that_may_not_be_used_do_not_count() {
        let stat =
            "cpu  9 9 9 600 60 9\ncpu0 1 2 3 100 10 9 9\ncpu1 1 2 3 200 20 9 9\nintr 5 5 5 5\n";
        assert_eq!(idle_ticks(stat, |_| true), 330);
        assert_eq!(idle_ticks(stat, |cpu| cpu == 1), 220);
    }
}
