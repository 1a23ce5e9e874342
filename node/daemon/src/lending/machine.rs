//! What can be seen of a machine's use, from the files of its kernel.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

/// The processor time that all processes together have used since the machine was switched on,
/// in clock ticks, from the text of `/proc/stat`.
pub(crate) fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    // user, nice, system, (idle, waiting for disks), interrupts, soft interrupts. What guests use
    // is in the first two already; what other machines on the same processor use is not ours.
    let [user, nice, system, _idle, _waiting, hard, soft, ..] = fields[..] else {
        return None;
    };
    Some(user + nice + system + hard + soft)
}

/// The processor time of a process and of all its descendants, those that have ended included,
/// in clock ticks. A process that ends takes its time to its parent, so that nothing is lost as
/// long as each is waited for.
pub(crate) fn ticks_of_tree(proc: &Path, root: u32) -> u64 {
    let mut ticks = 0;
    let mut left = vec![root];
    while let Some(process) = left.pop() {
        let directory = proc.join(process.to_string());
        let stat = fs::read_to_string(directory.join("stat")).unwrap_or_default();
        ticks += ticks_in(&stat).unwrap_or(0);
        for thread in fs::read_dir(directory.join("task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            left.extend(
                children
                    .split_ascii_whitespace()
                    .filter_map(|child| child.parse::<u32>().ok()),
            );
        }
    }
    ticks
}

/// The time of a process and of the children that it has waited for, from the text of its `stat`.
fn ticks_in(stat: &str) -> Option<u64> {
    // The name in parentheses may contain anything, parentheses too.
    let behind_name = stat.rsplit_once(')')?.1;
    let times: Vec<u64> = behind_name
        .split_ascii_whitespace()
        .skip(11)
        .take(4)
        .map_while(|field| field.parse().ok())
        .collect();
    (times.len() == 4).then(|| times.iter().sum())
}

/// Whether a machine runs on a battery, from the directory `/sys/class/power_supply`: one of its
/// own is being emptied, and it is plugged in nowhere. Batteries of mice do not count.
pub(crate) fn on_battery(supplies: &Path) -> bool {
    let mut discharging = false;
    for supply in fs::read_dir(supplies).into_iter().flatten().flatten() {
        let read = |name| fs::read_to_string(supply.path().join(name)).unwrap_or_default();
        match read("type").trim() {
            "Battery" if read("scope").trim() != "Device" => {
                discharging |= read("status").trim() == "Discharging";
            }
            "Mains" | "USB" | "Wireless" if read("online").trim() == "1" => return false,
            _ => {}
        }
    }
    discharging
}

/// Since when nobody has typed on a terminal, console or window: whatever reads what was typed
/// sets the time of last access, to within eight seconds. `dev` is `/dev`.
pub(crate) fn input_ago(dev: &Path, now: SystemTime) -> Option<Duration> {
    let terminals = numbered(&dev.join("pts"), "");
    let consoles = numbered(dev, "tty");
    terminals
        .chain(consoles)
        .filter_map(|path| {
            let metadata = fs::metadata(path).ok()?;
            let seconds = u64::try_from(metadata.atime()).ok()?;
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        })
        .max()
        .map(|last| now.duration_since(last).unwrap_or_default())
}

/// The entries of a directory whose names are this prefix and a number.
fn numbered(directory: &Path, prefix: &'static str) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(move |entry| {
            entry
                .file_name()
                .to_str()
                .and_then(|name| name.strip_prefix(prefix))
                .is_some_and(|rest| rest.parse::<u16>().is_ok())
        })
        .map(|entry| entry.path())
}

/// Whether logind says that some session is in use. `None`: there is no logind. Desktops tell it
/// after how long without input they count as idle.
pub(crate) fn session_active() -> Option<bool> {
    if !Path::new("/run/systemd/seats").exists() {
        return None;
    }
    let output = Command::new("busctl")
        .args(["--system", "--timeout=2", "get-property"])
        .args(["org.freedesktop.login1", "/org/freedesktop/login1"])
        .args(["org.freedesktop.login1.Manager", "IdleHint"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    is_in_use(&String::from_utf8_lossy(&output.stdout))
}

/// Reads the answer of `busctl` to what the idle hint is.
fn is_in_use(answer: &str) -> Option<bool> {
    match answer.trim() {
        "b false" => Some(true),
        "b true" => Some(false),
        _ => None,
    }
}

/// The text of `/proc/stat`.
pub(crate) fn stat() -> io::Result<String> {
    fs::read_to_string("/proc/stat")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn busy_time_is_read() {
        let stat = "cpu  100 20 30 4000 500 6 7 800 90 10\ncpu0 1 2 3\nintr 5\n";
        assert_eq!(busy_ticks(stat), Some(163));
        assert_eq!(busy_ticks("cpu  1 2 3\n"), None);
        assert_eq!(busy_ticks("cpu0 1 2 3 4 5 6 7\n"), None);
        assert_eq!(busy_ticks(""), None);
        assert!(busy_ticks(&stat_of_this_machine()).is_some());
    }

    fn stat_of_this_machine() -> String {
        super::stat().unwrap()
    }

    #[test]
    fn a_process_s_time_is_read_whatever_its_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 1 2 3 4 100 20 3 4 20 0 1 0 5\n";
        assert_eq!(ticks_in(stat), Some(127));
        assert_eq!(ticks_in("7 (a) S 1 7"), None);
        assert_eq!(ticks_in(""), None);
    }

    #[test]
    fn time_of_descendants_counts_while_they_run_and_afterwards() {
        let proc = Path::new("/proc");
        let before = ticks_of_tree(proc, std::process::id());
        // Until it has used processor time: a grandchild that is waited for by its parent.
        let script = "(i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done) & wait";
        let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        child.wait().unwrap();
        let after = ticks_of_tree(proc, std::process::id());
        assert!(after > before, "{before} and then {after}");
        let mut child = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        let started = Instant::now();
        while ticks_of_tree(proc, std::process::id()) < after + 5 {
            assert!(started.elapsed().as_secs() < 100, "it uses no time");
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The files of a supply.
    type Supply<'a> = &'a [(&'a str, &'a str)];

    /// A directory of supplies.
    fn supplies(supplies: &[Supply<'_>]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (index, files) in supplies.iter().enumerate() {
            let supply = directory.path().join(format!("S{index}"));
            fs::create_dir(&supply).unwrap();
            for (name, text) in *files {
                fs::write(supply.join(name), format!("{text}\n")).unwrap();
            }
        }
        directory
    }

    #[test]
    fn batteries() {
        let mains = |online| [("type", "Mains"), ("online", online)];
        let battery = |status| [("type", "Battery"), ("status", status)];
        let mouse = [
            ("type", "Battery"),
            ("scope", "Device"),
            ("status", "Discharging"),
        ];
        let cases: [(&[Supply<'_>], bool); 8] = [
            (&[], false),
            (&[&battery("Discharging")], true),
            (&[&battery("Discharging"), &mains("0")], true),
            (&[&battery("Discharging"), &mains("1")], false),
            (&[&battery("Charging"), &mains("1")], false),
            (
                &[&battery("Full"), &battery("Discharging"), &mains("0")],
                true,
            ),
            (&[&battery("Not charging"), &mains("1")], false),
            (&[&mouse], false),
        ];
        for (files, expected) in cases {
            let directory = supplies(files);
            assert_eq!(on_battery(directory.path()), expected, "{files:?}");
        }
        assert!(!on_battery(Path::new("/nonexistent")));
    }

    #[test]
    fn the_last_input_on_any_terminal_counts() {
        let dev = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        assert_eq!(input_ago(dev.path(), now), None);
        fs::create_dir(dev.path().join("pts")).unwrap();
        for (name, seconds_ago) in [
            ("pts/0", 50),
            ("pts/ptmx", 0),
            ("tty1", 20),
            ("tty", 1),
            ("null", 0),
        ] {
            let path = dev.path().join(name);
            let file = fs::File::create(path).unwrap();
            let accessed = now - Duration::from_secs(seconds_ago);
            file.set_times(fs::FileTimes::new().set_accessed(accessed))
                .unwrap();
        }
        let ago = input_ago(dev.path(), now).unwrap();
        assert!((20..=21).contains(&ago.as_secs()), "{ago:?}");
        // A clock that was set back.
        let ago = input_ago(dev.path(), now - Duration::from_secs(3600));
        assert_eq!(ago, Some(Duration::ZERO));
    }

    #[test]
    fn answers_of_the_session_manager() {
        assert_eq!(is_in_use("b false\n"), Some(true));
        assert_eq!(is_in_use("b true\n"), Some(false));
        assert_eq!(is_in_use(""), None);
        assert_eq!(is_in_use("Failed to get property"), None);
    }
}
