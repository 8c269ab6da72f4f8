//! What is measured: one function per scenario, the same for both sides, and a row for each figure it yields.

mod many;
mod one;

use crate::Result;
use crate::llama_server;
use crate::machine::{Pages, memory_mib};
use crate::server::{Answer, Request, Sampling, Server, ask};
use crate::text::exact;
use std::sync::atomic::{AtomicU64, Ordering};

/// What to reach, as a ratio of our figure to the other side's.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// The first on Q4_0, the second elsewhere.
    AtLeastOnQ4_0(f64, f64),
    None,
}

/// Whom our figure is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    LlamaServer,
    LlamaBench,
    Nobody,
}

/// A line of the report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) peer: Peer,
    pub(crate) goal: Goal,
}

/// A measurement.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    pub(crate) rows: &'static [Row],
    /// One figure for each row, in order.
    pub(crate) run: fn(&Round<'_>) -> Result<Vec<f64>>,
    /// What llama-bench says, where a row is compared with it.
    pub(crate) bench: Option<fn(&llama_server::Files) -> Result<f64>>,
    /// Run once and not in rounds: it tells how a server is at that moment.
    pub(crate) once: bool,
    /// On gemma-3 rather than on SmolLM2.
    pub(crate) gemma: bool,
}

impl Scenario {
    /// Who runs it beside us, each once.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let mut peers: Vec<_> =
            self.rows.iter().map(|row| row.peer).filter(|&peer| peer != Peer::Nobody).collect();
        peers.dedup();
        peers
    }
}

/// One run of a scenario on one side.
pub(crate) struct Round<'a> {
    pub(crate) server: &'a dyn Server,
    /// Another one in each round and scenario, the same for both sides.
    pub(crate) seed: u64,
    /// Answers that ended before they were as long as asked for.
    pub(crate) n_short: &'a AtomicU64,
}

impl Round<'_> {
    /// Text number `index` of this round.
    fn text(&self, n_tokens: usize, index: u64) -> Result<String> {
        exact(self.server, n_tokens, self.seed + index)
    }

    /// Asks with a prompt that no cache may have, greedily.
    fn ask_fresh(&self, prompt: String, n_tokens: u32) -> Result<Answer> {
        let answer = self.ask(&Request { prompt, n_tokens, sampling: Sampling::Greedy })?;
        assert_fresh(&answer)?;
        Ok(answer)
    }

    fn ask(&self, request: &Request) -> Result<Answer> {
        let answer = ask(self.server, request)?;
        if answer.usage.n_generated < u64::from(request.n_tokens) {
            self.n_short.fetch_add(1, Ordering::Relaxed);
        }
        Ok(answer)
    }
}

/// A figure for computing a prompt would be false if the server had it already.
fn assert_fresh(answer: &Answer) -> Result<()> {
    let usage = answer.usage;
    if usage.n_cached > 4.max(usage.n_prompt / 10) {
        return Err(format!("a prompt that should be new was in a cache: {usage:?}").into());
    }
    Ok(())
}

fn memory(round: &Round<'_>) -> Result<Vec<f64>> {
    Ok(vec![memory_mib(&round.server.pids()?, Pages::Proportional)?])
}

const fn row(what: &'static str, unit: &'static str, goal: Goal) -> Row {
    Row { what, unit, peer: Peer::LlamaServer, goal }
}

const fn scenario(
    name: &'static str,
    run: fn(&Round<'_>) -> Result<Vec<f64>>,
    rows: &'static [Row],
) -> Scenario {
    Scenario { name, rows, run, bench: None, once: false, gemma: false }
}

/// In the order in which they run: the first and the last see the servers before and after the others.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        once: true,
        ..scenario(
            "memory-loaded",
            memory,
            &[row("memory with the model loaded, before any request", "MiB", Goal::AtMost(0.4))],
        )
    },
    scenario(
        "empty",
        one::empty,
        &[
            Row {
                peer: Peer::Nobody,
                ..row("from exec to an answered call, no model loaded", "ms", Goal::None)
            },
            Row {
                peer: Peer::Nobody,
                ..row("memory of the daemon, no model loaded", "MiB", Goal::None)
            },
        ],
    ),
    Scenario {
        bench: Some(|files| files.bench(one::N_PROMPT as u64, one::N_TOKENS)),
        ..scenario(
            "one",
            one::stream,
            &[
                row("one stream, 145-token prompt, 128 new", "tokens/s", Goal::AtLeast(1.0)),
                Row {
                    peer: Peer::LlamaBench,
                    ..row("one stream, 145-token prompt, 128 new", "tokens/s", Goal::AtLeast(0.985))
                },
            ],
        )
    },
    scenario(
        "prompt",
        one::prompt,
        &[row("one 1,680-token prompt: first token", "ms", Goal::AtMost(1.0))],
    ),
    scenario(
        "streams-4",
        |round| many::streams(round, 4),
        &[
            row("4 streams at once, prompts included", "tokens/s", Goal::None),
            row("4 streams at once: median first token", "ms", Goal::None),
        ],
    ),
    scenario(
        "streams-8",
        |round| many::streams(round, 8),
        &[
            row("8 streams at once, prompts included", "tokens/s", Goal::AtLeast(1.2)),
            row("8 streams at once: median first token", "ms", Goal::AtMost(0.6)),
        ],
    ),
    scenario(
        "streams-16",
        |round| many::streams(round, 16),
        &[
            row("16 streams at once, prompts included", "tokens/s", Goal::AtLeast(1.2)),
            row("16 streams at once: median first token", "ms", Goal::None),
        ],
    ),
    scenario(
        "system",
        many::one_system_prompt,
        &[row(
            "8 at once on one 790-token system prompt: median first token",
            "ms",
            Goal::AtMost(0.25),
        )],
    ),
    scenario(
        "stall",
        many::long_prompt_beside_streams,
        &[
            row(
                "3 streams while a 1,700-token prompt arrives: worst gap in a stream",
                "ms",
                Goal::AtMost(0.05),
            ),
            row("the long prompt's own first token", "ms", Goal::AtMost(1.3)),
        ],
    ),
    scenario(
        "return",
        many::return_beside_streams,
        &[
            row(
                "3 streams while a 3,000-token talk comes back from main memory: worst gap in a stream",
                "ms",
                Goal::AtMost(1.0),
            ),
            row("the talk's own first token", "ms", Goal::AtMost(1.0)),
        ],
    ),
    scenario(
        "talks",
        many::talks,
        &[row(
            "turns 2-4 of 6 interleaved talks (350-token histories): median first token",
            "ms",
            Goal::AtMost(0.9),
        )],
    ),
    scenario(
        "dropped",
        one::after_a_dropped_stream,
        &[row(
            "next request (10-token prompt) after a dropped stream: first token",
            "ms",
            Goal::AtMost(1.0),
        )],
    ),
    scenario(
        "repeat",
        one::repeating,
        &[row("answer that repeats its prompt", "tokens/s", Goal::AtLeastOnQ4_0(1.8, 0.98))],
    ),
    scenario(
        "neighbour",
        one::beside_a_neighbour,
        &[row("one stream beside one busy process", "tokens/s", Goal::AtLeast(3.5))],
    ),
    scenario(
        "start",
        one::start,
        &[row("files cached, process not running: start to first token", "ms", Goal::AtMost(0.7))],
    ),
    Scenario {
        gemma: true,
        ..scenario(
            "sampled",
            many::sampled,
            &[row(
                "8 streams, temperature 0.8, top-k 40, top-p 0.9, prompts included",
                "tokens/s",
                Goal::AtLeast(1.3),
            )],
        )
    },
    Scenario {
        once: true,
        ..scenario(
            "memory-after",
            memory,
            &[row("memory after all of the above", "MiB", Goal::AtMost(0.6))],
        )
    },
];
