//! One line on the terminal that says what is being waited for, and erases itself.
//!
//! It appears only after a delay, so that what is fast stays quiet, and counts the seconds, so that a wait without news is
//! seen to be one. A thread of its own draws it; nothing else writes to the terminal before `finish` has returned.
//! Without a terminal on stderr it does nothing.

use crate::output::{Out, printable};
use std::io::Write as _;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Waits shorter than this are not worth a line.
pub(crate) const DELAY: Duration = Duration::from_secs(1);

/// Faster changes than this nobody can read.
const REDRAW: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct StatusLine {
    drawer: Option<(Sender<String>, JoinHandle<()>)>,
}

impl StatusLine {
    pub(crate) fn start(out: &Out, delay: Duration, text: impl Into<String>) -> Self {
        if !out.can_show_status() {
            return Self { drawer: None };
        }
        let (sender, receiver) = mpsc::channel();
        let text = text.into();
        let thread = std::thread::spawn(move || draw(&receiver, delay, text));
        Self { drawer: Some((sender, thread)) }
    }

    /// Replaces the text.
    pub(crate) fn set(&self, text: impl Into<String>) {
        if let Some((sender, _)) = &self.drawer {
            // The receiver lives as long as the sender does.
            let _ = sender.send(text.into());
        }
    }

    /// Erases the line; when this returns the terminal is as it was.
    pub(crate) fn finish(&mut self) {
        if let Some((sender, thread)) = self.drawer.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Draws until the sender is dropped.
fn draw(texts: &mpsc::Receiver<String>, delay: Duration, mut text: String) {
    let start = Instant::now();
    let mut shown = false;
    let mut next = start + delay;
    loop {
        match texts.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(newer) => {
                text = newer;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let line = format!("{} · {} s", printable(&text), start.elapsed().as_secs());
        // A line that wraps could not be erased; one column is left free because some terminals wrap at the last.
        let columns = crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns));
        let line: String = line.chars().take(columns.saturating_sub(1)).collect();
        erase(&line);
        shown = true;
        next = Instant::now() + REDRAW;
    }
    if shown {
        erase("");
    }
}

fn erase(then: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "\r\x1b[K{then}").and_then(|()| stderr.flush());
}
