//! Prints `docs/protocol.md`.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(hearth_protocol::protocol_markdown().as_bytes())
}
