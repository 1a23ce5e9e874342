//! What template programs say, as lines of text. See `docs/TEMPLATES.md`.

use crate::launcher::receive_part;
use maelstrom_spec::JobStatus;
use rustix::fd::{BorrowedFd, OwnedFd};

/// No message is longer than this.
const MESSAGE_MAX_BYTES: usize = 4096;

/// What a template says.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    Ready { rewinds: bool },
    Refuse(String),
    Ended { number: u64, status: JobStatus },
    Watch { number: u64 },
    Failed { number: u64, why: String },
    Unknown,
}

impl Message {
    /// Receives one, and the descriptors that come with it. `None`: the template has closed its
    /// end.
    pub(crate) fn receive(from: BorrowedFd<'_>) -> Option<(Self, Vec<OwnedFd>)> {
        let mut packet = [0; MESSAGE_MAX_BYTES];
        let (length, descriptors) = receive_part(from, &mut packet).ok()?;
        let message = Self::parse(&String::from_utf8_lossy(&packet[..length]));
        (length > 0).then_some((message, descriptors))
    }

    fn parse(text: &str) -> Self {
        let (word, rest) = text
            .trim_end()
            .split_once(' ')
            .unwrap_or((text.trim_end(), ""));
        let numbered = || {
            let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            Some((number.parse().ok()?, rest))
        };
        match (word, numbered()) {
            ("ready", _) => Message::Ready {
                rewinds: rest == "rewind",
            },
            ("refuse", _) => Message::Refuse(rest.to_owned()),
            ("ended", Some((number, status))) => match status.parse().map(job_status) {
                Ok(status) => Message::Ended { number, status },
                Err(_) => Message::Unknown,
            },
            ("watch", Some((number, _))) => Message::Watch { number },
            ("failed", Some((number, why))) => Message::Failed {
                number,
                why: why.to_owned(),
            },
            _ => Message::Unknown,
        }
    }
}

/// The meaning of a number from `waitpid`.
fn job_status(status: i32) -> JobStatus {
    if libc::WIFEXITED(status) {
        JobStatus::Exited(libc::WEXITSTATUS(status) as u8)
    } else {
        JobStatus::Signaled(libc::WTERMSIG(status) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_templates() {
        let ready = |rewinds| Message::Ready { rewinds };
        assert_eq!(Message::parse("ready"), ready(false));
        assert_eq!(Message::parse("ready\n"), ready(false));
        assert_eq!(Message::parse("ready rewind"), ready(true));
        assert_eq!(Message::parse("watch 7"), Message::Watch { number: 7 });
        assert_eq!(
            Message::parse("refuse two threads\n"),
            Message::Refuse("two threads".to_owned())
        );
        let ended = |status| Message::Ended { number: 7, status };
        assert_eq!(Message::parse("ended 7 256"), ended(JobStatus::Exited(1)));
        assert_eq!(
            Message::parse("ended 7 139"),
            ended(JobStatus::Signaled(11))
        );
        let failed = Message::Failed {
            number: 7,
            why: "no memory".to_owned(),
        };
        assert_eq!(Message::parse("failed 7 no memory"), failed);
        for nonsense in [
            "",
            " ",
            "ended",
            "ended 7",
            "ended x 0",
            "watch",
            "watch x",
            "ended 7 x",
            "hello 1 2",
        ] {
            assert_eq!(Message::parse(nonsense), Message::Unknown, "{nonsense:?}");
        }
    }
}
