//! Jobs to put on a mesh, and the check that each was reported once.

use std::{fmt::Write, time::Duration};

/// On the command line of every job's process.
pub const MARK: &str = "lab-job";

/// The input of `maelstrom-run` for jobs that sleep and then say their number, from 0.
pub fn sleeping(durations: impl IntoIterator<Item = Duration>) -> String {
    let mut input = String::from(
        r#"{"containers": {"base": {
            "layers": [{"programs": ["sh", "sleep"]}],
            "environment": {"PATH": "$env{PATH}"}}}}"#,
    );
    input.push('\n');
    for (number, duration) in durations.into_iter().enumerate() {
        let seconds = duration.as_secs_f64();
        let _ = writeln!(
            input,
            r#"{{"parent": "base", "program": "sh", "arguments": ["-c", "sleep {seconds}; echo job {number}", "{MARK}"]}}"#
        );
    }
    input
}

/// What is wrong with what `maelstrom-run` wrote about so many jobs that say their number. Empty:
/// each was reported exactly once, and as successful.
pub fn check(count: usize, stdout: &str, stderr: &str) -> Vec<String> {
    let mut reports = vec![0; count];
    let mut wrong = Vec::new();
    for line in stdout.lines() {
        let number = line.strip_prefix("job ").and_then(|n| n.parse().ok());
        match number.and_then(|number: usize| reports.get_mut(number)) {
            Some(times) => *times += 1,
            None => wrong.push(format!("unexpected output: {line}")),
        }
    }
    let numbers = |wanted: fn(i32) -> bool| {
        let found = (0..count).filter(|number| wanted(reports[*number]));
        found.map(|number| number.to_string()).collect::<Vec<_>>()
    };
    let lost = numbers(|times| times == 0);
    if !lost.is_empty() {
        wrong.push(format!("never reported: jobs {}", lost.join(", ")));
    }
    let twice = numbers(|times| times > 1);
    if !twice.is_empty() {
        wrong.push(format!(
            "reported more than once: jobs {}",
            twice.join(", ")
        ));
    }
    wrong.extend(
        stderr
            .lines()
            .filter(|line| line.starts_with("job ") || line.starts_with("Error"))
            .map(str::to_owned),
    );
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_counted() {
        assert!(check(3, "job 1\njob 0\njob 2\n", "a warning\n").is_empty());
        let wrong = check(3, "job 1\njob 1\njob 7\n", "job 0: exited with code 1\n");
        assert_eq!(
            wrong,
            [
                "unexpected output: job 7",
                "never reported: jobs 0, 2",
                "reported more than once: jobs 1",
                "job 0: exited with code 1",
            ]
        );
    }

    #[test]
    fn jobs_are_valid_input() {
        let input = sleeping([Duration::from_millis(1500), Duration::ZERO]);
        let objects: Vec<serde_json::Value> = serde_json::Deserializer::from_str(&input)
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(objects.len(), 3);
        assert_eq!(objects[1]["arguments"][1], "sleep 1.5; echo job 0");
    }
}
