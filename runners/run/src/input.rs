//! The stream of JSON objects that says what to run.

use maelstrom_spec::{
    ContainerSpec, Entry, JobSpec, Node, ParseOptions, Problem, Source, SourceError, Value,
    parse_containers, parse_job, parse_json,
};
use serde_json::{de::IoRead, value::RawValue};
use std::{
    cell::RefCell,
    io::{self, BufReader, Read},
    rc::Rc,
};
use thiserror::Error;

/// Larger objects are refused.
const MAX_OBJECT_BYTES: usize = 64 << 20;
/// How much of a line before the current object is kept to show it in errors.
const MAX_LINE_CONTEXT_BYTES: usize = 4096;

/// One object of the stream.
#[derive(Debug, PartialEq)]
pub(crate) enum Input {
    /// Named containers, for the jobs after it.
    Containers(Vec<(String, ContainerSpec)>),
    /// A job.
    Job(Box<JobSpec>),
}

/// Why the stream cannot be read on.
#[derive(Debug, Error)]
pub(crate) enum InputError {
    #[error("reading {name}: {error}")]
    Read { name: String, error: io::Error },
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// A program and arguments from the command line, which replace those of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
}

/// Reads concatenated JSON objects, each as soon as its last brace is there and not a byte beyond
/// what one `read` of the source returns.
pub(crate) struct Inputs<R: Read> {
    name: String,
    values: serde_json::StreamDeserializer<'static, IoRead<Recorder<R>>, Box<RawValue>>,
    recording: Rc<RefCell<Recording>>,
    command_line: Option<CommandLine>,
}

impl<R: Read> Inputs<R> {
    /// `name` is what errors call the source.
    pub(crate) fn new(name: impl Into<String>, source: R) -> Self {
        Self::with_limit(name, source, MAX_OBJECT_BYTES)
    }

    fn with_limit(name: impl Into<String>, source: R, max_object_bytes: usize) -> Self {
        let recording = Rc::new(RefCell::new(Recording::default()));
        let recorder = Recorder {
            source: BufReader::new(source),
            recording: recording.clone(),
            max_object_bytes,
        };
        Inputs {
            name: name.into(),
            values: serde_json::Deserializer::from_reader(recorder).into_iter(),
            recording,
            command_line: None,
        }
    }

    /// Replaces the program and arguments of all jobs.
    pub(crate) fn with_command_line(mut self, command_line: Option<CommandLine>) -> Self {
        self.command_line = command_line;
        self
    }

    /// The next object; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Input>, InputError> {
        let Some(result) = self.values.next() else {
            return Ok(None);
        };
        let mut recording = self.recording.borrow_mut();
        let raw = match result {
            Ok(raw) => raw,
            Err(error) if error.is_io() => {
                return Err(InputError::Read {
                    name: self.name.clone(),
                    error: error.into(),
                });
            }
            Err(error) => return Err(recording.syntax_error(&self.name, &error).into()),
        };
        // What was read ends with the value, or for a number with the byte after it.
        let mut start = recording.text.len().saturating_sub(raw.get().len());
        if !recording.text.ends_with(raw.get().as_bytes()) {
            start = start.saturating_sub(1);
        }
        let input = parse_json(raw.get())
            .and_then(|node| parse_input(node, self.command_line.as_ref()))
            .map_err(|problem| recording.error(&self.name, start, problem))?;
        recording.trim();
        Ok(Some(input))
    }
}

fn parse_input(node: Node, command_line: Option<&CommandLine>) -> Result<Input, Problem> {
    let options = ParseOptions::default();
    if let Value::Table(entries) = &node.value
        && let [entry] = &entries[..]
        && entry.key == "containers"
    {
        let containers = parse_containers(&entry.value, options)?;
        let containers = containers.into_iter().map(|(name, (spec, _))| (name, spec));
        return Ok(Input::Containers(containers.collect()));
    }
    let Some(command_line) = command_line else {
        return Ok(Input::Job(Box::new(parse_job(&node, options)?)));
    };
    let mut job = parse_job(&with_program(node), options)?;
    job.program.clone_from(&command_line.program);
    job.arguments.clone_from(&command_line.arguments);
    Ok(Input::Job(Box::new(job)))
}

/// A job whose program is replaced anyway need not name one.
fn with_program(mut node: Node) -> Node {
    if let Value::Table(entries) = &mut node.value
        && entries.iter().all(|entry| entry.key != "program")
    {
        let span = node.span.clone();
        entries.push(Entry {
            key: "program".into(),
            key_span: span.clone(),
            value: Node {
                value: Value::String(String::new()),
                span,
            },
        });
    }
    node
}

/// Passes bytes on one at a time, so that exactly those are recorded that were looked at.
struct Recorder<R> {
    source: BufReader<R>,
    recording: Rc<RefCell<Recording>>,
    max_object_bytes: usize,
}

impl<R: Read> Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(first) = buffer.get_mut(..1) else {
            return Ok(0);
        };
        let count = self.source.read(first)?;
        let mut recording = self.recording.borrow_mut();
        if recording.text.len() >= self.max_object_bytes {
            return Err(io::Error::other(format!(
                "an object is larger than {} MiB",
                self.max_object_bytes >> 20
            )));
        }
        recording.text.extend_from_slice(&first[..count]);
        Ok(count)
    }
}

/// The text since the last object, from the beginning of its line on, and where that is.
struct Recording {
    text: Vec<u8>,
    line: usize,
    column: usize,
}

impl Default for Recording {
    fn default() -> Self {
        Recording {
            text: Vec::new(),
            line: 1,
            column: 1,
        }
    }
}

impl Recording {
    /// A problem with the object that begins at byte `start`.
    fn error(&self, name: &str, start: usize, problem: Problem) -> SourceError {
        let before = String::from_utf8_lossy(&self.text[..start]);
        let shift = before.len();
        let text = before + String::from_utf8_lossy(&self.text[start..]);
        let problem = Problem {
            span: shift + problem.span.start..shift + problem.span.end,
            ..problem
        };
        Source::new(name, &text)
            .starting_at(self.line, self.column)
            .error(problem)
    }

    /// A problem with the last byte that was read.
    fn syntax_error(&self, name: &str, error: &serde_json::Error) -> SourceError {
        let message = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let message = message.strip_suffix(&place).unwrap_or(&message);
        let last = self.text.len().saturating_sub(usize::from(!error.is_eof()));
        let problem = if error.is_eof() {
            Problem::new(0..1, format!("the input ends too early: {message}"))
        } else {
            Problem::new(0..1, format!("malformed JSON: {message}"))
        };
        self.error(name, last, problem)
    }

    /// Forgets an object, but not the beginning of the line that the next one may stand in.
    fn trim(&mut self) {
        let newline = self.text.iter().rposition(|byte| *byte == b'\n');
        let kept = newline.map_or(0, |newline| newline + 1);
        if let Some(newline) = newline {
            let lines = self.text[..=newline].iter().filter(|byte| **byte == b'\n');
            self.line += lines.count();
            self.column = 1;
        }
        self.text.drain(..kept);
        if self.text.len() > MAX_LINE_CONTEXT_BYTES {
            self.column += String::from_utf8_lossy(&self.text).chars().count();
            self.text.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{io::Write as _, os::unix::net::UnixStream};

    /// The programs of the jobs and the names of containers, up to the end or an error.
    fn read(text: &[u8]) -> (Vec<String>, Option<String>) {
        let mut inputs = Inputs::new("stdin", text);
        let mut found = Vec::new();
        loop {
            match inputs.next() {
                Ok(None) => return (found, None),
                Ok(Some(Input::Job(job))) => found.push(job.program),
                Ok(Some(Input::Containers(containers))) => {
                    found.extend(containers.into_iter().map(|(name, _)| format!("[{name}]")));
                }
                Err(error) => return (found, Some(error.to_string())),
            }
        }
    }

    fn error(text: &str) -> String {
        read(text.as_bytes()).1.expect(text)
    }

    #[test]
    fn objects_may_be_separated_by_anything_blank_or_nothing() {
        for text in [
            r#"{"program":"a"}{"containers":{"c":{},"b":{"user":1}}}{"program":"d"}"#,
            " \n{\"program\"\n:\"a\"}\t\r\n {\"containers\":{\"c\":{},\"b\":{}}}\n{\"program\":\"d\"}\n\n",
        ] {
            assert_eq!(
                read(text.as_bytes()),
                (["a", "[b]", "[c]", "d"].map(str::to_owned).into(), None)
            );
        }
        assert_eq!(read(b""), (vec![], None));
        assert_eq!(read(b" \n"), (vec![], None));
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, expected) in [
            (
                "{\"program\": x}",
                "stdin:1:13: malformed JSON: expected value\n  |\n1 | {\"program\": x\n  |             ^",
            ),
            (
                "{\"program\": \"a\"}\n\n {\"program\":\n  1}",
                "stdin:4:3: expected a string, found an integer\n  |\n4 |   1}\n  |   ^",
            ),
            (
                "{\"program\": \"a\"} {\"program\": 1}",
                "stdin:1:30: expected a string",
            ),
            (
                "{\"program\": \"é\"} {\"program\": 1}",
                "stdin:1:30: expected a string",
            ),
            (
                "{\"containers\": 1}",
                "stdin:1:16: expected a table, found an integer",
            ),
            (
                "{\"containers\": {}, \"program\": \"a\"}",
                "stdin:1:2: unknown key `containers` in a job",
            ),
            (
                "{\"containers\": {\"c\": {\"x\": 1}}}",
                "stdin:1:23: unknown key `x` in a container",
            ),
            (
                "[{\"program\": \"a\"}]",
                "stdin:1:1: expected a job (a table), found a list",
            ),
            (
                "1 ",
                "stdin:1:1: expected a job (a table), found an integer",
            ),
            (
                "{\"program\": \"a\"},",
                "stdin:1:17: malformed JSON: expected value",
            ),
            (
                "{\"program\": \"a\"",
                "stdin:1:16: the input ends too early: EOF while parsing an object",
            ),
            ("{}", "stdin:1:1: missing key `program` in a job"),
        ] {
            let error = error(text);
            assert!(error.starts_with(expected), "{text}:\n{error}");
        }
    }

    #[test]
    fn what_is_before_a_mistake_counts() {
        let (found, error) = read(b"{\"program\":\"a\"}\nx");
        assert_eq!(found, ["a"]);
        assert!(error.unwrap().starts_with("stdin:2:1: malformed JSON"));
    }

    #[test]
    fn long_lines_of_objects_are_counted_and_not_kept() {
        let text = "{\"program\":\"é\"} ".repeat(2000) + "{\"program\":1}";
        let error = error(&text);
        assert!(
            error.starts_with(&format!("stdin:1:{}: ", 2000 * 16 + 12)),
            "{error}"
        );
    }

    #[test]
    fn input_that_is_not_utf8() {
        let error = read(b"{\"program\": \"\xff\"}").1.unwrap();
        assert!(error.starts_with("stdin:1:1"), "{error}");
        let error = read(b"\xff").1.unwrap();
        assert!(error.starts_with("stdin:1:1: malformed JSON"), "{error}");
    }

    #[test]
    fn objects_are_there_before_the_stream_goes_on() {
        let (mut writer, reader) = UnixStream::pair().unwrap();
        let mut inputs = Inputs::new("stdin", reader);
        for program in ["a", "b"] {
            write!(writer, "{{\"program\": \"{program}\"}}").unwrap();
            match inputs.next().unwrap() {
                Some(Input::Job(job)) => assert_eq!(job.program, program),
                other => panic!("{other:?}"),
            }
        }
        drop(writer);
        assert_eq!(inputs.next().unwrap(), None);
    }

    #[test]
    fn the_command_line_replaces_program_and_arguments() {
        for text in [
            r#"{"program": "a", "arguments": ["b"], "user": 1}"#,
            r#"{"user": 1}"#,
        ] {
            let command_line = CommandLine {
                program: "sh".into(),
                arguments: vec!["-c".into()],
            };
            let mut inputs =
                Inputs::new("stdin", text.as_bytes()).with_command_line(Some(command_line));
            let Some(Input::Job(job)) = inputs.next().unwrap() else {
                panic!();
            };
            assert_eq!(
                (&*job.program, &job.arguments[..]),
                ("sh", &["-c".to_owned()][..])
            );
            assert_eq!(job.container.user, Some(1));
        }
    }

    #[test]
    fn objects_without_end_are_refused() {
        let endless = io::Read::chain(&b"{\"program\": \""[..], io::repeat(b'a'));
        let mut inputs = Inputs::with_limit("stdin", endless, 1 << 20);
        let error = inputs.next().unwrap_err().to_string();
        assert_eq!(error, "reading stdin: an object is larger than 1 MiB");
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "([{}\\[\\]:,\"a-z0-9é\n ]|\\{\"program\": \"a\"\\}|\"containers\")*") {
            read(text.as_bytes());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            read(&bytes);
            read(&[b"{\"program\": \"a\"} ", &bytes[..]].concat());
        }
    }
}
