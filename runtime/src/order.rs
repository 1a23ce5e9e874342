//! How a job is told to a process that knows the one before it.
//!
//! Jobs in a row mostly share their container and their environment, and those are nearly all
//! that there is to a job. Leaving them out spares both ends a hundred small allocations a job,
//! and a slot and its containers copies of all the memory pages that these would touch, since
//! each container is forked from its slot.

use crate::job::{ContainerJob, Root};
use serde::{Deserialize, Serialize};
use std::{io, path::PathBuf};

/// A job without what it shares with the one before it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    job: ContainerJob,
    has_environment: bool,
    has_container: bool,
}

/// Which environment and which container a slot was last told of. Equal numbers are equal ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) environment: u64,
    pub(crate) container: u64,
}

impl Order {
    /// Tells of a job those who know the one before it, if there was one.
    pub(crate) fn after(job: &ContainerJob, before: Option<&ContainerJob>) -> Self {
        Self::with(
            job,
            before.is_none_or(|before| before.environment != job.environment),
            before.is_none_or(|before| !job.fits_container_of(before)),
        )
    }

    /// Tells of a job with its environment, or with its container, or without.
    pub(crate) fn with(job: &ContainerJob, has_environment: bool, has_container: bool) -> Self {
        let container = |path: &PathBuf| match has_container {
            true => path.clone(),
            false => PathBuf::new(),
        };
        Self {
            job: ContainerJob {
                program: job.program.clone(),
                arguments: job.arguments.clone(),
                environment: match has_environment {
                    true => job.environment.clone(),
                    false => Vec::new(),
                },
                working_directory: container(&job.working_directory),
                layers: match has_container {
                    true => job.layers.clone(),
                    false => Vec::new(),
                },
                root: match has_container {
                    true => job.root.clone(),
                    false => Root::ReadOnly,
                },
                mounts: match has_container {
                    true => job.mounts.clone(),
                    false => Vec::new(),
                },
                outputs: job.outputs.clone(),
                template: job.template.clone(),
                ..*job
            },
            has_environment,
            has_container,
        }
    }

    /// Whether it brings anything that jobs after it may share.
    pub(crate) fn has_news(&self) -> bool {
        self.has_environment || self.has_container
    }

    /// Whether it brings an environment.
    pub(crate) fn has_environment(&self) -> bool {
        self.has_environment
    }

    /// The job, as far as it is told here.
    pub(crate) fn into_job(self) -> ContainerJob {
        self.job
    }

    /// The whole job, with what it shares taken from the one before it.
    pub(crate) fn complete(
        self,
        before: &mut Option<ContainerJob>,
        versions: &mut Versions,
    ) -> io::Result<ContainerJob> {
        let mut job = self.job;
        if self.has_environment {
            versions.environment += 1;
        }
        if self.has_container {
            versions.container += 1;
        }
        if self.has_environment && self.has_container {
            return Ok(job);
        }
        let before = before
            .take()
            .ok_or_else(|| io::Error::other("a job like the one before it, but it is the first"))?;
        if !self.has_environment {
            job.environment = before.environment;
        }
        if !self.has_container {
            job.working_directory = before.working_directory;
            job.layers = before.layers;
            job.root = before.root;
            job.mounts = before.mounts;
        }
        Ok(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::ContainerMount;

    #[test]
    fn what_is_left_out_comes_from_the_job_before() {
        let first = ContainerJob {
            program: "/first".to_owned(),
            environment: vec![("A".to_owned(), "1".to_owned())],
            layers: vec!["/layer".into()],
            mounts: vec![ContainerMount::Proc {
                mount_point: "/proc".into(),
            }],
            root: Root::Discard,
            working_directory: "/work".into(),
            ..ContainerJob::default()
        };
        let second = ContainerJob {
            program: "/second".to_owned(),
            timeout: Some(std::time::Duration::from_secs(1)),
            ..first.clone()
        };
        let other_environment = ContainerJob {
            environment: Vec::new(),
            ..second.clone()
        };
        let other_container = ContainerJob {
            user: 7,
            ..other_environment.clone()
        };
        let (mut told, mut known) = (None, None);
        let mut versions = Versions::default();
        let mut seen = Vec::new();
        for job in [
            &first,
            &second,
            &other_environment,
            &other_container,
            &second,
        ] {
            let order = Order::after(job, told.as_ref());
            let bytes = postcard::to_allocvec(&order).unwrap();
            let order: Order = postcard::from_bytes(&bytes).unwrap();
            let completed = order.complete(&mut known, &mut versions).unwrap();
            assert_eq!(completed, *job);
            seen.push((versions.environment, versions.container));
            known = Some(completed);
            told = Some(job.clone());
        }
        assert_eq!(seen, [(1, 1), (1, 1), (2, 1), (2, 2), (3, 3)]);
    }

    #[test]
    fn the_first_job_must_be_whole() {
        let order = Order::with(&ContainerJob::default(), false, true);
        let mut versions = Versions::default();
        assert!(order.complete(&mut None, &mut versions).is_err());
    }
}
