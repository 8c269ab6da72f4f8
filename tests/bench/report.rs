//! The figures as a table for documents and as JSON for programs.

use crate::Result;
use crate::plot::svg;
use crate::scenarios::{Goal, Peer, Row};
use crate::stats::{Spread, spread};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;

/// One row's figures of one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) ours: f64,
    pub(crate) theirs: Option<f64>,
    /// Cores that other processes kept busy meanwhile, at the worse of the turns.
    pub(crate) others: f64,
}

/// One row on one model.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) model: String,
    pub(crate) scenario: &'static str,
    pub(crate) row: Row,
    pub(crate) rounds: Vec<Figures>,
    /// Answers that ended early.
    pub(crate) n_short: u64,
}

impl Measured {
    /// Of our figure to theirs, round by round.
    pub(crate) fn ratio(&self) -> Option<Spread> {
        spread(self.rounds.iter().filter_map(|round| Some(round.ours / round.theirs?)))
    }

    /// Whether the median ratio reaches the goal; `None` where there is none.
    pub(crate) fn reached(&self) -> Option<bool> {
        let ratio = self.ratio()?.median;
        match self.goal() {
            Goal::AtLeast(least) => Some(ratio >= least),
            Goal::AtMost(most) => Some(ratio <= most),
            Goal::AtLeastOnQ4_0(..) | Goal::None => None,
        }
    }

    pub(crate) fn goal(&self) -> Goal {
        match self.row.goal {
            Goal::AtLeastOnQ4_0(there, _) if self.model == "q4_0" => Goal::AtLeast(there),
            Goal::AtLeastOnQ4_0(_, elsewhere) => Goal::AtLeast(elsewhere),
            goal => goal,
        }
    }

    fn table_line(&self) -> Option<String> {
        let ours = spread(self.rounds.iter().map(|round| round.ours))?;
        let theirs = spread(self.rounds.iter().filter_map(|round| round.theirs));
        let others = spread(self.rounds.iter().map(|round| round.others))?;
        let peer = if self.row.peer == Peer::LlamaBench { " (llama-bench)" } else { "" };
        let goal = match self.goal() {
            Goal::AtLeast(least) => format!("at least {least}"),
            Goal::AtMost(most) => format!("at most {most}"),
            Goal::AtLeastOnQ4_0(..) | Goal::None => String::new(),
        };
        let verdict = match self.reached() {
            Some(true) => ": yes",
            Some(false) => ": **no**",
            None => "",
        };
        let short = match self.n_short {
            0 => String::new(),
            n => format!(" ({n} answers ended early)"),
        };
        let ratio = self.ratio().map_or(String::new(), |ratio| {
            format!("{:.2} ({:.2} to {:.2})", ratio.median, ratio.low, ratio.high)
        });
        Some(format!(
            "| {}, {}{short} | {} | {}{} | {ratio} | {goal}{verdict} | {:.1} |",
            self.row.what,
            self.row.unit,
            figure(ours.median),
            theirs.map_or(String::new(), |theirs| figure(theirs.median)),
            if theirs.is_some() { peer } else { "" },
            others.median,
        ))
    }

    fn json(&self) -> Value {
        let rounds: Vec<_> = self
            .rounds
            .iter()
            .map(|round| json!({ "ours": round.ours, "theirs": round.theirs, "others_cores": round.others }))
            .collect();
        json!({
            "model": self.model,
            "scenario": self.scenario,
            "what": self.row.what,
            "unit": self.row.unit,
            "peer": format!("{:?}", self.row.peer),
            "ratio": self.ratio().map(|ratio| [ratio.low, ratio.median, ratio.high]),
            "reached": self.reached(),
            "answers_ended_early": self.n_short,
            "rounds": rounds,
        })
    }
}

/// Three digits that mean something.
pub(crate) fn figure(figure: f64) -> String {
    let n_decimals = match figure.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{figure:.n_decimals$}")
}

/// What was measured, where and how.
#[derive(Debug)]
pub(crate) struct Report {
    /// Name and value, such as the machine.
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) measured: Vec<Measured>,
    /// Scenarios that failed, and why.
    pub(crate) failed: Vec<String>,
}

impl Report {
    /// Writes `report.md`, `results.json` and a picture for each model.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("report.md"), self.markdown()?)?;
        for model in self.models() {
            let rows: Vec<_> = self.measured.iter().filter(|row| row.model == model).collect();
            let picture = svg(&format!("Hearth beside llama-server, {model}"), &rows)?;
            std::fs::write(folder.join(format!("{model}.svg")), picture)?;
        }
        let results: Vec<_> = self.measured.iter().map(Measured::json).collect();
        let facts: serde_json::Map<_, _> =
            self.facts.iter().map(|(name, value)| ((*name).into(), value.clone().into())).collect();
        let all = json!({ "facts": facts, "results": results, "failed": self.failed });
        std::fs::write(folder.join("results.json"), format!("{all:#}\n"))?;
        Ok(())
    }

    fn models(&self) -> Vec<&str> {
        let mut models: Vec<_> = self.measured.iter().map(|row| row.model.as_str()).collect();
        models.dedup();
        models
    }

    fn markdown(&self) -> Result<String> {
        let mut text = String::new();
        for (name, value) in &self.facts {
            writeln!(text, "* {name}: {value}")?;
        }
        for model in self.models() {
            writeln!(text, "\n### {model}\n")?;
            writeln!(text, "| what | Hearth | llama-server | ratio | to reach | others |")?;
            writeln!(text, "| --- | ---: | ---: | --- | --- | ---: |")?;
            let rows = self.measured.iter().filter(|row| row.model == model);
            for line in rows.filter_map(Measured::table_line) {
                writeln!(text, "{line}")?;
            }
        }
        for failure in &self.failed {
            writeln!(text, "\nFailed: {failure}")?;
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(model: &str, goal: Goal, ours: [f64; 3], theirs: f64) -> Measured {
        let rounds = ours.map(|ours| Figures { ours, theirs: Some(theirs), others: 0.0 }).to_vec();
        let row = Row { what: "what", unit: "ms", peer: Peer::LlamaServer, goal };
        Measured { model: model.into(), scenario: "one", row, rounds, n_short: 0 }
    }

    #[test]
    fn a_goal_is_about_the_median_ratio() {
        let reached = |model, goal| measured(model, goal, [1.0, 3.0, 9.0], 2.0).reached();
        assert_eq!(reached("q4_1", Goal::AtLeast(1.5)), Some(true));
        assert_eq!(reached("q4_1", Goal::AtLeast(1.6)), Some(false));
        assert_eq!(reached("q4_1", Goal::AtMost(1.5)), Some(true));
        assert_eq!(reached("q4_1", Goal::AtMost(1.4)), Some(false));
        assert_eq!(reached("q4_1", Goal::AtLeastOnQ4_0(1.8, 0.98)), Some(true));
        assert_eq!(reached("q4_0", Goal::AtLeastOnQ4_0(1.8, 0.98)), Some(false));
        assert_eq!(reached("q4_0", Goal::None), None);
    }

    #[test]
    fn a_line_shows_medians_ratio_and_goal() {
        let line = measured("q4_1", Goal::AtMost(1.0), [100.0, 300.0, 900.0], 200.0).table_line();
        assert_eq!(
            line.as_deref(),
            Some("| what, ms | 300 | 200 | 1.50 (0.50 to 4.50) | at most 1: **no** | 0.0 |")
        );
    }
}
