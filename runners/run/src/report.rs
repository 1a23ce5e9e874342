//! What is printed about a job that has ended, and what it means for the exit code.

use maelstrom_node::JobId;
use maelstrom_spec::{JobError, JobOutcome, JobOutput, JobStatus};

/// Something to print, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Bytes of the job's standard output.
    Stdout(&'a [u8]),
    /// Bytes of the job's standard error.
    Stderr(&'a [u8]),
    /// A line about the job, for standard error; without its newline.
    Line(String),
}

/// How `maelstrom-run` ends on behalf of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

/// What is printed about one of many jobs, in order.
pub(crate) fn pieces(id: JobId, result: &Result<JobOutcome, JobError>) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let prefix = format!("job {id}: ");
    push_outputs(&mut pieces, &prefix, result);
    let line = match result {
        Ok(outcome) => match outcome.status {
            JobStatus::Exited(0) => None,
            JobStatus::Exited(code) => Some(format!("{prefix}exited with code {code}")),
            JobStatus::Signaled(signal) => Some(format!("{prefix}killed by signal {signal}")),
            JobStatus::TimedOut | JobStatus::OutOfMemory => {
                trouble(result).map(|trouble| prefix + &trouble)
            }
        },
        // A job that was refused before it became one.
        Err(JobError::Remote(_)) => trouble(result),
        Err(_) => trouble(result).map(|trouble| prefix + &trouble),
    };
    pieces.extend(line.map(Piece::Line));
    pieces
}

/// What is printed about the only job, in order. How it exited shows in how `maelstrom-run` does.
pub(crate) fn pieces_of_only_job(result: &Result<JobOutcome, JobError>) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    push_outputs(&mut pieces, "", result);
    let line = match result {
        Err(JobError::Remote(message)) => Some(format!("Error: {message}")),
        _ => trouble(result),
    };
    pieces.extend(line.map(Piece::Line));
    pieces
}

/// Why a job has no exit status.
fn trouble(result: &Result<JobOutcome, JobError>) -> Option<String> {
    match result {
        Err(error) => Some(error.to_string()),
        Ok(outcome) => match outcome.status {
            JobStatus::TimedOut => Some("timed out".into()),
            JobStatus::OutOfMemory => Some("killed for using too much memory".into()),
            JobStatus::Exited(_) | JobStatus::Signaled(_) => None,
        },
    }
}

fn push_outputs<'a>(
    pieces: &mut Vec<Piece<'a>>,
    prefix: &str,
    result: &'a Result<JobOutcome, JobError>,
) {
    let Ok(outcome) = result else {
        return;
    };
    let mut push = |name: &str, output: &'a JobOutput, piece: fn(&'a [u8]) -> Piece<'a>| {
        if !output.bytes().is_empty() {
            pieces.push(piece(output.bytes()));
        }
        if output.dropped_bytes() > 0 {
            let count = output.dropped_bytes();
            pieces.push(Piece::Line(format!(
                "{prefix}{name} truncated, {count} bytes lost"
            )));
        }
    };
    push("stdout", &outcome.effects.stdout, Piece::Stdout);
    push("stderr", &outcome.effects.stderr, Piece::Stderr);
}

/// What one of many jobs contributes to the exit code. 0 is nothing.
pub(crate) fn exit_contribution(result: &Result<JobOutcome, JobError>) -> u8 {
    match ending(result) {
        Ending::Code(code) => code,
        Ending::Signal(_) => 1,
    }
}

/// How `maelstrom-run` ends when this was its only job.
pub(crate) fn ending(result: &Result<JobOutcome, JobError>) -> Ending {
    match result.as_ref().map(|outcome| outcome.status) {
        Ok(JobStatus::Exited(code)) => Ending::Code(code),
        Ok(JobStatus::Signaled(signal)) => Ending::Signal(signal),
        Ok(JobStatus::TimedOut | JobStatus::OutOfMemory) | Err(_) => Ending::Code(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maelstrom_spec::JobEffects;

    fn ended(status: JobStatus) -> Result<JobOutcome, JobError> {
        Ok(JobOutcome {
            status,
            effects: JobEffects::default(),
        })
    }

    /// Of many, exit contribution, of one, ending.
    fn shown(result: Result<JobOutcome, JobError>) -> (String, u8, String, Ending) {
        let join = |pieces: Vec<Piece<'_>>| {
            let lines = pieces.into_iter().map(|piece| match piece {
                Piece::Stdout(bytes) => format!("1:{}", str::from_utf8(bytes).unwrap()),
                Piece::Stderr(bytes) => format!("2:{}", str::from_utf8(bytes).unwrap()),
                Piece::Line(line) => line,
            });
            lines.collect::<Vec<_>>().join("|")
        };
        (
            join(pieces(JobId(7), &result)),
            exit_contribution(&result),
            join(pieces_of_only_job(&result)),
            ending(&result),
        )
    }

    #[test]
    fn results() {
        for (result, many, contribution, one, end) in [
            (ended(JobStatus::Exited(0)), "", 0, "", Ending::Code(0)),
            (
                ended(JobStatus::Exited(3)),
                "job 7: exited with code 3",
                3,
                "",
                Ending::Code(3),
            ),
            (
                ended(JobStatus::Signaled(9)),
                "job 7: killed by signal 9",
                1,
                "",
                Ending::Signal(9),
            ),
            (
                ended(JobStatus::TimedOut),
                "job 7: timed out",
                1,
                "timed out",
                Ending::Code(1),
            ),
            (
                ended(JobStatus::OutOfMemory),
                "job 7: killed for using too much memory",
                1,
                "killed for using too much memory",
                Ending::Code(1),
            ),
            (
                Err(JobError::Execution("x".into())),
                "job 7: execution error: x",
                1,
                "execution error: x",
                Ending::Code(1),
            ),
            (
                Err(JobError::System("x".into())),
                "job 7: system error: x",
                1,
                "system error: x",
                Ending::Code(1),
            ),
            (
                Err(JobError::Remote("x".into())),
                "remote error: x",
                1,
                "Error: x",
                Ending::Code(1),
            ),
            (
                Err(JobError::Cancelled),
                "job 7: cancelled",
                1,
                "cancelled",
                Ending::Code(1),
            ),
        ] {
            let expected = (many.to_owned(), contribution, one.to_owned(), end);
            assert_eq!(shown(result.clone()), expected, "{result:?}");
        }
    }

    #[test]
    fn outputs_come_before_the_result_and_truncation_after_its_stream() {
        let result = Ok(JobOutcome {
            status: JobStatus::Exited(1),
            effects: JobEffects {
                stdout: JobOutput::Truncated {
                    first: b"out".into(),
                    dropped_bytes: 5,
                },
                stderr: JobOutput::Inline(b"err".into()),
                ..JobEffects::default()
            },
        });
        let (many, _, one, _) = shown(result);
        assert_eq!(
            many,
            "1:out|job 7: stdout truncated, 5 bytes lost|2:err|job 7: exited with code 1"
        );
        assert_eq!(one, "1:out|stdout truncated, 5 bytes lost|2:err");
    }

    #[test]
    fn a_limit_of_zero_still_tells_what_is_lost() {
        let result = Ok(JobOutcome {
            status: JobStatus::Exited(0),
            effects: JobEffects {
                stderr: JobOutput::Truncated {
                    first: vec![],
                    dropped_bytes: 2,
                },
                ..JobEffects::default()
            },
        });
        assert_eq!(shown(result).0, "job 7: stderr truncated, 2 bytes lost");
    }
}
