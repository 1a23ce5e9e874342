//! Progress bars below the scrolling lines: simple and quiet style on a terminal.

use super::{Style, screen::Progress, sender::TransferId};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

/// More transfers than this are not shown.
const MAX_TRANSFERS: usize = 6;

/// States with a bar each, with its colour. A bar counts the tests in its state or a later one.
const STATES: [(&str, &str); 4] = [
    ("waiting for artifacts", "red"),
    ("pending", "yellow"),
    ("running", "blue"),
    ("complete", "green"),
];

/// The bars of a style.
pub(super) struct Bars {
    multi: MultiProgress,
    spinner: Option<ProgressBar>,
    bars: Vec<ProgressBar>,
    transfers: BTreeMap<TransferId, ProgressBar>,
    style: Style,
}

impl Bars {
    /// The bars of the quiet style, or those of the simple one, which while listing has only the
    /// status line.
    pub(super) fn new(target: ProgressDrawTarget, style: Style, listing: bool) -> Self {
        let multi = MultiProgress::with_draw_target(target);
        let add = |template: &str| {
            let style =
                ProgressStyle::with_template(template).expect("the template is well-formed");
            multi.add(ProgressBar::new(0).with_style(style))
        };
        let mut spinner = None;
        let mut bars = Vec::new();
        if style == Style::Quiet {
            bars.push(add("{wide_bar:.green} {prefix} tests"));
        } else {
            spinner = Some(add("{spinner:.cyan} {wide_msg}"));
            if !listing {
                for (label, color) in STATES {
                    let bar = add(&format!("{{wide_bar:.{color}}} {{prefix}} {{msg:21}}"));
                    bar.set_message(label);
                    bars.push(bar);
                }
            }
        }
        Bars {
            multi,
            spinner,
            bars,
            transfers: BTreeMap::new(),
            style,
        }
    }

    /// Shows the progress. To be called at the rate at which the screen is to change.
    pub(super) fn update(&mut self, progress: &Progress) {
        if let Some(spinner) = &self.spinner {
            if spinner.message() != progress.status {
                spinner.set_message(progress.status.clone());
            }
            spinner.tick();
        }
        let reached = match self.style {
            Style::Quiet => vec![progress.complete],
            _ => vec![
                progress.queued,
                progress.pending,
                progress.running,
                progress.complete,
            ],
        };
        let total = progress.total.to_string();
        for (bar, position) in self.bars.iter().zip(reached) {
            bar.set_length(progress.total);
            bar.set_position(position);
            // As wide as it will ever be, so that the bars stay below each other.
            bar.set_prefix(format!("{position:>width$}/{total}", width = total.len()));
        }
        if self.style != Style::Quiet
            && let Some(complete) = self.bars.last()
        {
            let label = match progress.failed {
                0 => STATES[3].0.to_owned(),
                failed => format!("completed ({failed} failed)"),
            };
            if complete.message() != label {
                complete.set_message(label);
            }
        }
        for bar in &self.bars {
            bar.tick();
        }
    }

    /// Shows how far a transfer is.
    pub(super) fn transfer(&mut self, id: TransferId, label: &str, bytes: u64, total: Option<u64>) {
        if self.style == Style::Quiet
            || (self.transfers.len() == MAX_TRANSFERS && !self.transfers.contains_key(&id))
        {
            return;
        }
        let bar = self.transfers.entry(id).or_insert_with(|| {
            let template = match total {
                Some(_) => "{bar:20.white} {decimal_bytes}/{decimal_total_bytes} {wide_msg}",
                None => "{spinner:.white} {decimal_bytes} {wide_msg}",
            };
            let style =
                ProgressStyle::with_template(template).expect("the template is well-formed");
            let bar = ProgressBar::new(total.unwrap_or(0)).with_style(style);
            self.multi.add(bar.with_message(label.to_owned()))
        });
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(bytes);
    }

    /// Takes the bar of a transfer away.
    pub(super) fn transfer_done(&mut self, id: TransferId) {
        if let Some(bar) = self.transfers.remove(&id) {
            bar.finish_and_clear();
            self.multi.remove(&bar);
        }
    }

    /// Writes whole lines above the bars.
    pub(super) fn print(&mut self, out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
        self.multi.suspend(|| {
            out.write_all(bytes)?;
            out.flush()
        })
    }

    /// Takes all bars away.
    pub(super) fn clear(&mut self) {
        // The terminal is gone if this fails.
        let _ = self.multi.clear();
    }
}

impl Drop for Bars {
    /// Takes all bars away in one go, and not one after the other.
    fn drop(&mut self) {
        self.clear();
        self.multi.set_draw_target(ProgressDrawTarget::hidden());
    }
}
