//! The thread that owns the screen.

use super::{
    Style, UiError, UiSender,
    bars::Bars,
    fancy::Fancy,
    screen::{Area, Screen, Size},
    sender::{Counters, Event},
};
use crate::config::UiStyle;
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use indicatif::ProgressDrawTarget;
use std::{
    env,
    io::{self, IsTerminal},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How many events may wait. Each may hold a test's output.
const QUEUE_LENGTH: usize = 64;
/// Lines are this wide where standard output is no terminal.
const DEFAULT_SIZE: Size = Size {
    columns: 80,
    rows: 24,
};
/// How long [`Ui::abandon`] waits for a screen that does not take what is written.
const ABANDON_PATIENCE: Duration = Duration::from_millis(300);

/// The UI while it runs. Dropping it [abandons](Ui::abandon) it.
#[derive(Debug)]
pub struct Ui {
    sender: UiSender,
    abandoned: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Ui {
    /// Starts the UI on standard output. `listing` says that tests are only listed.
    ///
    /// # Errors
    ///
    /// The style cannot be used for this.
    pub fn start(style: UiStyle, listing: bool) -> Result<(Ui, UiSender), UiError> {
        // A dumb terminal is treated like a file: it can do no more than take lines.
        let is_dumb = env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        let is_terminal = io::stdout().is_terminal() && !is_dumb;
        let style = Style::choose(style, listing, is_terminal)?;
        let area = match style {
            _ if !is_terminal => Area::None,
            Style::Fancy => Area::Fancy(Fancy::default()),
            _ => Area::Bars(Bars::new(
                ProgressDrawTarget::stdout_with_hz(30),
                style,
                listing,
            )),
        };
        let size = if is_terminal {
            terminal_size
        } else {
            || DEFAULT_SIZE
        };
        let screen = Screen::new(
            style,
            listing,
            has_color(is_terminal),
            size(),
            area,
            Box::new(io::stdout()),
            Instant::now(),
        );
        Ui::start_on(screen, size, is_terminal).map_err(UiError::Thread)
    }

    pub(super) fn start_on(
        screen: Screen,
        size: fn() -> Size,
        is_terminal: bool,
    ) -> io::Result<(Ui, UiSender)> {
        let (events, receiver) = bounded(QUEUE_LENGTH);
        let sender = UiSender {
            events,
            counters: Arc::new(Counters::default()),
            closed: Arc::new(AtomicBool::new(false)),
            style: screen.style,
            is_terminal,
        };
        let abandoned = Arc::new(AtomicBool::new(false));
        let run = Run {
            screen,
            receiver,
            size,
            counters: sender.counters.clone(),
            closed: sender.closed.clone(),
            abandoned: abandoned.clone(),
        };
        let thread = thread::Builder::new()
            .name("ui".into())
            .spawn(move || run.run())?;
        let ui = Ui {
            sender: sender.clone(),
            abandoned,
            thread: Some(thread),
        };
        Ok((ui, sender))
    }

    /// Shows everything that was sent before, and ends.
    ///
    /// # Errors
    ///
    /// Standard output could not be written to. That nobody reads it is no error.
    pub fn finish(mut self) -> io::Result<()> {
        self.sender.send(Event::Quit);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }

    /// Ends at once, without what is still waiting to be shown, and restores the terminal: for a run
    /// that is interrupted. Does not wait long for a screen that takes no more.
    pub fn abandon(self) {
        drop(self);
    }
}

impl Drop for Ui {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.abandoned.store(true, Relaxed);
        // Wakes the thread; if the queue is full it is awake, or stuck.
        let _ = self.sender.events.try_send(Event::Quit);
        let deadline = Instant::now() + ABANDON_PATIENCE;
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What the thread works with.
struct Run {
    screen: Screen,
    receiver: Receiver<Event>,
    size: fn() -> Size,
    counters: Arc<Counters>,
    closed: Arc<AtomicBool>,
    abandoned: Arc<AtomicBool>,
}

impl Run {
    fn run(mut self) -> io::Result<()> {
        loop {
            let received = match self.screen.next_deadline() {
                Some(deadline) => self.receiver.recv_deadline(deadline),
                None => self
                    .receiver
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
            };
            let now = Instant::now();
            let is_over = match received {
                Ok(Event::Quit) | Err(RecvTimeoutError::Disconnected) => true,
                Ok(event) => {
                    self.screen.handle(event, now);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
            };
            if is_over || self.abandoned.load(Relaxed) {
                break;
            }
            if self
                .screen
                .next_deadline()
                .is_some_and(|deadline| deadline <= now)
            {
                self.screen.size = (self.size)();
                self.screen.advance(self.counters.get(), now);
            }
            if self.screen.is_broken() {
                self.closed.store(true, Relaxed);
            }
        }
        self.screen.finish();
        self.screen.take_failure().map_or(Ok(()), Err)
    }
}

/// Colours are for terminals whose user has not asked for none (<https://no-color.org>).
pub(super) fn has_color(is_terminal: bool) -> bool {
    is_terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn terminal_size() -> Size {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Size {
            columns: size.ws_col.into(),
            rows: size.ws_row.into(),
        },
        _ => DEFAULT_SIZE,
    }
}
