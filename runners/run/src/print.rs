//! Printing what jobs leave behind.

use crate::report::Piece;
use signal_hook::{consts::SIGPIPE, low_level::emulate_default_handler};
use std::io::{self, ErrorKind, Write};

/// Writes pieces in order. Each stream is flushed before the other is written to, so that a
/// terminal shows them in order, too.
///
/// Where nobody reads any more, this ends the process as it ends others: by SIGPIPE. Where writing
/// fails otherwise, it says so and ends the process with 1.
pub(crate) fn print(pieces: &[Piece<'_>]) {
    for piece in pieces {
        let (stream, result) = match piece {
            Piece::Stdout(bytes) => ("stdout", write(io::stdout().lock(), bytes)),
            Piece::Stderr(bytes) => ("stderr", write(io::stderr().lock(), bytes)),
            Piece::Line(line) => (
                "stderr",
                write(io::stderr().lock(), format!("{line}\n").as_bytes()),
            ),
        };
        if let Err(error) = result {
            give_up(stream, &error);
        }
    }
}

fn write(mut stream: impl Write, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}

fn give_up(stream: &str, error: &io::Error) -> ! {
    if error.kind() == ErrorKind::BrokenPipe {
        // Does not return where the signal can be raised.
        let _ = emulate_default_handler(SIGPIPE);
    }
    let _ = writeln!(io::stderr(), "Error: writing to {stream}: {error}");
    std::process::exit(1);
}
