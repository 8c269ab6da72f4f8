//! Hearth beside llama-server: both loaded with one model on one machine, driven in turn with the same requests.
//!
//! `./dev bench` builds both sides and runs this; `docs/benchmarks.md` has the figures last seen. One side is driven at
//! a time while the other one idles, the order changes from round to round, and ratios are taken within a round:
//! the neighbours of a machine change from minute to minute. Nothing here is a test.

mod args;
mod hearth;
mod llama_server;
mod machine;
mod plot;
mod process;
mod report;
mod rounds;
mod scenarios;
mod server;
mod stats;
mod text;

use args::Args;
use report::Report;
use rounds::Sides;
use std::error::Error;
use std::io::Write as _;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args == [machine::SPIN] {
        machine::spin();
    }
    let Some(args) = Args::parse(args)? else {
        std::io::stdout().write_all(args::help().as_bytes())?;
        return Ok(());
    };
    let config = hearth::config(&args.config).trim().replace('\n', "; ");
    let mut report = Report {
        facts: vec![
            ("machine", machine::describe()?),
            ("when", args.date.clone()),
            ("Hearth", format!("commit {}, configured with `{config}`", args.commit)),
        ],
        measured: Vec::new(),
        failed: Vec::new(),
    };
    for (name, model) in &args.models {
        let gemma = name.starts_with("gemma");
        let chosen: Vec<_> = (0..)
            .zip(scenarios::ALL)
            .filter(|(_, scenario)| scenario.gemma == gemma && args.chooses(scenario.name))
            .collect();
        if chosen.is_empty() {
            continue;
        }
        let dir = tempfile::Builder::new().prefix("hearth-bench").tempdir()?;
        let sides = Sides::start(&args, model, dir.path())?;
        if report.measured.is_empty() {
            report.facts.push(("llama-server", sides.describe()?));
        }
        for (number, scenario) in chosen {
            match sides.measure(&args, name, scenario, number * 100_000) {
                Ok(measured) => report.measured.extend(measured),
                Err(error) => {
                    say(&format!("{name} {}: {error}", scenario.name))?;
                    report.failed.push(format!("{name} {}: {error}", scenario.name));
                }
            }
            // What there is survives an interruption.
            report.write(&args.out)?;
        }
    }
    say(&format!("the report is in {}", args.out.display()))
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stderr(), "{line}")?;
    Ok(())
}
