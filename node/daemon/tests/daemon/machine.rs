//! A machine of a test: directories of its own, and the built program in them.

use maelstrom_session::Session;
use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

/// For whatever has to happen on a machine that may be very busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) struct Machine {
    home: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        // Not below a directory of a long name: the path of a socket is limited.
        let home = tempfile::Builder::new()
            .prefix("mn")
            .tempdir_in("/tmp")
            .expect("a directory");
        Self { home }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.home.path().join(below)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/maelstrom/node.sock")
    }

    /// The program with the directories of this machine, and nothing else of the environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_maelstrom-node"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_CONFIG_DIRS", self.path("none"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .output()
            .expect("the program starts")
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        let output = self.run(&["status", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Starts a daemon on a port of loopback that is free, and waits until it is ready.
    pub(crate) fn start(&self, arguments: &[&str]) -> Daemon {
        let notify = self.path("notify");
        let _ = fs::remove_file(&notify);
        let ready = UnixDatagram::bind(&notify).expect("a socket");
        ready
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a timeout");
        let file = |name| File::create(self.path(name)).expect("a file");
        let mut all = vec!["--listen", "127.0.0.1:0", "--mdns=false", "--slots", "2"];
        all.extend(arguments);
        let child = self
            .command(&all)
            .env("NOTIFY_SOCKET", &notify)
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("the program starts");
        let mut daemon = Daemon {
            child,
            stdout: self.path("stdout"),
            stderr: self.path("stderr"),
        };
        let started = Instant::now();
        let mut message = [0; 64];
        loop {
            match ready.recv(&mut message) {
                Ok(length) if &message[..length] == b"READY=1" => return daemon,
                _ => {}
            }
            if let Some(status) = daemon.child.try_wait().expect("a child") {
                panic!("the daemon ended with {status}: {}", daemon.stderr());
            }
            assert!(started.elapsed() < PATIENCE, "{}", daemon.stderr());
        }
    }

    pub(crate) fn connect(&self) -> Session {
        Session::connect(&self.socket())
            .expect("a session")
            .expect("a daemon")
    }
}

/// A daemon that runs. Killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Daemon {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdout(&self) -> String {
        text(&self.stdout)
    }

    pub(crate) fn stderr(&self) -> String {
        text(&self.stderr)
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(status.expect("kill").success());
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "{}", self.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

fn text(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = File::open(path) {
        let _ = file.read_to_string(&mut text);
    }
    text
}

/// Looks again until it is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
