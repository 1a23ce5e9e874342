//! A control group for each host, where this machine lets us make them: what the programs of a
//! host make of groups is then told from what others make, and goes with the lab.
//!
//! Only the hierarchy that counts processes, of cgroups v1, has them: in v2 a group that holds
//! processes cannot hand controllers to groups inside it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The groups of a lab's hosts, in order. Empty: this machine lets us make none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Groups {
    directories: Vec<PathBuf>,
}

impl Groups {
    /// Makes the groups of a lab, whose name differs from every other's.
    pub(crate) fn make(lab: &str, hosts: u8) -> Self {
        let mut made = Self::default();
        let Some(own) = own_group() else {
            return made;
        };
        for host in 1..=hosts {
            let directory = own.join(format!("{lab}-{host}"));
            if fs::create_dir(&directory).is_err() {
                made.remove();
                return Self::default();
            }
            made.directories.push(directory);
        }
        made
    }

    /// The group of a host.
    pub(crate) fn of(&self, host: u8) -> Option<&Path> {
        let index = usize::from(host).checked_sub(1)?;
        self.directories.get(index).map(PathBuf::as_path)
    }

    /// Removes them, which must hold no process any more, and what was made in them.
    pub(crate) fn remove(&self) {
        for directory in &self.directories {
            remove_inside(directory);
            let _ = fs::remove_dir(directory);
        }
    }
}

/// The groups inside a group.
pub(crate) fn groups_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes the groups inside a group that hold no process.
pub(crate) fn remove_inside(directory: &Path) {
    for inside in groups_in(directory).unwrap_or_default() {
        let _ = fs::remove_dir(inside);
    }
}

/// Moves a process, and what it starts from then on, into a group.
pub(crate) fn enter(directory: &Path, pid: u32) -> io::Result<()> {
    fs::write(directory.join("cgroup.procs"), pid.to_string())
}

/// The group of this process in the hierarchy that counts processes.
fn own_group() -> Option<PathBuf> {
    let memberships = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    own_group_in(&mounts, &memberships).filter(|path| path.is_dir())
}

fn own_group_in(mounts: &str, memberships: &str) -> Option<PathBuf> {
    let counts = |list: &str| list.split(',').any(|word| word == "pids");
    let path = memberships.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        fields.next().filter(|controllers| counts(controllers))?;
        fields.next()
    })?;
    mounts.lines().find_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        let is_it = fields.get(2) == Some(&"cgroup") && counts(fields.get(3)?);
        is_it.then(|| Path::new(fields[1]).join(path.trim_start_matches('/')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_that_counts_processes() {
        let mounts = "proc /proc proc rw 0 0\n\
                      cgroup /cg/cpu cgroup rw,cpu 0 0\n\
                      cgroup /cg/pids cgroup rw,nosuid,pids 0 0\n";
        let found = own_group_in(mounts, "9:cpu:/a\n8:pids:/b/c\n0::/\n");
        assert_eq!(found.as_deref(), Some(Path::new("/cg/pids/b/c")));
        assert_eq!(own_group_in(mounts, "0::/user.slice\n"), None);
        assert_eq!(own_group_in("cg /cg cgroup2 rw 0 0\n", "8:pids:/\n"), None);
    }
}
