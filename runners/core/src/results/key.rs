//! The names of results.

use maelstrom_node::{Container, ResultKey};
use maelstrom_runtime::{ContainerMount, JobNetwork, Root};
use serde::Serialize;

/// Changes whenever what goes into a key does, or what a result holds.
const VERSION: &str = "maelstrom result 1";

/// Stands for a container and the program that runs in it: what the tests of a test binary have
/// in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerKey([u8; 16]);

impl ContainerKey {
    /// `None` for what depends on more than its content: the machine's network, directories of the
    /// machine, directories that are written to.
    ///
    /// `inline_limit_bytes` says how much of each output stream is kept.
    pub fn of(
        container: &Container,
        program: &str,
        inline_limit_bytes: u64,
    ) -> Option<ContainerKey> {
        let bound = |mount: &ContainerMount| matches!(mount, ContainerMount::Bind { .. });
        let depends = container.network == JobNetwork::Local
            || matches!(container.root, Root::Capture { .. })
            || container.mounts.iter().any(bound);
        let platform = (std::env::consts::OS, std::env::consts::ARCH);
        let hash = hash(&(VERSION, platform, container, program, inline_limit_bytes));
        (!depends).then_some(ContainerKey(half(&hash)))
    }

    /// The same program in forks of a template, which is started as this says: its tests find done
    /// what the template did.
    #[must_use]
    pub fn in_template(&self, program: &str, arguments: &[String]) -> ContainerKey {
        ContainerKey(half(&hash(&(
            VERSION, "template", self.0, program, arguments,
        ))))
    }

    /// The key of one job: its arguments, and the patterns of the files that it brings back.
    pub fn job(&self, arguments: &[String], outputs: &[String]) -> ResultKey {
        let job = half(&hash(&(VERSION, self.0, arguments, outputs)));
        ResultKey::new(self.0, job)
    }
}

fn hash(content: &impl Serialize) -> blake3::Hash {
    // Fails only for types that are not what is hashed here; an empty text then names nothing
    // that is looked for.
    blake3::hash(&postcard::to_stdvec(content).unwrap_or_default())
}

fn half(hash: &blake3::Hash) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;
    use maelstrom_content::LayerId;
    use maelstrom_runtime::Privileges;

    pub(crate) fn container() -> Container {
        Container {
            layers: vec![LayerId::of(b"a"), LayerId::of(b"b")],
            environment: vec![("HOME".into(), "/root".into())],
            working_directory: "/p".into(),
            root: Root::Discard,
            mounts: vec![ContainerMount::Proc {
                mount_point: "/proc".into(),
            }],
            network: JobNetwork::Loopback,
            user: 0,
            group: 0,
            privileges: Privileges::Files,
            leads_session: false,
        }
    }

    fn key(container: &Container, program: &str, arguments: &[&str]) -> Option<ResultKey> {
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        Some(ContainerKey::of(container, program, 1000)?.job(&arguments, &[]))
    }

    #[test]
    fn everything_around_a_job_counts() {
        let base = key(&container(), "/t", &["a", "b"]);
        assert_eq!(base, key(&container(), "/t", &["a", "b"]));
        let changed = |change: fn(&mut Container)| {
            let mut other = container();
            change(&mut other);
            key(&other, "/t", &["a", "b"])
        };
        let others = [
            changed(|c| c.layers.reverse()),
            changed(|c| c.environment[0].1.push('x')),
            changed(|c| c.working_directory.push("q")),
            changed(|c| c.root = Root::ReadOnly),
            changed(|c| c.mounts.clear()),
            changed(|c| c.network = JobNetwork::Disabled),
            changed(|c| c.user = 1),
            changed(|c| c.leads_session = true),
            key(&container(), "/u", &["a", "b"]),
            key(&container(), "/t", &["ab"]),
            key(&container(), "/t", &["a", "b", ""]),
        ];
        for (index, other) in others.iter().enumerate() {
            assert!(other.is_some() && *other != base, "{index}");
        }
        let plain = ContainerKey::of(&container(), "/t", 1000).unwrap();
        let forks = plain.in_template("/t", &["x".into()]);
        assert_eq!(forks, plain.in_template("/t", &["x".into()]));
        assert_ne!(forks, plain);
        assert_ne!(forks, plain.in_template("/t", &["y".into()]));
        let output = ContainerKey::of(&container(), "/t", 1000).unwrap();
        assert_ne!(
            Some(output.job(&["a".into(), "b".into()], &["x".into()])),
            base
        );
    }

    #[test]
    fn what_depends_on_the_machine_has_no_key() {
        let mut local = container();
        local.network = JobNetwork::Local;
        let mut bound = container();
        bound.mounts.push(ContainerMount::Bind {
            mount_point: "/x".into(),
            source: "/y".into(),
            read_only: true,
        });
        for other in [local, bound] {
            assert_eq!(key(&other, "/t", &[]), None);
        }
    }
}
