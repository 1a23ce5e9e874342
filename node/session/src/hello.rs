//! The greeting, and a session that has just been opened.

use crate::{
    SessionError,
    frame::{self, MAX_EVENT_BYTES, MAX_REQUEST_BYTES},
    message::{Event, Question, Request, Welcome},
    socket,
};
use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// What every greeting starts with.
const MAGIC: [u8; 8] = *b"mlstsock";

/// Raised whenever a message changes.
const VERSION: u32 = 2;

/// The version of the program, at most so many bytes of it.
const MAX_NAME_BYTES: usize = 64;

/// How long a greeting may take: the other end only has to be scheduled.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which end speaks which version. This layout never changes: eight bytes that tell it from
/// anything else, a little-endian `u32`, one byte for a length, and the program's version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    version: u32,
    program: String,
}

impl Hello {
    pub(crate) fn ours() -> Self {
        Self {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let name = &self.program.as_bytes()[..self.program.len().min(MAX_NAME_BYTES)];
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.push(name.len() as u8);
        bytes.extend(name);
        to.write_all(&bytes)
    }

    pub(crate) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; 13];
        from.read_exact(&mut head)?;
        let (magic, rest) = head.split_at(8);
        let length = usize::from(rest[4]);
        if magic != MAGIC || length > MAX_NAME_BYTES {
            let text = "it does not speak the protocol of maelstrom-node";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut name = vec![0; length];
        from.read_exact(&mut name)?;
        Ok(Self {
            version: u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]),
            program: String::from_utf8_lossy(&name).into_owned(),
        })
    }

    pub(crate) fn describe(&self) -> String {
        format!("{} (session {})", self.program, self.version)
    }
}

/// A connection to the daemon of this machine.
#[derive(Debug)]
pub struct Session {
    pub(crate) stream: UnixStream,
    pub(crate) welcome: Welcome,
    path: PathBuf,
}

impl Session {
    /// Connects to the daemon that listens on a socket. `None`: there is none.
    ///
    /// # Errors
    ///
    /// If there is one, but of another user or version, or one that doesn't answer.
    pub fn connect(path: &Path) -> Result<Option<Self>, SessionError> {
        let mut stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => {
                return Err(SessionError::File {
                    action: "connecting to",
                    path: path.to_owned(),
                    error,
                });
            }
        };
        let broken = |error: &dyn std::fmt::Display| SessionError::Broken {
            path: path.to_owned(),
            why: error.to_string(),
        };
        socket::check_peer(&stream).map_err(|error| broken(&error))?;
        let patience = || -> io::Result<()> {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))
        };
        patience().map_err(|error| broken(&error))?;
        let ours = Hello::ours();
        ours.write(&mut stream)
            .map_err(|error| broken(&explained(error)))?;
        let theirs = Hello::read(&mut stream).map_err(|error| broken(&explained(error)))?;
        if theirs != ours {
            return Err(SessionError::Version {
                path: path.to_owned(),
                theirs: theirs.describe(),
                ours: ours.describe(),
            });
        }
        let welcome: Result<Welcome, String> = frame::read(&mut stream, MAX_REQUEST_BYTES)
            .and_then(|welcome| welcome.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
            .map_err(|error| broken(&explained(error)))?;
        let welcome = welcome.map_err(|why| broken(&why))?;
        let patience = || -> io::Result<()> {
            stream.set_read_timeout(None)?;
            stream.set_write_timeout(None)
        };
        patience().map_err(|error| broken(&error))?;
        Ok(Some(Self {
            stream,
            welcome,
            path: path.to_owned(),
        }))
    }

    /// What the daemon said of itself.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Asks the daemon something.
    ///
    /// # Errors
    ///
    /// If it goes away or has no answer.
    pub fn ask(&mut self, question: Question) -> Result<String, SessionError> {
        let broken = |why: String| SessionError::Broken {
            path: self.path.clone(),
            why,
        };
        let request = frame::encode(&Request::Ask(question), MAX_REQUEST_BYTES)
            .map_err(|_| broken("the question is too long".to_owned()))?;
        self.stream
            .write_all(&request)
            .map_err(|error| broken(explained(error)))?;
        let event: Option<Event<'_>> = frame::read(&mut self.stream, MAX_EVENT_BYTES)
            .map_err(|error| broken(explained(error)))?;
        match event {
            Some(Event::Answer(answer)) => answer.map_err(broken),
            Some(Event::Goodbye(why)) => Err(broken(why)),
            _ => Err(broken("it has gone away".to_owned())),
        }
    }
}

/// The other end's side of an error, in words for people.
pub(crate) fn explained(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => "it has gone away".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {} s", PATIENCE.as_secs())
        }
        _ => error.to_string(),
    }
}

/// The daemon's part of a greeting. The error is for the log.
pub(crate) fn greet(
    stream: &mut UnixStream,
    welcome: &Result<Welcome, String>,
) -> Result<(), String> {
    socket::check_peer(stream)?;
    let greeting = |stream: &mut UnixStream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let ours = Hello::ours();
        let theirs = Hello::read(stream)?;
        ours.write(stream)?;
        if theirs != ours {
            return Ok(Some(theirs));
        }
        let frame = frame::encode(welcome, MAX_REQUEST_BYTES)
            .map_err(|_| io::Error::other("the welcome is too long"))?;
        stream.write_all(&frame)?;
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        Ok(None)
    };
    match greeting(stream) {
        Ok(None) => Ok(()),
        Ok(Some(theirs)) => Err(format!("it has version {}", theirs.describe())),
        Err(error) => Err(explained(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_comes_back() {
        let mut bytes = Vec::new();
        Hello::ours().write(&mut bytes).unwrap();
        assert_eq!(Hello::read(&mut bytes.as_slice()).unwrap(), Hello::ours());
        for end in 0..bytes.len() {
            assert!(Hello::read(&mut &bytes[..end]).is_err(), "cut at {end}");
        }
        bytes[0] ^= 1;
        assert!(Hello::read(&mut bytes.as_slice()).is_err());
    }

    #[test]
    fn its_layout_is_fixed() {
        let hello = Hello {
            version: 0x0102,
            program: "1.2.3".to_owned(),
        };
        let mut bytes = Vec::new();
        hello.write(&mut bytes).unwrap();
        assert_eq!(bytes, b"mlstsock\x02\x01\x00\x00\x051.2.3");
    }
}
