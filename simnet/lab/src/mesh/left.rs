//! What runs leave on a host that nodes do not need.

use crate::{Finished, Host, LabError};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Lists the processes of a host, and counts its mounts.
const SCRIPT: &str = r#"
echo "self $$"
for process in /proc/[0-9]*; do
    namespace=$(readlink $process/ns/pid) && status=$(cat $process/stat) || continue
    echo "process $namespace $status"
done 2>/dev/null
echo "mounts $(grep -c . /proc/self/mountinfo)"
"#;

/// What is on a host.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    processes: BTreeMap<i32, SeenProcess>,
    mounts: usize,
    groups: usize,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct SeenProcess {
    name: String,
    parent: i32,
    namespace: String,
}

impl Seen {
    /// Looks at a host that is up.
    pub(super) fn on(host: &Arc<Host>, bound: Duration) -> Result<Self, LabError> {
        let Finished { stdout, .. } = host.command("sh").args(["-c", SCRIPT]).run(bound)?;
        Ok(Self {
            groups: host.groups(),
            ..Self::parse(&stdout)
        })
    }

    fn parse(text: &str) -> Self {
        let mut seen = Self::default();
        let mut looking = 0;
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("self", pid)) => looking = pid.parse().unwrap_or(0),
                Some(("mounts", count)) => seen.mounts = count.parse().unwrap_or(0),
                Some(("process", rest)) => {
                    if let Some((pid, process)) = SeenProcess::parse(rest) {
                        seen.processes.insert(pid, process);
                    }
                }
                _ => {}
            }
        }
        // Whoever looks is not what is looked for.
        let lookers = seen.family([looking].into());
        seen.processes.retain(|pid, _| !lookers.contains(pid));
        seen
    }

    /// These processes and all that descend from them.
    fn family(&self, roots: BTreeSet<i32>) -> BTreeSet<i32> {
        let mut family = roots;
        loop {
            let children: Vec<i32> = self
                .processes
                .iter()
                .filter(|(pid, process)| family.contains(&process.parent) && !family.contains(pid))
                .map(|(pid, _)| *pid)
                .collect();
            if children.is_empty() {
                return family;
            }
            family.extend(children);
        }
    }

    /// What is here that was not `before`, and that the node, if one runs, does not need while no
    /// job runs. In words.
    pub(super) fn left(&self, before: &Self, node: Option<i32>) -> Vec<String> {
        let of_node = self.family(node.into_iter().collect());
        let own_namespace = self.processes.get(&1).map(|first| &first.namespace);
        let mut left = Vec::new();
        for (pid, process) in &self.processes {
            let name = &process.name;
            if own_namespace != Some(&process.namespace) {
                left.push(format!("process {pid} ({name}) of a container"));
            } else if !of_node.contains(pid) && !before.processes.contains_key(pid) {
                left.push(format!("process {pid} ({name}), which no node owns"));
            }
        }
        if self.mounts > before.mounts {
            left.push(format!(
                "{} mounts more than before",
                self.mounts - before.mounts
            ));
        }
        // A node has groups for its slots as long as it lives.
        if node.is_none() && self.groups > before.groups {
            left.push(format!("{} control groups", self.groups - before.groups));
        }
        left
    }
}

impl SeenProcess {
    /// A line of the script: the namespace, then `/proc/PID/stat`. `None`: it has ended and waits
    /// to be collected, or is something else.
    fn parse(line: &str) -> Option<(i32, Self)> {
        let (namespace, stat) = line.split_once(' ')?;
        let (pid, rest) = stat.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let process = Self {
            name: name.to_owned(),
            parent,
            namespace: namespace.to_owned(),
        };
        (!matches!(state, "Z" | "X")).then_some((pid.parse().ok()?, process))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "self 3\n\
        process pid:[1] 1 (lab-host) S 0 0\n\
        process pid:[1] 3 (sh) S 1 3\n\
        process pid:[1] 4 (cat) R 3 3\n\
        mounts 7\n";

    #[test]
    fn what_a_node_needs_is_not_left() {
        let before = Seen::parse(BEFORE);
        assert_eq!(before.processes.len(), 1);
        assert_eq!(before.left(&before, None), [""; 0]);
        let now = "self 30\n\
            process pid:[1] 1 (lab-host) S 0 0\n\
            process pid:[1] 9 (a (node)) S 1 0\n\
            process pid:[1] 10 (slot) S 9 0\n\
            process pid:[1] 11 (old) Z 9 0\n\
            process pid:[1] 30 (sh) S 1 3\n\
            mounts 7\n";
        let mut now = Seen::parse(now);
        now.groups = 2;
        assert_eq!(now.left(&before, Some(9)), [""; 0]);
        assert_eq!(
            now.left(&before, None),
            [
                "process 9 (a (node)), which no node owns",
                "process 10 (slot), which no node owns",
                "2 control groups",
            ]
        );
    }

    #[test]
    fn containers_and_mounts_are_left() {
        let before = Seen::parse(BEFORE);
        let now = "self 30\n\
            process pid:[1] 1 (lab-host) S 0 0\n\
            process pid:[1] 9 (node) S 1 0\n\
            process pid:[2] 12 (init) S 9 0\n\
            mounts 8\n";
        assert_eq!(
            Seen::parse(now).left(&before, Some(9)),
            [
                "process 12 (init) of a container",
                "1 mounts more than before"
            ]
        );
    }
}
