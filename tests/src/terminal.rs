//! A terminal: a pseudo-terminal with a program on one end, and on the other a screen to look at and keys to press.

use crate::guard::Guard;
use crate::process::is_alive;
use crate::wait::{eventually, eventually_is};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use vt100::{Cell, Color, Parser, Screen};

const ROWS: u16 = 50;

/// Keys as a terminal sends them.
pub const ENTER: &str = "\r";
/// Shows older lines.
pub const ARROW_UP: &str = "\x1b[A";
/// SIGINT while the terminal is not raw.
pub const CTRL_C: &str = "\x03";
/// The end of the input on an empty line.
pub const CTRL_D: &str = "\x04";

/// A terminal in which a program runs. Dropping it kills the program, and prints the screen if the test has failed.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    child: Child,
    guard: Option<Guard>,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    bytes: Vec<u8>,
    parser: Parser<Answers>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.parser.screen().contents())
    }
}

/// What the terminal answers by itself.
#[derive(Default)]
struct Answers(Vec<u8>);

impl vt100::Callbacks for Answers {
    fn unhandled_csi(
        &mut self,
        screen: &mut Screen,
        first: Option<u8>,
        _: Option<u8>,
        params: &[&[u16]],
        letter: char,
    ) {
        // "Where is the cursor?"
        if (first, params, letter) == (None, &[&[6]], 'n') {
            let (row, column) = screen.cursor_position();
            self.0.extend(format!("\x1b[{};{}R", row + 1, column + 1).bytes());
        }
    }
}

impl Terminal {
    /// Runs a program in a terminal with so many columns, of the kind named in its `TERM`.
    #[track_caller]
    pub fn start(command: &mut Command, columns: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
        let size = Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&ours, size).unwrap();

        // Ctrl-C goes to whoever has the terminal as its own, which takes a call between fork and exec: `setsid` makes it.
        let mut words = Command::new("setsid");
        words.arg("--ctty").arg(command.get_program()).args(command.get_args()).env_clear();
        words.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        words.current_dir(command.get_current_dir().unwrap());
        words.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap()).stderr(theirs);
        let child = words.spawn().unwrap();

        let [rows, width] = [ROWS, columns].map(|n| NonZero::new(n).unwrap());
        let parser = Parser::new_with_callbacks(rows, width, 0, Answers::default());
        let seen = Arc::new(Mutex::new(Seen { bytes: Vec::new(), parser }));
        let keyboard = File::from(ours);
        let (screen, display) = (Arc::clone(&seen), keyboard.try_clone().unwrap());
        std::thread::spawn(move || watch(display, &screen));
        let guard = Some(Guard::new(child.id()));
        Self { keyboard, child, guard, seen }
    }

    /// Presses keys.
    #[track_caller]
    pub fn press(&self, keys: &str) {
        (&self.keyboard).write_all(keys.as_bytes()).unwrap();
    }

    /// Types a line.
    #[track_caller]
    pub fn enter(&self, line: &str) {
        self.press(line);
        self.press(ENTER);
    }

    /// The screen's rows, from the top to the last that is not empty.
    pub fn rows(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let screen = seen.parser.screen();
        let mut rows: Vec<String> =
            screen.rows(0, screen.size().1.get()).map(|row| row.trim_end().to_owned()).collect();
        rows.truncate(rows.iter().rposition(|row| !row.is_empty()).map_or(0, |at| at + 1));
        rows
    }

    /// The screen as text.
    pub fn text(&self) -> String {
        self.rows().join("\n")
    }

    /// Everything the program wrote.
    pub fn bytes(&self) -> Vec<u8> {
        self.seen.lock().unwrap().bytes.clone()
    }

    /// Whether anything on the screen is coloured, bold or dim.
    pub fn is_coloured(&self) -> bool {
        let seen = self.seen.lock().unwrap();
        let screen = seen.parser.screen();
        let (rows, columns) = screen.size();
        let places =
            (0..rows.get()).flat_map(|row| (0..columns.get()).map(move |column| (row, column)));
        let coloured = |cell: &Cell| cell.fgcolor() != Color::Default || cell.bold() || cell.dim();
        places.filter_map(|(row, column)| screen.cell(row, column)).any(coloured)
    }

    /// Waits until the screen holds a text.
    #[track_caller]
    pub fn await_text(&self, text: &str) {
        eventually_is(&format!("`{text}` on the screen"), || self.text().contains(text));
    }

    /// Waits until the last row is this, and the cursor stands behind it.
    #[track_caller]
    pub fn await_prompt(&self, row: &str) {
        eventually_is(&format!("`{row}` as the last row"), || {
            let seen = self.seen.lock().unwrap();
            let screen = seen.parser.screen();
            let (at, column) = screen.cursor_position();
            let rows: Vec<String> = screen.rows(0, screen.size().1.get()).collect();
            let below = &rows[usize::from(at) + 1..];
            rows[usize::from(at)].trim_end() == row.trim_end()
                && usize::from(column) == row.chars().count()
                && below.iter().all(|row| row.trim().is_empty())
        });
    }

    /// Waits for the program's end.
    #[track_caller]
    pub fn await_end(&mut self) -> ExitStatus {
        let status = eventually("the end of the program", || self.child.try_wait().unwrap());
        self.guard = None;
        status
    }
}

/// Until nobody holds the other end any more.
fn watch(mut display: File, seen: &Mutex<Seen>) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = display.read(&mut buffer) {
        let mut seen = seen.lock().unwrap();
        seen.bytes.extend(&buffer[..n]);
        seen.parser.process(&buffer[..n]);
        let answers = std::mem::take(&mut seen.parser.callbacks_mut().0);
        drop(seen);
        // The program may have ended without waiting for it.
        let _ = display.write_all(&answers);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.guard.is_some() && is_alive(self.child.id()) {
            let _ = self.child.kill();
        }
        self.guard = None;
        let _ = self.child.wait();
        if std::thread::panicking() {
            #[allow(clippy::print_stderr)] // The test harness shows it with the failure.
            {
                eprintln!("--- the screen\n{}\n---", self.text());
            }
        }
    }
}
