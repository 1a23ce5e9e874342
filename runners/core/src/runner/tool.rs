//! Processes that a runner starts on the client's machine: the build tool, test listings.
//!
//! Each gets a session of its own, so that a Ctrl-C at the terminal reaches only the runner, which
//! then ends them all with everything they started. A tool that asks for a passphrase on the
//! terminal fails instead of hanging in the background.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::{
    collections::BTreeSet,
    io::{self, Read},
    os::unix::process::CommandExt as _,
    panic::resume_unwind,
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

/// All processes that are running on a runner's behalf. Clones share one set.
#[derive(Clone, Default)]
pub struct Tools {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    killed: bool,
    groups: BTreeSet<i32>,
}

/// A running tool. Dropping it kills it, and what it started.
pub struct Tool {
    child: Child,
    group: i32,
    tools: Tools,
    reaped: bool,
}

impl Tools {
    /// Starts `command`.
    ///
    /// # Errors
    /// What the operating system says; [`io::ErrorKind::Interrupted`] after [`Tools::kill_all`].
    pub fn spawn(&self, command: &mut Command) -> io::Result<Tool> {
        // SAFETY: only async-signal-safe system calls are made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                Ok(())
            });
        }
        let mut state = self.lock();
        if state.killed {
            return Err(io::Error::new(
                io::ErrorKind::Interrupted,
                "the run is ending",
            ));
        }
        let child = command.spawn()?;
        let group = child.id().cast_signed();
        state.groups.insert(group);
        drop(state);
        Ok(Tool {
            child,
            group,
            tools: self.clone(),
            reaped: false,
        })
    }

    /// Kills every tool with everything it started, and refuses to start more.
    pub fn kill_all(&self) {
        let mut state = self.lock();
        state.killed = true;
        for &group in &state.groups {
            kill_group(group);
        }
    }

    /// Whether [`Tools::kill_all`] was called.
    pub fn killed(&self) -> bool {
        self.lock().killed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tool {
    /// The read end of its standard output, if it was piped and not yet taken.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// The read end of its standard error, if it was piped and not yet taken.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Reads all that it writes to what was piped and not yet taken, and waits for its end.
    ///
    /// # Errors
    /// What the operating system says. A tool whose output cannot be read is killed.
    pub fn output(mut self) -> io::Result<Output> {
        let (stdout, stderr) = (self.stdout(), self.stderr());
        let (stdout, stderr) = thread::scope(|scope| {
            let stderr = scope.spawn(|| read_all(stderr));
            let stdout = read_all(stdout);
            (stdout, stderr.join())
        });
        Ok(Output {
            stdout: stdout?,
            stderr: stderr.unwrap_or_else(|panic| resume_unwind(panic))?,
            status: self.wait()?,
        })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn wait(mut self) -> io::Result<ExitStatus> {
        // The process stays a zombie until it is out of the set, so that its number cannot be
        // another process's when `kill_all` uses it.
        if let Some(pid) = Pid::from_raw(self.group) {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while let Err(rustix::io::Errno::INTR) =
                rustix::process::waitid(WaitId::Pid(pid), options)
            {}
        }
        self.tools.lock().groups.remove(&self.group);
        self.reaped = true;
        self.child.wait()
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if !self.reaped {
            let mut state = self.tools.lock();
            kill_group(self.group);
            state.groups.remove(&self.group);
            drop(state);
            let _ = self.child.wait();
        }
    }
}

fn read_all(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn kill_group(group: i32) {
    if let Some(pid) = Pid::from_raw(group) {
        // Gone already is fine.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::process::ExitStatusExt as _, process::Stdio};

    #[test]
    fn waiting_gives_the_status_and_forgets_the_process() {
        let tools = Tools::default();
        let tool = tools
            .spawn(Command::new("sh").args(["-c", "exit 3"]))
            .unwrap();
        assert_eq!(tool.wait().unwrap().code(), Some(3));
        assert!(tools.lock().groups.is_empty());
    }

    #[test]
    fn both_outputs_are_read_whole() {
        // More than a pipe holds, in the order that hangs who reads one after the other.
        let script = "head -c 300000 /dev/zero >&2; head -c 200000 /dev/zero; exit 4";
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = Tools::default().spawn(&mut command).unwrap().output();
        let output = output.unwrap();
        assert_eq!(
            (output.stdout.len(), output.stderr.len()),
            (200_000, 300_000)
        );
        assert_eq!(output.status.code(), Some(4));
    }

    #[test]
    fn kill_all_ends_grandchildren_too() {
        let tools = Tools::default();
        let mut command = Command::new("sh");
        command
            .args(["-c", "sleep 1000 & echo started; wait"])
            .stdout(Stdio::piped());
        let mut tool = tools.spawn(&mut command).unwrap();
        let mut stdout = tool.stdout().unwrap();
        let mut first = [0; 8];
        stdout.read_exact(&mut first).unwrap();
        tools.kill_all();
        // End of file comes only when the last holder of the pipe, the grandchild, is gone.
        let mut rest = Vec::new();
        stdout.read_to_end(&mut rest).unwrap();
        assert_eq!(tool.wait().unwrap().signal(), Some(9));
        let refused = tools.spawn(&mut Command::new("true")).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn dropping_ends_the_process() {
        let tools = Tools::default();
        let tool = tools.spawn(Command::new("sleep").arg("1000")).unwrap();
        let pid = Pid::from_raw(tool.group).unwrap();
        drop(tool);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }
}
