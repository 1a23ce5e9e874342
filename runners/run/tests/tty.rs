//! TTY mode, driven through a pseudo-terminal as a user would.

mod common;

use common::{BASE, Place, runs, shell, wait_until};
use rustix::{
    fd::OwnedFd,
    io::Errno,
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use std::{
    os::unix::process::CommandExt as _,
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread,
};

/// A terminal with `maelstrom-run` on it.
struct Session {
    place: Place,
    keyboard: OwnedFd,
    /// Kept open, so that what was shown can be read after the end.
    terminal: OwnedFd,
    child: Child,
    screen: Arc<Mutex<String>>,
}

impl Session {
    /// Starts `maelstrom-run --tty` with this input in a file.
    fn start(job: &str, arguments: &[&str]) -> Session {
        let place = Place::new();
        place.write("job.json", &format!("{BASE}{job}"));
        Session::spawn(place, &[&["--tty", "-f", "job.json"], arguments].concat())
    }

    fn spawn(place: Place, arguments: &[&str]) -> Session {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let keyboard = openpt(flags).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let terminal = ioctl_tiocgptpeer(&keyboard, flags).unwrap();
        tcsetwinsize(&keyboard, size(24, 80)).unwrap();
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let mut command = place.command(arguments);
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: both calls are safe between fork and exec.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let (reader, shown) = (keyboard.try_clone().unwrap(), screen.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match rustix::io::read(&reader, &mut buffer[..]) {
                    Ok(0) | Err(Errno::IO) => return,
                    Ok(count) => {
                        let text = String::from_utf8_lossy(&buffer[..count]);
                        shown.lock().unwrap().push_str(&text);
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        Session {
            place,
            keyboard,
            terminal,
            child,
            screen,
        }
    }

    fn types(&self, text: &str) {
        assert_eq!(
            rustix::io::write(&self.keyboard, text.as_bytes()),
            Ok(text.len())
        );
    }

    fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        let start = std::time::Instant::now();
        while !self.screen().contains(text) {
            assert!(
                start.elapsed().as_secs() < 60,
                "waited for {text:?}, the screen is {:?}",
                self.screen()
            );
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until it stops or ends.
    fn wait(&self) -> WaitStatus {
        let (_, status) = waitpid(Some(self.pid()), WaitOptions::UNTRACED)
            .unwrap()
            .unwrap();
        status
    }

    /// Whether the terminal echoes what is typed, as it did before.
    fn is_restored(&self) -> bool {
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

#[test]
fn typing_reaches_the_job_and_its_output_the_screen() {
    let session = Session::start(&shell("echo ready; read x; echo got $x; exit 5", ""), &[]);
    session.shows("waiting for the job to start");
    session.shows("^] ^C kills");
    session.shows("ready\r\n");
    assert!(!session.is_restored());
    session.types("hello\r");
    assert_eq!(session.wait().exit_status(), Some(5));
    // The job's terminal echoes, not the user's.
    session.shows("hello\r\ngot hello\r\n");
    assert!(session.is_restored());
}

#[test]
fn all_that_the_job_wrote_is_shown() {
    let script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done";
    let session = Session::start(&shell(script, ""), &[]);
    assert_eq!(session.wait().exit_status(), Some(0));
    session.shows("line 2999\r\n");
    let screen = session.screen();
    for number in 0..3000 {
        assert!(screen.contains(&format!("line {number}\r\n")), "{number}");
    }
}

#[test]
fn the_job_knows_the_size_and_its_changes() {
    let script = "trap 'stty size' WINCH; stty size; echo ready; while :; do sleep 0.01; done";
    let session = Session::start(&shell(script, ""), &[]);
    session.shows("24 80\r\nready");
    tcsetwinsize(&session.keyboard, size(50, 132)).unwrap();
    session.shows("50 132");
    session.types("\x03");
    assert_eq!(session.wait().terminating_signal(), Some(2));
}

#[test]
fn control_characters_are_for_the_job() {
    let script = "trap 'echo interrupted' INT; echo ready; while :; do sleep 0.01; done";
    let session = Session::start(&shell(script, ""), &[]);
    session.shows("ready");
    session.types("\x03");
    session.shows("interrupted");
    session.types("\x1d\x03");
    assert_eq!(session.wait().terminating_signal(), Some(2));
    assert!(session.is_restored());
}

#[test]
fn escape_and_ctrl_c_kill_and_leave_nothing() {
    let session = Session::start(&shell("echo ready; sleep 1000.2031", ""), &[]);
    session.shows("ready");
    wait_until("the job runs", || runs("1000.2031"));
    session.types("\x1d\x03");
    assert_eq!(session.wait().terminating_signal(), Some(2));
    assert!(session.is_restored());
    wait_until("the job is gone", || !runs("1000.2031"));
}

#[test]
fn escape_and_ctrl_z_suspend() {
    let session = Session::start(&shell("echo ready; read x; echo got $x", ""), &[]);
    session.shows("ready");
    session.types("\x1d\x1a");
    assert!(session.wait().stopped());
    assert!(session.is_restored());
    // Whoever continues it may have given the terminal another size.
    tcsetwinsize(&session.keyboard, size(30, 90)).unwrap();
    session.signal(Signal::CONT);
    wait_until("the terminal is raw again", || !session.is_restored());
    session.types("on\r");
    assert_eq!(session.wait().exit_status(), Some(0));
    session.shows("got on\r\n");
}

#[test]
fn signals_from_outside() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        let session = Session::start(&shell("echo ready; sleep 1000.2032", ""), &[]);
        session.shows("ready");
        session.signal(signal);
        assert_eq!(session.wait().terminating_signal(), Some(signal.as_raw()));
        assert!(session.is_restored());
        wait_until("the job is gone", || !runs("1000.2032"));
    }

    let session = Session::start(&shell("echo ready; read x; echo got $x", ""), &[]);
    session.shows("ready");
    session.signal(Signal::TSTP);
    assert!(session.wait().stopped());
    assert!(session.is_restored());
    session.signal(Signal::CONT);
    wait_until("the terminal is raw again", || !session.is_restored());
    session.types("on\r");
    assert_eq!(session.wait().exit_status(), Some(0));
}

#[test]
fn the_escape_character_can_be_typed_and_chosen() {
    let job = shell("stty -echo; echo ready; read x; echo got $x", "");
    let session = Session::start(&job, &["--escape-char", "~"]);
    session.shows("~ ^C kills");
    session.shows("ready");
    // Twice is once; before anything else it is itself.
    session.types("a~~b~c\r");
    assert_eq!(session.wait().exit_status(), Some(0));
    session.shows("got a~b~c\r\n");

    // And alone it goes through after a while.
    let session = Session::start(
        &shell("stty -echo -icanon min 1; echo ready; cat", ""),
        &["--escape-char", "~"],
    );
    session.shows("ready");
    session.types("~");
    session.shows("ready\r\n~");
    session.types("~\x03");
    assert_eq!(session.wait().terminating_signal(), Some(2));
}

#[test]
fn it_ends_like_the_job() {
    let session = Session::start(&shell("kill -9 $$", ""), &[]);
    assert_eq!(session.wait().terminating_signal(), Some(9));
    assert!(session.is_restored());

    let session = Session::start(&shell("sleep 1000", r#", "timeout": 1"#), &[]);
    assert_eq!(session.wait().exit_status(), Some(1));
    session.shows("timed out\r\n");

    let session = Session::start(r#"{"parent": "bass", "program": "x"}"#, &[]);
    assert_eq!(session.wait().exit_status(), Some(1));
    session.shows("Error: unknown container \"bass\"");

    let session = Session::start(r#"{"parent": "base", "program": "/nothing"}"#, &[]);
    assert_eq!(session.wait().exit_status(), Some(1));
    session.shows("execution error: ");
}

#[test]
fn one_terminal_gives_the_specification_and_the_session() {
    let session = Session::spawn(Place::new(), &["--tty"]);
    let job = shell("echo ready; read x; echo got $x", "");
    session.types(&format!("{BASE}\n{job}\n"));
    session.shows("ready\r\n");
    session.types("hello\r");
    assert_eq!(session.wait().exit_status(), Some(0));
    session.shows("got hello\r\n");
}

#[test]
fn ctrl_c_ends_it_while_it_reads_the_specification() {
    let session = Session::spawn(Place::new(), &["--tty"]);
    session.types("{");
    session.shows("{");
    wait_until("it reads", || {
        let pid = session.pid().as_raw_nonzero();
        let system_call = std::fs::read_to_string(format!("/proc/{pid}/syscall"));
        // read(0, …) on x86-64; elsewhere the terminal has to do with the echo.
        !cfg!(target_arch = "x86_64") || system_call.is_ok_and(|call| call.starts_with("0 0x0 "))
    });
    session.types("\x03");
    assert_eq!(session.wait().terminating_signal(), Some(2));
}

#[test]
fn it_needs_a_terminal() {
    let ended = Place::new().run(&["--tty"], "not even JSON");
    ended.assert(
        1,
        "",
        "Error: --tty needs a terminal as standard input and output\n",
    );
}

#[test]
fn the_program_can_be_given_on_the_command_line() {
    let session = Session::start(r#"{"parent": "base"}"#, &["sh", "-c", "stty size; exit 3"]);
    assert_eq!(session.wait().exit_status(), Some(3));
    session.shows("24 80\r\n");
    drop(session.place);
}
