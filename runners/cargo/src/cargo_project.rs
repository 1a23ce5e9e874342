//! One round's view of a workspace: its packages, and what is asked of them.

use crate::{
    artifact::{CargoArtifact, Invocation, key},
    cargo_test,
    collection::Collection,
    options::CargoOptions,
    sysroot::Toolchain,
    workspace::{Workspace, directory, kind_of},
};
use anyhow::Result;
use cargo_metadata::{Package, PackageId, Target};
use maelstrom_runner::{
    filter::{CargoFacts, Selection, TargetKind as Kind},
    host::{self, Identity},
    listing::CaseMetadata,
    metadata::MetadataOptions,
    runner::{Collected, Project, Sink, Tools},
};
use maelstrom_spec::ContainerSpec;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

/// One round's view of a workspace.
pub(crate) struct CargoProject {
    pub(crate) workspace: Arc<Workspace>,
    pub(crate) options: Arc<CargoOptions>,
    pub(crate) invocation: Arc<Invocation>,
    pub(crate) toolchain: Arc<Toolchain>,
    /// The packages that were chosen by name.
    chosen: BTreeSet<PackageId>,
    pub(crate) tools: Tools,
    pub(crate) color: bool,
    pub(crate) identity: Identity,
    pub(crate) base: ContainerSpec,
}

impl CargoProject {
    pub(crate) fn new(
        workspace: Workspace,
        options: Arc<CargoOptions>,
        invocation: Arc<Invocation>,
        toolchain: Arc<Toolchain>,
        chosen: BTreeSet<PackageId>,
        tools: &Tools,
        color: bool,
    ) -> CargoProject {
        let identity = Identity::of_process();
        let inside: Vec<PathBuf> = workspace
            .members()
            .map(|package| directory(package).to_owned())
            .chain([
                workspace.root().to_owned(),
                workspace.target_dir().to_owned(),
            ])
            .chain(
                options
                    .target_dir
                    .as_ref()
                    .and_then(|path| std::path::absolute(path).ok()),
            )
            .collect();
        let base = host::base_container(&identity, inside.iter().map(PathBuf::as_path));
        CargoProject {
            workspace: Arc::new(workspace),
            options,
            invocation,
            toolchain,
            chosen,
            tools: tools.clone(),
            color,
            identity,
            base,
        }
    }

    /// The chosen packages that may have selected tests.
    fn selected(&self, selection: &Selection) -> Vec<&Package> {
        self.workspace
            .members()
            .filter(|package| self.chosen.contains(&package.id))
            .filter(|package| {
                let facts = CargoFacts {
                    package: Some(&package.name),
                    ..CargoFacts::default()
                };
                selection.evaluate(&facts).is_possible()
            })
            .collect()
    }
}

impl Project for CargoProject {
    type Artifact = CargoArtifact;

    fn metadata_options(&self) -> MetadataOptions {
        let build_dir = self
            .workspace
            .target_dir()
            .join(self.options.build_directory_name());
        MetadataOptions {
            template_variables: BTreeMap::from([(
                "build-dir".to_owned(),
                build_dir.to_string_lossy().into_owned(),
            )]),
            predefined_containers: BTreeMap::from([(
                cargo_test::NAME.to_owned(),
                self.base.clone(),
            )]),
        }
    }

    fn packages(&self, selection: &Selection) -> Vec<String> {
        self.selected(selection)
            .iter()
            .map(|package| package.name.to_string())
            .collect()
    }

    fn binaries(&self, selection: &Selection) -> Vec<String> {
        let mut names = Vec::new();
        for package in self.selected(selection) {
            for target in package.targets.iter().filter(|target| target.test) {
                let Some(kind) = kind_of(target) else {
                    continue;
                };
                if !selection
                    .evaluate(&facts_of(package, target, kind))
                    .is_possible()
                {
                    continue;
                }
                names.push(if target.name == *package.name {
                    format!("{} ({kind})", package.name)
                } else {
                    format!("{} {} ({kind})", package.name, target.name)
                });
            }
        }
        names
    }

    fn inventory(&self) -> Vec<(String, Option<Vec<String>>)> {
        self.workspace
            .members()
            .map(|package| {
                let keys = package
                    .targets
                    .iter()
                    .filter_map(|target| Some(key(&target.name, kind_of(target)?)));
                (package.name.to_string(), Some(keys.collect()))
            })
            .collect()
    }

    fn selects_recorded(
        &self,
        selection: &Selection,
        package: &str,
        artifact: &str,
        case: &str,
        _: Option<&CaseMetadata>,
    ) -> bool {
        let target = artifact.strip_suffix(')').and_then(|key| {
            let (name, kind) = key.rsplit_once('(')?;
            Some((kind.parse().ok()?, name))
        });
        self.workspace
            .members()
            .any(|member| *member.name == *package && self.chosen.contains(&member.id))
            && selection
                .evaluate(&CargoFacts {
                    package: Some(package),
                    target,
                    case: Some(case),
                })
                .is_true()
    }

    fn collect(&self, sink: &Sink<CargoArtifact>) -> Result<Collected> {
        let packages = self.selected(sink.selection());
        if packages.is_empty() {
            return Ok(Collected::Everything);
        }
        Collection::new(self, sink).collect(&packages)
    }
}

pub(crate) fn facts_of<'a>(package: &'a Package, target: &'a Target, kind: Kind) -> CargoFacts<'a> {
    CargoFacts {
        package: Some(&package.name),
        target: Some((kind, &target.name)),
        case: None,
    }
}
