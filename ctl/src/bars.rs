//! Several lines on the terminal that are drawn over as things go on, and stay when they are done.
//!
//! Without a terminal on stderr nothing is drawn.

use crate::output::{Out, printable};
use std::io::Write as _;

const BAR_CELLS: usize = 24;

#[derive(Debug)]
pub(crate) struct Bars {
    can_draw: bool,
    n_drawn: usize,
}

impl Bars {
    pub(crate) fn new(out: &Out) -> Self {
        Self { can_draw: out.can_show_status(), n_drawn: 0 }
    }

    pub(crate) fn can_draw(&self) -> bool {
        self.can_draw
    }

    /// Puts these lines where those before them are. What does not fit the terminal is left out: what has scrolled away could
    /// not be drawn over.
    pub(crate) fn draw(&mut self, lines: &[String]) {
        if !self.can_draw {
            return;
        }
        let (columns, rows) = crossterm::terminal::size()
            .map_or((80, 24), |(columns, rows)| (usize::from(columns), usize::from(rows)));
        let mut text = String::from("\r");
        if self.n_drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.n_drawn));
        }
        let lines = &lines[..lines.len().min(rows.saturating_sub(1))];
        for line in lines {
            // One column is left free because some terminals wrap at the last.
            let line: String = printable(line).chars().take(columns.saturating_sub(1)).collect();
            text.push_str(&format!("\x1b[K{line}\r\n"));
        }
        // A window made smaller has fewer lines to draw.
        text.push_str("\x1b[J");
        self.n_drawn = lines.len();
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}

/// A bar of fixed width.
pub(crate) fn bar(fraction: f32) -> String {
    // From 0 to BAR_CELLS, since the fraction is clamped.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let full = (fraction.clamp(0.0, 1.0) * BAR_CELLS as f32) as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR_CELLS - full))
}
