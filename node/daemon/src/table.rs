//! The mesh for people to read.

use crate::report::Report;
use maelstrom_mesh::MemberStatus;
use maelstrom_runner::size::ByteSize;
use std::{fmt::Write as _, time::Duration};
use unicode_width::UnicodeWidthStr as _;

/// How many lines of one kind are shown; the rest is counted.
const MAX_ROWS: usize = 200;

/// The daemon and the mesh as it sees it, as lines of text.
pub(crate) fn show(report: &Report) -> String {
    let mut text = String::new();
    header(&mut text, report);
    text.push('\n');
    members(&mut text, report);
    running(&mut text, report);
    layers(&mut text, report);
    refused(&mut text, report);
    text
}

fn header(text: &mut String, report: &Report) {
    let mesh = &report.mesh;
    let this = &mesh.this;
    let lends = match (&report.owner_active, mesh.lends) {
        (Some(why), _) => format!("not lent now: {why}"),
        (None, true) => "lent".to_owned(),
        (None, false) => "not lent".to_owned(),
    };
    line(
        text,
        format_args!(
            "{} ({}), version {}, up {}, process {}",
            this.name,
            short(&this.id),
            this.version,
            duration(Duration::from_secs(report.up_seconds)),
            report.pid
        ),
    );
    line(text, format_args!("lending: {} ({lends})", this.lending));
    line(
        text,
        format_args!(
            "mesh key {}, {}; coordinator: {}",
            report.mesh_key,
            count(mesh.members.len() + 1, "member"),
            coordinator(report)
        ),
    );
    line(
        text,
        format_args!(
            "{} on this machine, {} unfinished, {} of other nodes in use",
            count(report.sessions, "client"),
            count_u64(mesh.jobs_unfinished, "job"),
            count_u64(mesh.slots_held, "slot"),
        ),
    );
}

fn coordinator(report: &Report) -> String {
    let mesh = &report.mesh;
    let Some(id) = &mesh.coordinator else {
        return "none".to_owned();
    };
    std::iter::once(&mesh.this)
        .chain(&mesh.members)
        .find(|member| member.id == *id)
        .map_or_else(|| short(id).to_owned(), |member| member.name.clone())
}

fn members(text: &mut String, report: &Report) {
    let head = [
        "MEMBER", "ID", "FREE", "SLOTS", "QUEUE", "LENDING", "ARCH", "VERSION", "ADDRESS", "LABELS",
    ];
    let row = |member: &MemberStatus, mark: &str| {
        let address = member.addresses.first();
        vec![
            format!("{}{mark}", member.name),
            short(&member.id).to_owned(),
            member.slots_free.to_string(),
            member.slots.to_string(),
            member.jobs_queued.to_string(),
            member.lending.clone(),
            member.architecture.clone(),
            member.version.clone(),
            address.map_or("-".to_owned(), ToString::to_string),
            member.labels.join(","),
        ]
    };
    let mesh = &report.mesh;
    let mut rows = vec![row(&mesh.this, " *")];
    rows.extend(
        mesh.members
            .iter()
            .take(MAX_ROWS)
            .map(|member| row(member, "")),
    );
    table(text, &head, &[2, 3, 4], &rows);
    more(text, mesh.members.len());
}

fn running(text: &mut String, report: &Report) {
    let running = &report.mesh.running;
    if running.is_empty() {
        return;
    }
    text.push('\n');
    let rows: Vec<Vec<String>> = running
        .iter()
        .take(MAX_ROWS)
        .map(|job| {
            let of = if job.origin_name.is_empty() {
                short(&job.origin)
            } else {
                &job.origin_name
            };
            vec![
                job.job.to_string(),
                of.to_owned(),
                duration(Duration::from_millis(job.for_ms)),
                job.program.clone(),
            ]
        })
        .collect();
    table(
        text,
        &["RUNNING HERE", "OF", "FOR", "PROGRAM"],
        &[0, 2],
        &rows,
    );
    more(text, running.len());
}

fn layers(text: &mut String, report: &Report) {
    let mesh = &report.mesh;
    text.push('\n');
    line(
        text,
        format_args!(
            "layers: {} in {} (at most {}); receiving {}/s, sending {}/s",
            mesh.layers,
            report.store.display(),
            ByteSize(report.cache_size_bytes),
            ByteSize(mesh.received_bytes_per_second),
            ByteSize(mesh.sent_bytes_per_second),
        ),
    );
    for pull in mesh.pulls.iter().take(MAX_ROWS) {
        let total = match pull.bytes_total {
            0 => "?".to_owned(),
            bytes => ByteSize(bytes).to_string(),
        };
        line(
            text,
            format_args!(
                "  pulling {}: {} of {total} from {}",
                short(&pull.layer),
                ByteSize(pull.bytes_done),
                count_u64(pull.providers, "node"),
            ),
        );
    }
    more(text, mesh.pulls.len());
}

fn refused(text: &mut String, report: &Report) {
    let refused = &report.mesh.refused;
    if refused.is_empty() {
        return;
    }
    text.push('\n');
    let rows: Vec<Vec<String>> = refused
        .iter()
        .take(MAX_ROWS)
        .map(|refused| {
            vec![
                refused.who.clone(),
                refused.times.to_string(),
                refused.reason.clone(),
            ]
        })
        .collect();
    table(text, &["TURNED AWAY", "TIMES", "WHY"], &[1], &rows);
    more(text, refused.len());
}

/// Columns as wide as what is in them; those of numbers are aligned to the right.
fn table(text: &mut String, head: &[&str], numbers: &[usize], rows: &[Vec<String>]) {
    let clean: Vec<Vec<String>> =
        std::iter::once(head.iter().map(|&cell| cell.to_owned()).collect())
            .chain(rows.iter().cloned())
            .map(|row: Vec<String>| row.iter().map(|cell| printable(cell)).collect())
            .collect();
    let width = |column: usize| {
        clean
            .iter()
            .map(|row| row[column].width())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for row in &clean {
        let mut out = String::new();
        for (column, cell) in row.iter().enumerate() {
            let space = " ".repeat(widths[column] - cell.width());
            let gap = if column == 0 { "" } else { "  " };
            if numbers.contains(&column) {
                let _ = write!(out, "{gap}{space}{cell}");
            } else {
                let _ = write!(out, "{gap}{cell}{space}");
            }
        }
        line(text, format_args!("{}", out.trim_end()));
    }
}

/// What others say of themselves cannot move the cursor.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{}", printable(&words.to_string()));
}

fn more(text: &mut String, all: usize) {
    if let Some(more) = all.checked_sub(MAX_ROWS).filter(|more| *more > 0) {
        line(text, format_args!("... and {more} more"));
    }
}

/// Enough of an id to tell nodes apart.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

fn count(number: usize, what: &str) -> String {
    count_u64(number as u64, what)
}

fn count_u64(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maelstrom_mesh::{PullStatus, RefusalStatus, RunningJob, Status};

    fn member(name: &str, id: u8, slots: u16, slots_free: u16) -> MemberStatus {
        MemberStatus {
            id: format!("{id:02x}").repeat(32),
            name: name.to_owned(),
            slots,
            slots_free,
            jobs_queued: 12,
            architecture: "x86_64".to_owned(),
            labels: vec!["gpu".to_owned(), "big".to_owned()],
            lending: "always".to_owned(),
            version: "0.1.0".to_owned(),
            addresses: vec!["10.0.0.1:7357".parse().unwrap()],
        }
    }

    fn report() -> Report {
        Report {
            format: 1,
            pid: 77,
            up_seconds: 7384,
            store: "/var/cache/maelstrom".into(),
            cache_size_bytes: 10_000_000_000,
            sessions: 1,
            mesh_key: "0badcafe".to_owned(),
            mesh: Status {
                this: member("desk", 1, 4, 3),
                members: vec![member("build-server-7", 2, 128, 100)],
                coordinator: Some("02".repeat(32)),
                lends: true,
                running: vec![RunningJob {
                    origin: "02".repeat(32),
                    origin_name: "build-server-7".to_owned(),
                    job: 17,
                    program: "/target/debug/deps/a-1".to_owned(),
                    for_ms: 1234,
                }],
                slots_held: 5,
                jobs_unfinished: 40,
                layers: 3,
                pulls: vec![PullStatus {
                    layer: "ab".repeat(32),
                    bytes_done: 1_000_000,
                    bytes_total: 50_000_000,
                    providers: 2,
                }],
                received_bytes_per_second: 12_000_000,
                sent_bytes_per_second: 0,
                refused: vec![RefusalStatus {
                    who: "10.9.9.9:4242".to_owned(),
                    reason: "it has another mesh key".to_owned(),
                    times: 3,
                }],
            },
            ..Report::default()
        }
    }

    #[test]
    fn everything_is_shown_in_columns() {
        let expected = "\
desk (01010101), version 0.1.0, up 2 h 3 min, process 77
lending: always (lent)
mesh key 0badcafe, 2 members; coordinator: build-server-7
1 client on this machine, 40 jobs unfinished, 5 slots of other nodes in use

MEMBER          ID        FREE  SLOTS  QUEUE  LENDING  ARCH    VERSION  ADDRESS        LABELS
desk *          01010101     3      4     12  always   x86_64  0.1.0    10.0.0.1:7357  gpu,big
build-server-7  02020202   100    128     12  always   x86_64  0.1.0    10.0.0.1:7357  gpu,big

RUNNING HERE  OF                FOR  PROGRAM
          17  build-server-7  1.2 s  /target/debug/deps/a-1

layers: 3 in /var/cache/maelstrom (at most 10.0 GB); receiving 12.0 MB/s, sending 0 B/s
  pulling abababab: 1.0 MB of 50.0 MB from 2 nodes

TURNED AWAY    TIMES  WHY
10.9.9.9:4242      3  it has another mesh key
";
        assert_eq!(show(&report()), expected);
    }

    #[test]
    fn names_of_others_cannot_move_the_cursor() {
        let mut report = report();
        report.mesh.members[0].name = "a\u{1b}[2Jb\n".to_owned();
        report.mesh.refused[0].reason = "\r".to_owned();
        let text = show(&report);
        assert!(!text.contains(['\u{1b}', '\r']), "{text:?}");
    }

    #[test]
    fn a_large_mesh_is_cut() {
        let mut report = report();
        report.mesh.members = vec![member("m", 3, 1, 1); 10_000];
        let text = show(&report);
        assert!(text.contains("... and 9800 more"));
        assert!(text.lines().count() < 250);
    }

    #[test]
    fn the_report_comes_back_from_json() {
        let text = serde_json::to_string(&report()).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report());
    }
}
