//! Folding a container and its ancestors into one container without a parent.

use crate::{
    ContainerParent, ContainerSpec, ContainerUse, EnvironmentElement, ImageUri, ImageUriError,
    ImageUse, JobSpec, LayerSpec, Mount, Network,
};
use std::{borrow::Borrow, collections::BTreeSet, fmt, path::PathBuf};
use thiserror::Error;

/// A container without a parent: what its own fields and those of its ancestors come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Collapsed {
    /// The image at the root of the chain, if anything of it is used.
    pub image: Option<CollapsedImage>,
    /// Layers, lowest first. Those of the image lie below all of them.
    pub layers: Vec<LayerSpec>,
    /// Environment elements, ancestors first. See [`crate::evaluate_environment`].
    pub environment: Vec<EnvironmentElement>,
    /// Mounts, ancestors first.
    pub mounts: Vec<Mount>,
    /// What network is seen.
    pub network: Network,
    /// Whether the root file system may be written to.
    pub enable_writable_file_system: bool,
    /// `None`: the working directory of the image where [`CollapsedImage::members`] has
    /// [`ImageUse::WorkingDirectory`] and the image sets one, else `/`.
    pub working_directory: Option<PathBuf>,
    /// User id inside.
    pub user: u32,
    /// Group id inside.
    pub group: u32,
}

impl Collapsed {
    /// The container that says all this by itself: it has no parent, or an image.
    pub fn into_container(self) -> ContainerSpec {
        ContainerSpec {
            parent: self.image.map(|image| ContainerParent::Image {
                name: image.name,
                members: image.members,
            }),
            layers: self.layers,
            environment: self.environment,
            mounts: self.mounts,
            network: Some(self.network),
            enable_writable_file_system: Some(self.enable_writable_file_system),
            working_directory: self.working_directory,
            user: Some(self.user),
            group: Some(self.group),
        }
    }
}

/// The part that an image plays in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollapsedImage {
    /// The URI as written.
    pub name: String,
    /// The same, parsed.
    pub uri: ImageUri,
    /// What is taken from the image. Never empty.
    pub members: BTreeSet<ImageUse>,
}

/// Why a container cannot be collapsed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CollapseError {
    /// A parent that nobody defined.
    #[error("unknown container {name:?}{}", child_of(.child))]
    UnknownParent {
        /// The name that was looked up.
        name: String,
        /// The named container whose parent it is; `None` for that of the job itself.
        child: Option<String>,
    },
    /// A container that is its own ancestor.
    #[error("containers inherit from each other in a loop: {}", arrows(.names))]
    Loop {
        /// The loop in visiting order; its first name is also its last.
        names: Vec<String>,
    },
    /// An image name that is no image URI.
    #[error(transparent)]
    Image(#[from] ImageUriError),
}

fn child_of(child: &Option<String>) -> impl fmt::Display + use<> {
    match child {
        Some(child) => format!(", named as the parent of container {child:?}"),
        None => String::new(),
    }
}

fn arrows(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    quoted.join(" -> ")
}

/// Folds `container` and its ancestors, found with `lookup`, into one.
///
/// A parent is only looked up, and an image's name only examined, where something of it is still
/// wanted: with `use = []` an unknown name is no error.
pub fn collapse<C: Borrow<ContainerSpec>>(
    container: &ContainerSpec,
    lookup: impl Fn(&str) -> Option<C>,
) -> Result<Collapsed, CollapseError> {
    let mut wanted = wanted_members(container);
    let mut result = container.clone();
    let mut parent = result.parent.take();
    let mut visited: Vec<String> = Vec::new();
    let mut image = None;

    while let Some(link) = parent {
        match link {
            ContainerParent::Container { name, members } => {
                wanted.retain(|member| members.contains(member));
                if wanted.is_empty() {
                    break;
                }
                if let Some(start) = visited.iter().position(|seen| *seen == name) {
                    let mut names = visited.split_off(start);
                    names.push(name);
                    return Err(CollapseError::Loop { names });
                }
                let Some(found) = lookup(&name) else {
                    return Err(CollapseError::UnknownParent {
                        name,
                        child: visited.pop(),
                    });
                };
                let ancestor: &ContainerSpec = found.borrow();
                inherit(&mut result, ancestor, &mut wanted);
                parent = ancestor.parent.clone();
                visited.push(name);
            }
            ContainerParent::Image { name, members } => {
                let members: BTreeSet<ImageUse> = members
                    .into_iter()
                    .filter(|member| wanted.contains(&ContainerUse::from(*member)))
                    .collect();
                if !members.is_empty() {
                    let uri = name.parse()?;
                    image = Some(CollapsedImage { name, uri, members });
                }
                break;
            }
        }
    }

    Ok(Collapsed {
        image,
        layers: result.layers,
        environment: result.environment,
        mounts: result.mounts,
        network: result.network.unwrap_or_default(),
        enable_writable_file_system: result.enable_writable_file_system.unwrap_or(false),
        working_directory: result.working_directory,
        user: result.user.unwrap_or(0),
        group: result.group.unwrap_or(0),
    })
}

/// All vectors, and the scalars that the container leaves open.
fn wanted_members(container: &ContainerSpec) -> BTreeSet<ContainerUse> {
    ContainerUse::ALL
        .into_iter()
        .filter(|member| match member {
            ContainerUse::Layers | ContainerUse::Environment | ContainerUse::Mounts => true,
            ContainerUse::EnableWritableFileSystem => {
                container.enable_writable_file_system.is_none()
            }
            ContainerUse::WorkingDirectory => container.working_directory.is_none(),
            ContainerUse::Network => container.network.is_none(),
            ContainerUse::User => container.user.is_none(),
            ContainerUse::Group => container.group.is_none(),
        })
        .collect()
}

/// Takes the wanted members of one ancestor. A scalar that was found is wanted no longer.
fn inherit(
    result: &mut ContainerSpec,
    ancestor: &ContainerSpec,
    wanted: &mut BTreeSet<ContainerUse>,
) {
    fn prepend<T: Clone>(own: &mut Vec<T>, above: &[T]) -> bool {
        own.splice(0..0, above.iter().cloned());
        true
    }
    fn fill<T: Clone>(own: &mut Option<T>, above: &Option<T>) -> bool {
        own.clone_from(above);
        own.is_none()
    }
    wanted.retain(|member| match member {
        ContainerUse::Layers => prepend(&mut result.layers, &ancestor.layers),
        ContainerUse::Environment => prepend(&mut result.environment, &ancestor.environment),
        ContainerUse::Mounts => prepend(&mut result.mounts, &ancestor.mounts),
        ContainerUse::EnableWritableFileSystem => fill(
            &mut result.enable_writable_file_system,
            &ancestor.enable_writable_file_system,
        ),
        ContainerUse::WorkingDirectory => {
            fill(&mut result.working_directory, &ancestor.working_directory)
        }
        ContainerUse::Network => fill(&mut result.network, &ancestor.network),
        ContainerUse::User => fill(&mut result.user, &ancestor.user),
        ContainerUse::Group => fill(&mut result.group, &ancestor.group),
    });
}

/// What the chain of a container reaches through links that pass `member` on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ancestry {
    /// Named containers, nearest first.
    pub containers: Vec<String>,
    /// The image at the end.
    pub image: Option<String>,
}

/// Follows the chain of parents of `container` as long as every link passes `member` on,
/// whatever the containers themselves set.
///
/// Fails on unknown parents and loops, never on image names.
pub fn ancestry<C: Borrow<ContainerSpec>>(
    container: &ContainerSpec,
    member: ContainerUse,
    lookup: impl Fn(&str) -> Option<C>,
) -> Result<Ancestry, CollapseError> {
    let mut result = Ancestry::default();
    let mut parent = container.parent.clone();
    while let Some(link) = parent {
        match link {
            ContainerParent::Container { name, members } => {
                if !members.contains(&member) {
                    break;
                }
                if let Some(start) = result.containers.iter().position(|seen| *seen == name) {
                    let mut names = result.containers.split_off(start);
                    names.push(name);
                    return Err(CollapseError::Loop { names });
                }
                let Some(found) = lookup(&name) else {
                    return Err(CollapseError::UnknownParent {
                        name,
                        child: result.containers.pop(),
                    });
                };
                parent = found.borrow().parent.clone();
                result.containers.push(name);
            }
            ContainerParent::Image { name, members } => {
                if members
                    .into_iter()
                    .any(|used| ContainerUse::from(used) == member)
                {
                    result.image = Some(name);
                }
                break;
            }
        }
    }
    Ok(result)
}

/// Why a collapsed container cannot run anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ContainerCheckError {
    /// `sys` beside the machine's own network.
    #[error(
        "a \"sys\" mount cannot be used with network = \"local\"; use network = \"loopback\" or drop the mount"
    )]
    SysMountWithLocalNetwork,
    /// Nothing to make a root file system of.
    #[error(
        "the container has no layers; give it at least one, for example layers = [{{ stubs = [\"/tmp/\"] }}]"
    )]
    NoLayers,
}

/// The checks that need the whole container. `layer_count` counts all layers that the job will
/// run on: those of [`Collapsed::layers`], of the image, and what a runner adds.
pub fn check_container(
    collapsed: &Collapsed,
    layer_count: usize,
) -> Result<(), ContainerCheckError> {
    let has_sys = collapsed
        .mounts
        .iter()
        .any(|mount| matches!(mount, Mount::Sys { .. }));
    if collapsed.network == Network::Local && has_sys {
        return Err(ContainerCheckError::SysMountWithLocalNetwork);
    }
    if layer_count == 0 {
        return Err(ContainerCheckError::NoLayers);
    }
    Ok(())
}

/// Whether a job can only run on the machine of its client: it uses that machine's network, binds
/// its directories, writes its changes there, or has a terminal.
pub fn is_local_only(job: &JobSpec, collapsed: &Collapsed, has_terminal: bool) -> bool {
    has_terminal
        || job.capture_file_system_changes.is_some()
        || collapsed.network == Network::Local
        || collapsed
            .mounts
            .iter()
            .any(|mount| matches!(mount, Mount::Bind { .. }))
}

#[cfg(test)]
#[path = "collapse_tests.rs"]
mod tests;
