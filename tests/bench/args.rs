//! The command line.

use crate::Result;
use crate::scenarios::ALL;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// What `./dev bench` says, and what its caller adds.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) hearthd: PathBuf,
    pub(crate) backends: PathBuf,
    /// The folder with llama-server and llama-bench.
    pub(crate) peers: PathBuf,
    /// Where the report goes.
    pub(crate) out: PathBuf,
    pub(crate) commit: String,
    pub(crate) date: String,
    /// Name and file.
    pub(crate) models: Vec<(String, PathBuf)>,
    pub(crate) n_rounds: u64,
    /// How long to wait before each turn until others leave the machine alone.
    pub(crate) patience: Duration,
    /// Lines more for `[engine]` of our configuration.
    pub(crate) config: Vec<String>,
    scenarios: Vec<String>,
}

impl Args {
    /// `None` if help was asked for.
    pub(crate) fn parse(args: Vec<String>) -> Result<Option<Self>> {
        let mut parsed = Self {
            hearthd: PathBuf::new(),
            backends: PathBuf::new(),
            peers: PathBuf::new(),
            out: PathBuf::new(),
            commit: String::new(),
            date: String::new(),
            models: Vec::new(),
            n_rounds: 5,
            patience: Duration::from_secs(20),
            config: Vec::new(),
            scenarios: Vec::new(),
        };
        let mut only: Option<String> = None;
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            if arg == "--help" {
                return Ok(None);
            }
            if !arg.starts_with("--") {
                if ALL.iter().all(|scenario| scenario.name != arg) {
                    return Err(format!("`{arg}` is no scenario\nhint: see --help").into());
                }
                parsed.scenarios.push(arg);
                continue;
            }
            let value = args.next().ok_or(format!("`{arg}` needs a value"))?;
            match arg.as_str() {
                "--hearthd" => parsed.hearthd = value.into(),
                "--backends" => parsed.backends = value.into(),
                "--peers" => parsed.peers = value.into(),
                "--out" => parsed.out = value.into(),
                "--commit" => parsed.commit = value,
                "--date" => parsed.date = value,
                "--model" => {
                    let (name, path) = value.split_once('=').ok_or("--model takes NAME=FILE")?;
                    parsed.models.push((name.into(), path.into()));
                }
                "--rounds" => parsed.n_rounds = value.parse()?,
                "--patience" => parsed.patience = Duration::from_secs(value.parse()?),
                "--config" => parsed.config.push(format!("{value}\n")),
                "--only" => only = Some(value),
                _ => return Err(format!("`{arg}` is no option\nhint: see --help").into()),
            }
        }
        if let Some(only) = only {
            parsed.models.retain(|(name, _)| only.split(',').any(|wanted| wanted == name));
        }
        if parsed.models.is_empty() {
            return Err("there is no model of that name\nhint: see --help".into());
        }
        Ok(Some(parsed))
    }

    pub(crate) fn chooses(&self, scenario: &str) -> bool {
        self.scenarios.is_empty() || self.scenarios.iter().any(|chosen| chosen == scenario)
    }
}

pub(crate) fn help() -> String {
    let mut text = String::from(
        "usage: ./dev bench [OPTIONS] [SCENARIO...]\n\n  --rounds N       rounds of each scenario, 5 if not said\n  \
         --patience SECS  longest wait, before each turn, for others to leave the machine alone, 20\n  \
         --only NAME,...  models: q4_1, q4_0, gemma3\n  --out FOLDER     where report.md and results.json go\n  \
         --config LINE    a line more for [engine] of our configuration, such as 'speculate = false'\n\n\
         scenarios, all of them if none is named:\n",
    );
    for scenario in ALL {
        for (index, row) in scenario.rows.iter().enumerate() {
            let name = if index == 0 { scenario.name } else { "" };
            let _ = writeln!(text, "  {name:14}  {}, {}", row.what, row.unit);
        }
    }
    text
}
