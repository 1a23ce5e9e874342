//! What this machine lacks for containers, and how to enable it.

use crate::{
    ContainerJob, ContainerMount, JobNetwork, Launcher, Privileges, Root, StartError, sys::Failure,
};
use maelstrom_spec::{Device, JobError};
use rustix::io::Errno;
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// One thing that containers need, and whether this machine has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was tried.
    pub what: String,
    /// What came of it.
    pub result: FindingResult,
}

/// What came of trying something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindingResult {
    /// It works.
    Works,
    /// It does not, and no container can be made that needs it.
    Fails {
        /// The kernel's answer.
        why: String,
        /// What to do about it. May have several lines.
        advice: String,
    },
    /// It is not there, and containers do without it.
    Absent {
        /// What is lost.
        consequence: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            FindingResult::Works => write!(f, "ok      {}", self.what),
            FindingResult::Absent { consequence } => {
                write!(f, "absent  {}: {consequence}", self.what)
            }
            FindingResult::Fails { why, advice } => {
                write!(f, "FAILS   {}: {why}", self.what)?;
                for line in advice.lines() {
                    write!(f, "\n        {line}")?;
                }
                Ok(())
            }
        }
    }
}

/// Tries everything that containers are made of, by making some.
///
/// # Errors
///
/// If no scratch directory can be made below the system's directory for temporary files.
pub fn check(launcher: &Launcher) -> io::Result<Vec<Finding>> {
    let scratch = Scratch::new()?;
    let mut findings = Vec::new();
    let mut slot = match launcher.slot(scratch.0.clone()) {
        Ok(slot) => slot,
        Err(error) => {
            let (why, advice) = match error {
                StartError::Unsupported { message, advice } => (message, advice),
                other => (other.to_string(), String::new()),
            };
            findings.push(Finding {
                what: "namespaces for users and mounts".to_owned(),
                result: FindingResult::Fails { why, advice },
            });
            return Ok(findings);
        }
    };
    findings.push(Finding {
        what: "namespaces for users and mounts".to_owned(),
        result: FindingResult::Works,
    });
    let at = |path: &str| PathBuf::from(path);
    let devices: Vec<_> = [
        Device::Full,
        Device::Null,
        Device::Random,
        Device::Urandom,
        Device::Zero,
    ]
    .into_iter()
    .map(ContainerMount::device)
    .collect();
    let base = ContainerJob {
        program: "/nothing".to_owned(),
        layers: vec![scratch.0.join("lower")],
        ..ContainerJob::default()
    };
    let with = |mounts: Vec<ContainerMount>| ContainerJob {
        mounts,
        ..base.clone()
    };
    let trials = [
        (
            "processes, networks and a read-only root of layers (overlayfs)",
            base.clone(),
        ),
        (
            "a root that can be written to",
            ContainerJob {
                root: Root::Discard,
                ..base.clone()
            },
        ),
        (
            "a loopback network",
            ContainerJob {
                network: JobNetwork::Loopback,
                privileges: Privileges::None,
                user: 1000,
                group: 1000,
                ..base.clone()
            },
        ),
        (
            "mounting proc",
            with(vec![ContainerMount::Proc {
                mount_point: at("/proc"),
            }]),
        ),
        (
            "mounting sysfs",
            with(vec![ContainerMount::Sys {
                mount_point: at("/sys"),
            }]),
        ),
        (
            "mounting tmpfs",
            with(vec![ContainerMount::Tmp {
                mount_point: at("/tmp"),
            }]),
        ),
        (
            "mounting devpts",
            with(vec![ContainerMount::Devpts {
                mount_point: at("/tmp"),
            }]),
        ),
        (
            "mounting mqueue",
            with(vec![ContainerMount::Mqueue {
                mount_point: at("/tmp"),
            }]),
        ),
        ("devices", with(devices)),
    ];
    for (what, job) in trials {
        // Everything up to the program is in place when the kernel says that there is none.
        let result = match slot.run(&job) {
            Err(error)
                if matches!(&error.error, JobError::Execution(message)
                    if message.starts_with("executing /nothing")) =>
            {
                FindingResult::Works
            }
            Err(error) => {
                let why = error.error.to_string();
                let advice = advice_for_text(&why);
                FindingResult::Fails { why, advice }
            }
            Ok(_) => FindingResult::Works,
        };
        findings.push(Finding {
            what: what.to_owned(),
            result,
        });
    }
    findings.push(Finding {
        what: "limits on memory and processes of a job (cgroups)".to_owned(),
        result: match crate::cgroup::available() {
            Ok(()) => FindingResult::Works,
            Err(consequence) => FindingResult::Absent { consequence },
        },
    });
    Ok(findings)
}

/// A directory with a layer of mount points.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        // More than one check may be going on in a process.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("maelstrom-check-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        for directory in ["proc", "sys", "tmp", "dev"] {
            fs::create_dir_all(path.join("lower").join(directory))?;
        }
        for device in ["full", "null", "random", "urandom", "zero"] {
            fs::write(path.join("lower/dev").join(device), "")?;
        }
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What to do about a step that failed.
pub(crate) fn advice(failure: &Failure) -> String {
    advise(&failure.doing, failure.errno, &|path| {
        fs::read_to_string(path).ok()
    })
}

/// The same for a failure that has become a sentence.
fn advice_for_text(text: &str) -> String {
    let errno = [Errno::PERM, Errno::ACCESS, Errno::NODEV, Errno::NOSYS]
        .into_iter()
        .find(|errno| text.ends_with(&crate::sys::describe(*errno)))
        .unwrap_or(Errno::INVAL);
    advise(text, errno, &|path| fs::read_to_string(path).ok())
}

fn advise(doing: &str, errno: Errno, read: &dyn Fn(&Path) -> Option<String>) -> String {
    let setting =
        |name: &str| read(&Path::new("/proc/sys").join(name)).map(|value| value.trim().to_owned());
    let refused = matches!(errno, Errno::PERM | Errno::ACCESS | Errno::NOSPC);
    let mut advice = Vec::new();
    if refused {
        if setting("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
            advice.push(
                "This kernel refuses user namespaces to ordinary users. To allow them:\n  \
                 sudo sysctl -w kernel.unprivileged_userns_clone=1"
                    .to_owned(),
            );
        }
        if setting("user/max_user_namespaces").as_deref() == Some("0") {
            advice.push(
                "The limit on user namespaces is 0. To raise it:\n  \
                 sudo sysctl -w user.max_user_namespaces=15000"
                    .to_owned(),
            );
        }
        if setting("kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
            advice.push(
                "AppArmor takes the privileges of user namespaces away. To allow them:\n  \
                 sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
                    .to_owned(),
            );
        }
    }
    if doing.contains("proc") && refused && advice.is_empty() {
        advice.push(
            "Parts of /proc are hidden on this machine, as they are inside of most containers, \
             and the kernel then refuses a new one.\nIf this is a Docker or Podman container, \
             start it with --security-opt systempaths=unconfined."
                .to_owned(),
        );
    }
    if doing.contains("overlay") && errno == Errno::NODEV {
        advice
            .push("This kernel has no overlayfs. To load it:\n  sudo modprobe overlay".to_owned());
    }
    if doing.contains("overlay") && refused && advice.is_empty() {
        advice.push(
            "Overlayfs in user namespaces needs Linux 5.11 or later, and a layer directory that \
             is not on an overlay itself."
                .to_owned(),
        );
    }
    if errno == Errno::NOSYS {
        advice.push("This kernel is too old: Linux 5.12 or later is needed.".to_owned());
    }
    if matches!(errno, Errno::MFILE | Errno::NFILE) {
        advice.push("Too many files are open. To raise the limit:\n  ulimit -n 65536".to_owned());
    }
    if refused && advice.is_empty() {
        advice.push(
            "If this is a container, its system call filter is the likely reason: start it with \
             --security-opt seccomp=unconfined."
                .to_owned(),
        );
    }
    advice.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice_where(name: &'static str, value: &'static str) -> String {
        advise("creating a user namespace", Errno::PERM, &move |path| {
            path.ends_with(name).then(|| value.to_owned())
        })
    }

    #[test]
    fn every_switch_is_named_with_its_command() {
        for (name, value) in [
            ("kernel/unprivileged_userns_clone", "0\n"),
            ("user/max_user_namespaces", "0\n"),
            ("kernel/apparmor_restrict_unprivileged_userns", "1\n"),
        ] {
            let advice = advice_where(name, value);
            assert!(
                advice.contains(&format!("sysctl -w {}", name.replace('/', "."))),
                "{advice}"
            );
        }
    }

    #[test]
    fn a_filter_is_suspected_where_nothing_is_switched_off() {
        assert!(advice_where("nothing", "").contains("seccomp=unconfined"));
        let proc = advise("mounting proc on /proc", Errno::PERM, &|_| None);
        assert!(proc.contains("systempaths=unconfined"), "{proc}");
        let overlay = advise("opening overlayfs", Errno::NODEV, &|_| None);
        assert!(overlay.contains("modprobe overlay"), "{overlay}");
    }
}
