//! The container in which a project without configuration finds what it would find on the client's
//! own machine. Everything in it is a copy in a content-addressed layer.

use super::{
    files::{self, ProjectEntry},
    system::{self, DEVICES, Identity, SystemEntry},
};
use crate::runner::Tools;
use maelstrom_content::{BuildContext, LayerBuilder, LayerError, LayerId, Store};
use maelstrom_spec::{
    Collapsed, ContainerParent, ContainerSpec, Device, EnvironmentElement, LayerSpec, Mount,
    Network, PrefixOptions,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    thread,
};

/// How often the project's files may change under our hands.
const ATTEMPTS: usize = 3;

/// The part of the container that all tests have in common. `inside` are the directories whose
/// files are in the container at their own paths.
pub fn base_container<'a>(
    identity: &Identity,
    inside: impl Iterator<Item = &'a Path> + Clone,
) -> ContainerSpec {
    let mut mounts = vec![
        Mount::Proc {
            mount_point: "/proc".into(),
        },
        Mount::Sys {
            mount_point: "/sys".into(),
        },
        Mount::Devices {
            devices: Device::ALL
                .into_iter()
                .filter(|device| DEVICES.contains(&device.name()))
                .collect(),
        },
        Mount::Devpts {
            mount_point: "/dev/pts".into(),
        },
    ];
    for mount_point in ["/dev/shm", "/tmp"] {
        // The root file system is as writable, but a mount would hide what lies below it.
        if !inside
            .clone()
            .any(|directory| directory.starts_with(mount_point))
        {
            mounts.push(Mount::Tmp {
                mount_point: mount_point.into(),
            });
        }
    }
    ContainerSpec {
        mounts,
        network: Some(Network::Loopback),
        enable_writable_file_system: Some(true),
        user: Some(identity.user),
        group: Some(identity.group),
        ..ContainerSpec::default()
    }
}

/// The layers that all tests have in common.
#[derive(Clone, Copy, Debug)]
pub struct SharedLayers {
    system: LayerId,
    programs: LayerId,
    project: LayerId,
}

/// Where the files of a project lie.
#[derive(Clone, Debug, Default)]
pub struct ProjectPlaces {
    /// The workspace's root, and directories outside of it that belong to it.
    pub roots: Vec<PathBuf>,
    /// What of them is none of the project's files, by absolute path: target directories.
    pub excluded: Vec<PathBuf>,
    /// The same by name, wherever it lies.
    pub excluded_names: Vec<&'static str>,
    /// Names of files that make a directory a project. Where version control ignores those of a
    /// root, what it says of the others does not count either.
    pub manifests: Vec<&'static str>,
}

impl SharedLayers {
    /// Makes the layers, at the same time.
    ///
    /// # Errors
    /// A file that cannot be read or stored.
    pub fn prepare(
        store: &Store,
        context: &BuildContext,
        identity: &Identity,
        places: &ProjectPlaces,
        tools: &Tools,
    ) -> Result<SharedLayers, LayerError> {
        thread::scope(|scope| {
            let system = scope.spawn(|| system_layer(store, identity));
            let programs = scope.spawn(|| {
                let programs = system::base_programs(std::env::var_os("PATH"));
                store.build(&LayerSpec::Programs { programs }, context)
            });
            let project = project_layer(store, places, identity, tools);
            let joined = |handle: thread::ScopedJoinHandle<'_, _>| {
                handle
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            Ok(SharedLayers {
                system: joined(system)?,
                programs: joined(programs)?,
                project: project?,
            })
        })
    }

    /// In their order.
    pub fn ids(&self) -> [LayerId; 3] {
        [self.system, self.programs, self.project]
    }
}

fn system_layer(store: &Store, identity: &Identity) -> Result<LayerId, LayerError> {
    let mut layer = store.layer();
    for entry in system::system_entries(identity) {
        match entry {
            SystemEntry::Directory(path, mode) => layer.add_directory(path, mode),
            SystemEntry::Bytes(path, text) => layer.add_bytes(path, text, 0o644),
            SystemEntry::Copy(path, source) => layer.add_file(path, source),
            SystemEntry::Symlink(path, target) => layer.add_symlink(path, target),
        };
    }
    layer.finish()
}

fn project_layer(
    store: &Store,
    places: &ProjectPlaces,
    identity: &Identity,
    tools: &Tools,
) -> Result<LayerId, LayerError> {
    let mut attempt = 1;
    loop {
        match try_project_layer(store, places, identity, tools) {
            // An editor's temporary file came and went, say.
            Err(error) if attempt < ATTEMPTS => {
                tracing::debug!("reading the project again: {error}");
            }
            result => return result,
        }
        attempt += 1;
    }
}

fn try_project_layer(
    store: &Store,
    places: &ProjectPlaces,
    identity: &Identity,
    tools: &Tools,
) -> Result<LayerId, LayerError> {
    let mut layer = store.layer();
    keep_modes_of_parents(
        &mut layer,
        places.roots.iter().map(PathBuf::as_path),
        identity,
    );
    for root in &places.roots {
        for entry in files::entries(
            root,
            &places.excluded,
            &places.excluded_names,
            &places.manifests,
            tools,
        ) {
            match entry {
                ProjectEntry::File(path) => layer.add_path(&path, &path),
                ProjectEntry::Directory(path, mode) => layer.add_directory(path, mode),
                ProjectEntry::Symlink(path, target) => layer.add_symlink(path, target),
            };
        }
    }
    layer.finish()
}

/// Gives the parents of `paths` that the system layer has with other permissions than a layer's
/// usual ones those permissions: of a directory in several layers, the topmost one's count.
pub fn keep_modes_of_parents<'a>(
    layer: &mut LayerBuilder,
    paths: impl Iterator<Item = &'a Path>,
    identity: &Identity,
) {
    let parents: BTreeSet<&Path> = paths.flat_map(|path| path.ancestors().skip(1)).collect();
    for (path, mode) in system::unusual_directories(identity) {
        if parents.contains(path.as_path()) {
            layer.add_directory(path, mode);
        }
    }
}

/// The layer of the shared libraries that `binaries` need, and the loader.
///
/// # Errors
/// A library that is not found, or a file that cannot be read or stored.
pub fn libraries(
    store: &Store,
    context: &BuildContext,
    binaries: Vec<PathBuf>,
) -> Result<LayerId, LayerError> {
    let prefix_options = PrefixOptions {
        follow_symlinks: true,
        ..PrefixOptions::default()
    };
    store.build(
        &LayerSpec::SharedLibraryDependencies {
            binary_paths: binaries,
            prefix_options,
        },
        context,
    )
}

/// A layer that is ready, as part of a container.
pub fn built(id: LayerId) -> LayerSpec {
    LayerSpec::Built { id: *id.as_bytes() }
}

/// Variables with these very values.
pub fn literal_environment(variables: &BTreeMap<String, String>) -> EnvironmentElement {
    let vars = variables
        .iter()
        .map(|(name, value)| (name.clone(), value.replace('$', "$$")))
        .collect();
    EnvironmentElement { vars, extend: true }
}

/// A collapsed container as one to be collapsed again.
pub fn parentless(collapsed: Collapsed) -> ContainerSpec {
    ContainerSpec {
        parent: collapsed.image.map(|image| ContainerParent::Image {
            name: image.name,
            members: image.members,
        }),
        layers: collapsed.layers,
        environment: collapsed.environment,
        mounts: collapsed.mounts,
        network: Some(collapsed.network),
        enable_writable_file_system: Some(collapsed.enable_writable_file_system),
        working_directory: collapsed.working_directory,
        user: Some(collapsed.user),
        group: Some(collapsed.group),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            user: 1000,
            group: 1000,
            user_name: "ada".into(),
            home: "/home/ada".into(),
        }
    }

    fn has_tmp(container: &ContainerSpec, path: &str) -> bool {
        container.mounts.contains(&Mount::Tmp {
            mount_point: path.into(),
        })
    }

    #[test]
    fn a_project_in_the_temporary_directory_is_not_hidden() {
        let elsewhere = base_container(
            &identity(),
            [Path::new("/home/ada/p"), Path::new("/tmpx")].into_iter(),
        );
        assert!(has_tmp(&elsewhere, "/tmp") && has_tmp(&elsewhere, "/dev/shm"));
        let inside = base_container(
            &identity(),
            [Path::new("/home"), Path::new("/tmp/p")].into_iter(),
        );
        assert!(!has_tmp(&inside, "/tmp") && has_tmp(&inside, "/dev/shm"));
    }

    #[test]
    fn dollars_are_meant_literally() {
        let element =
            literal_environment(&BTreeMap::from([("A".to_owned(), "$env{B}$".to_owned())]));
        let evaluated =
            maelstrom_spec::evaluate_environment(BTreeMap::new(), &[element], |_| None).unwrap();
        assert_eq!(evaluated["A"], "$env{B}$");
    }
}
