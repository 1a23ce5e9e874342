//! What a test runner shows: a line for each finished test, progress on a terminal, the summary.
//!
//! [`Ui::start`] begins a thread that owns standard output until [`Ui::finish`]. Everything reaches
//! it through a [`UiSender`]: test results, log lines, lines of a listing. Counting goes through
//! shared counters, and what a style does not show is not sent, so that a test costs little.
//!
//! - **simple**: a line for each test, the output of those that did not pass, a summary; on a terminal
//!   also a status line and bars.
//! - **quiet**: only the summary and what collecting the tests printed; on a terminal one bar.
//! - **fancy**: an area at the bottom of the terminal with running tests, gauges and the output of
//!   the build; finished tests scroll above it. Needs a terminal, and does not list.
//! - **auto**: fancy on a terminal unless listing, else simple.
//!
//! When nobody reads standard output any more (`| head`), nothing is written from then on, and
//! [`UiSender::is_closed`] tells the runner to stop.

mod bars;
mod fancy;
mod line;
mod log;
mod report;
mod screen;
mod sender;
mod summary;
#[cfg(test)]
mod tests;
mod thread;

pub use log::LogWriter;
pub use report::{Captured, RoundEnd, TestReport, Verdict};
pub use sender::{TransferId, UiSender};
pub use thread::Ui;

use crate::config::UiStyle;

/// Why a style cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UiError {
    /// Only the simple style lists.
    #[error("the `{0}` UI cannot list; leave `--ui` out or use `--ui=simple`")]
    CannotList(&'static str),
    /// Only for terminals.
    #[error(
        "the `fancy` UI needs a terminal for standard output; leave `--ui` out or use `--ui=simple`"
    )]
    NoTerminal,
    /// The system gives no more threads.
    #[error("could not start the UI's thread: {0}")]
    Thread(std::io::Error),
}

/// A style that was decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Simple,
    Fancy,
    Quiet,
}

impl Style {
    fn choose(style: UiStyle, listing: bool, is_terminal: bool) -> Result<Style, UiError> {
        match style {
            UiStyle::Auto if is_terminal && !listing => Ok(Style::Fancy),
            UiStyle::Auto | UiStyle::Simple => Ok(Style::Simple),
            UiStyle::Quiet if listing => Err(UiError::CannotList("quiet")),
            UiStyle::Quiet => Ok(Style::Quiet),
            UiStyle::Fancy if listing => Err(UiError::CannotList("fancy")),
            UiStyle::Fancy if !is_terminal => Err(UiError::NoTerminal),
            UiStyle::Fancy => Ok(Style::Fancy),
        }
    }
}
