//! Ctrl-C and its kin.

use crossbeam_channel::Receiver;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{io, thread, time::Duration};

/// How long the runner may take to end after a signal before it is ended.
const PATIENCE: Duration = Duration::from_secs(3);

/// Starts watching for signals that ask a program to end. The first one is received from the
/// channel; the runner then ends by itself. Where it does not, because a terminal does not take its
/// output, say, or at a second signal, the process ends all the same.
///
/// # Errors
/// What the operating system says.
pub fn watch_signals() -> io::Result<Receiver<i32>> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let (sender, receiver) = crossbeam_channel::bounded(1);
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut first = true;
            for signal in signals.forever() {
                if first {
                    first = false;
                    // The receiver may be gone already: then the process is ending.
                    let _ = sender.try_send(signal);
                    let _ = thread::Builder::new()
                        .name("patience".into())
                        .spawn(move || {
                            thread::sleep(PATIENCE);
                            let _ = signal_hook::low_level::emulate_default_handler(signal);
                        });
                } else {
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
            }
        })?;
    Ok(receiver)
}
