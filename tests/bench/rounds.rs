//! Both servers, and the rounds in which they are driven in turn.

use crate::args::Args;
use crate::hearth::{self, Hearth};
use crate::llama_server::{self, LlamaServer};
use crate::machine::{Others, QUIET, cpu_module};
use crate::report::{Figures, Measured};
use crate::scenarios::{Peer, Round, Scenario};
use crate::server::Server;
use crate::{Result, say};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// A round beside busy others is made again, until there are so many times the rounds asked for.
const MOST_TRIES: u64 = 2;

/// Both servers, loaded with copies of one model: pages of a file that both map would count for each by half.
pub(crate) struct Sides {
    ours: Hearth,
    theirs: LlamaServer,
    their_files: llama_server::Files,
}

/// What one round yielded.
struct Played {
    ours: Vec<f64>,
    theirs: Vec<f64>,
    bench: Option<f64>,
    /// Cores that other processes kept busy, at the worst turn.
    others: f64,
    n_short: u64,
}

impl Sides {
    pub(crate) fn start(args: &Args, model: &Path, dir: &Path) -> Result<Self> {
        let ours = Hearth::start(&hearth::Files {
            hearthd: args.hearthd.clone(),
            backends: args.backends.clone(),
            store: dir.join("store"),
            config: hearth::config(&args.config),
        })?;
        ours.import(model)?;
        ours.load()?;
        let copy = dir.join("model.gguf");
        std::fs::copy(model, &copy)?;
        let n_threads = std::thread::available_parallelism()?.get();
        let their_files =
            llama_server::Files { programs: args.peers.clone(), model: copy, n_threads };
        let theirs = LlamaServer::start(&their_files)?;
        Ok(Self { ours, theirs, their_files })
    }

    /// How llama-server was started, and what both compute with.
    pub(crate) fn describe(&self) -> Result<String> {
        let module = cpu_module(&self.theirs.pids()?)?;
        let ours = cpu_module(&self.ours.pids()?)?;
        if module != ours {
            return Err(format!("llama-server computes with {module}, Hearth with {ours}").into());
        }
        Ok(format!("`{}`; both use the CPU module {module}", self.their_files.options().join(" ")))
    }

    /// All rounds of a scenario: its rows.
    pub(crate) fn measure(
        &self,
        args: &Args,
        model: &str,
        scenario: &'static Scenario,
        seed: u64,
    ) -> Result<Vec<Measured>> {
        let (n_rounds, n_tries) =
            if scenario.once { (1, 1) } else { (args.n_rounds, args.n_rounds * MOST_TRIES) };
        let mut rounds: Vec<Played> = Vec::new();
        for number in 0..n_tries {
            let round = self.play(args, scenario, seed + number * 1000, number % 2 == 1)?;
            say(&format!(
                "{model} {} {}: {:.1?} {:.1?} {:.1?}, others {:.2} cores",
                scenario.name,
                number + 1,
                round.ours,
                round.theirs,
                round.bench,
                round.others
            ))?;
            rounds.push(round);
            let n_quiet = rounds.iter().filter(|round| round.others <= QUIET).count();
            if n_quiet as u64 >= n_rounds {
                break;
            }
        }
        // The quietest are kept, whatever their figures say.
        rounds.sort_by(|a, b| a.others.total_cmp(&b.others));
        rounds.truncate(usize::try_from(n_rounds)?);
        Ok(rows(model, scenario, &rounds))
    }

    fn play(&self, args: &Args, scenario: &Scenario, seed: u64, reverse: bool) -> Result<Played> {
        let mut pids = self.ours.pids()?;
        pids.extend(self.theirs.pids()?);
        let n_short = AtomicU64::new(0);
        let run = |server: &dyn Server| (scenario.run)(&Round { server, seed, n_short: &n_short });
        let mut played =
            Played { ours: Vec::new(), theirs: Vec::new(), bench: None, others: 0.0, n_short: 0 };
        let mut turns = vec![Peer::Nobody];
        turns.extend(scenario.peers());
        // Whoever is first in a round meets another machine than whoever is last.
        if reverse {
            turns.reverse();
        }
        for turn in turns {
            if !scenario.once {
                Others::await_quiet(&pids, args.patience)?;
            }
            let others = Others::watch(pids.clone())?;
            match turn {
                Peer::Nobody => played.ours = run(&self.ours)?,
                Peer::LlamaServer => played.theirs = run(&self.theirs)?,
                Peer::LlamaBench => {
                    played.bench =
                        scenario.bench.map(|bench| bench(&self.their_files)).transpose()?;
                }
            }
            played.others = played.others.max(others.cores()?);
        }
        played.n_short = n_short.load(Ordering::Relaxed);
        Ok(played)
    }
}

fn rows(model: &str, scenario: &'static Scenario, rounds: &[Played]) -> Vec<Measured> {
    let figures = |index: usize, round: &Played| {
        let peer = scenario.rows[index].peer;
        Some(Figures {
            // A scenario that yields one figure has it compared with each peer.
            ours: *round.ours.get(index).or(round.ours.last())?,
            theirs: match peer {
                Peer::LlamaServer => round.theirs.get(index).copied(),
                Peer::LlamaBench => round.bench,
                Peer::Nobody => None,
            },
            others: round.others,
        })
    };
    (0..scenario.rows.len())
        .map(|index| Measured {
            model: model.into(),
            scenario: scenario.name,
            row: scenario.rows[index],
            rounds: rounds.iter().filter_map(|round| figures(index, round)).collect(),
            n_short: rounds.iter().map(|round| round.n_short).sum(),
        })
        .collect()
}
