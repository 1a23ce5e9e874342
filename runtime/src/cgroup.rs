//! Limits on what the jobs of a slot may use, where the machine lets us set them.
//!
//! Each slot has one control group for as long as it lives, and its jobs run in it one after
//! another, so that a job costs nothing extra. With cgroups v2 a group is made where this process
//! already is, if its parent hands the controllers on (as `Delegate=yes` does); with v1 beside
//! this process's group of processes (memory is left out there, since charging a group of its own
//! makes every page fault dearer). Where neither is possible there are no limits but the kernel's
//! own, and those of the group that this process is in, as in a container of a CI service.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A slot's jobs together may have no more processes and threads than this. It stops a fork bomb
/// before the machine suffers.
pub(crate) const PROCESSES_MAX: u64 = 4096;

/// The control groups of one slot.
#[derive(Debug, Default)]
pub(crate) struct Cgroup {
    memory_events: Option<fs::File>,
}

impl Cgroup {
    /// Makes the groups of a slot and moves this process into them. What cannot be made is left
    /// out.
    pub(crate) fn enter(places: &[Place], name: &str) -> Self {
        let shared = events_of_own_groups();
        let mut made = Self::default();
        for place in places {
            let directory = place.directory.join(name);
            if made.make(place, &directory).is_err() {
                let _ = fs::remove_dir(&directory);
            }
        }
        // Where memory is charged to a group that others share, its kills count.
        made.memory_events = made.memory_events.or_else(|| {
            let mut files = shared.iter();
            files.find_map(|path| fs::File::open(path).ok())
        });
        made
    }

    fn make(&mut self, place: &Place, directory: &Path) -> io::Result<()> {
        fs::create_dir(directory)?;
        if place.has_pids {
            fs::write(directory.join("pids.max"), PROCESSES_MAX.to_string())?;
        }
        fs::write(
            directory.join("cgroup.procs"),
            std::process::id().to_string(),
        )?;
        if place.has_memory {
            // Opened now, since the slot's own mount tree will not show it.
            self.memory_events = Some(fs::File::open(directory.join("memory.events"))?);
        }
        Ok(())
    }

    /// How many processes of this slot the kernel has killed for want of memory.
    fn out_of_memory_kills(&self) -> u64 {
        let Some(events) = &self.memory_events else {
            return 0;
        };
        let mut text = [0; 1024];
        match rustix::io::pread(events, &mut text, 0) {
            Ok(length) => kills(&String::from_utf8_lossy(&text[..length])),
            Err(_) => 0,
        }
    }
}

/// Tells apart the kills that one job suffered from those before it.
#[derive(Debug)]
pub(crate) struct MemoryKills {
    cgroup: Cgroup,
    seen: u64,
}

impl MemoryKills {
    pub(crate) fn new(cgroup: Cgroup) -> Self {
        Self {
            seen: cgroup.out_of_memory_kills(),
            cgroup,
        }
    }

    /// Kills until now have nothing to do with the job that starts now.
    pub(crate) fn forget_earlier(&mut self) {
        self.seen = self.cgroup.out_of_memory_kills();
    }

    /// Whether the kernel has killed a process of this slot, or of the group that it shares with
    /// others, for want of memory since the job started.
    pub(crate) fn any(&self) -> bool {
        self.cgroup.out_of_memory_kills() > self.seen
    }
}

/// Reads `oom_kill N` out of a file of events.
fn kills(events: &str) -> u64 {
    events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

/// Whether a slot would get limits. The error says what is lost.
pub(crate) fn available() -> Result<(), String> {
    let writable =
        |place: &Place| rustix::fs::access(&place.directory, rustix::fs::Access::WRITE_OK).is_ok();
    let places = places();
    let has = |what: fn(&Place) -> bool| places.iter().any(|place| what(place) && writable(place));
    let knows_kills = has(|place| place.has_memory)
        || events_of_own_groups()
            .iter()
            .any(|path| fs::File::open(path).is_ok());
    match (has(|place| place.has_pids), knows_kills) {
        (true, true) => Ok(()),
        (pids, memory) => {
            let mut lost = Vec::new();
            if !pids {
                lost.push("a fork bomb is only stopped by the limits of its user");
            }
            if !memory {
                lost.push("a job killed for want of memory is reported as killed by signal 9");
            }
            Err(lost.join("; "))
        }
    }
}

/// Removes the groups that [`Cgroup::enter`] made under a name, once the kernel lets go of them.
pub(crate) fn remove(places: &[Place], name: &str) {
    for place in places {
        let directory = place.directory.join(name);
        for _ in 0..100 {
            match fs::remove_dir(&directory) {
                // Processes that are on their way out still count.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                _ => break,
            }
        }
    }
}

/// Removes the groups of launchers that were killed before they could.
pub(crate) fn remove_abandoned(places: &[Place]) {
    for place in places {
        for entry in fs::read_dir(&place.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            let owner = name
                .to_str()
                .and_then(|name| name.strip_prefix(PREFIX))
                .and_then(|rest| rest.split('-').next());
            if let Some(owner) = owner
                && !Path::new("/proc").join(owner).exists()
            {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// The name of the group of the `index`th slot of this launcher.
pub(crate) fn name(launcher: u32, index: u64) -> String {
    format!("{PREFIX}{launcher}-{index}")
}

const PREFIX: &str = "maelstrom-";

/// Where groups can be made.
#[derive(Debug)]
pub(crate) struct Place {
    directory: PathBuf,
    has_pids: bool,
    has_memory: bool,
}

pub(crate) fn places() -> Vec<Place> {
    let (mounts, memberships) = own_groups();
    places_in(&mounts, &memberships, &|path| {
        fs::read_to_string(path).unwrap_or_default()
    })
}

/// Mounted file systems and the groups of this process, as the kernel lists them.
fn own_groups() -> (String, String) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    (read("/proc/self/mountinfo"), read("/proc/self/cgroup"))
}

/// Where the kernel may tell of processes that it has killed for want of memory in the group that
/// this process is in.
fn events_of_own_groups() -> Vec<PathBuf> {
    let (mounts, memberships) = own_groups();
    groups_in(&mounts, &memberships, "memory")
        .into_iter()
        .map(|group| match group.is_unified {
            true => group.directory.join("memory.events"),
            false => group.directory.join("memory.oom_control"),
        })
        .collect()
}

/// A group that this process is in.
struct Group {
    directory: PathBuf,
    is_unified: bool,
}

/// The groups of a controller, and of the unified hierarchy, which may have it.
fn groups_in(mounts: &str, memberships: &str, controller: &str) -> Vec<Group> {
    let mut groups = Vec::new();
    for mount in mounts.lines() {
        let Some((before, after)) = mount.split_once(" - ") else {
            continue;
        };
        let before: Vec<_> = before.split(' ').collect();
        let after: Vec<_> = after.split(' ').collect();
        let (Some(root), Some(at)) = (before.get(3), before.get(4)) else {
            continue;
        };
        let options = after.get(2).copied().unwrap_or_default();
        let is_unified = after[0] == "cgroup2";
        let membership = memberships.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let controllers = fields.nth(1)?;
            let path = fields.next()?;
            let ours = if is_unified {
                controllers.is_empty()
            } else {
                after[0] == "cgroup"
                    && controllers.split(',').any(|c| c == controller)
                    && options.split(',').any(|o| o == controller)
            };
            ours.then_some(path)
        });
        let Some(membership) = membership else {
            continue;
        };
        let relative = membership.strip_prefix(root.trim_end_matches('/'));
        groups.push(Group {
            directory: Path::new(at).join(relative.unwrap_or(membership).trim_start_matches('/')),
            is_unified,
        });
    }
    groups
}

fn places_in(mounts: &str, memberships: &str, read: &dyn Fn(&Path) -> String) -> Vec<Place> {
    let mut places = Vec::new();
    for group in groups_in(mounts, memberships, "pids") {
        let controllers = if group.is_unified {
            read(&group.directory.join("cgroup.subtree_control"))
        } else {
            "pids".to_owned()
        };
        let has = |name: &str| controllers.split_whitespace().any(|c| c == name);
        let place = Place {
            has_pids: has("pids"),
            has_memory: has("memory"),
            directory: group.directory,
        };
        if place.has_pids || place.has_memory {
            places.push(place);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_used_where_it_hands_controllers_on() {
        let mounts = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
        let found = |controllers: &'static str| {
            places_in(mounts, "0::/user.slice/me\n", &move |path| {
                assert_eq!(
                    path,
                    Path::new("/sys/fs/cgroup/user.slice/me/cgroup.subtree_control")
                );
                controllers.to_owned()
            })
        };
        assert!(found("").is_empty());
        let places = found("cpu memory pids\n");
        assert_eq!(places.len(), 1);
        assert!(places[0].has_pids && places[0].has_memory);
        assert_eq!(
            places[0].directory,
            Path::new("/sys/fs/cgroup/user.slice/me")
        );
    }

    #[test]
    fn of_the_first_version_only_processes_are_used() {
        let mounts = "1 0 0:1 / /cg/pids rw - cgroup cgroup rw,pids\n\
                      2 0 0:2 / /cg/memory rw - cgroup cgroup rw,memory\n\
                      3 0 0:3 / /cg/cpu rw - cgroup cgroup rw,cpu\n";
        let places = places_in(mounts, "9:pids:/a\n8:memory:/\n7:cpu:/\n", &|_| {
            String::new()
        });
        let directories: Vec<_> = places.iter().map(|place| &place.directory).collect();
        assert_eq!(directories, [Path::new("/cg/pids/a")]);
    }

    #[test]
    fn groups_that_tell_of_kills() {
        let mounts = "1 0 0:1 / /cg/pids rw - cgroup cgroup rw,pids\n\
                      2 0 0:2 / /cg/memory rw - cgroup cgroup rw,memory\n\
                      3 0 0:3 /docker/x /cg/unified rw - cgroup2 cgroup2 rw\n";
        let memberships = "9:pids:/a\n8:memory:/b\n0::/docker/x/c\n";
        let groups = groups_in(mounts, memberships, "memory");
        let directories: Vec<_> = groups.iter().map(|group| &group.directory).collect();
        assert_eq!(
            directories,
            [Path::new("/cg/memory/b"), Path::new("/cg/unified/c")]
        );
        assert!(!groups[0].is_unified && groups[1].is_unified);
    }

    #[test]
    fn kills_are_read_from_both_formats() {
        assert_eq!(kills("low 0\noom 1\noom_kill 3\n"), 3);
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(kills(""), 0);
    }
}
