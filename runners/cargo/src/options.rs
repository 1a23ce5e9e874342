//! Options that are passed on to Cargo.

use std::{ffi::OsString, path::PathBuf};

/// What the user chose of Cargo's own options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CargoOptions {
    /// Comma lists, as given.
    pub(crate) features: Vec<String>,
    pub(crate) all_features: bool,
    pub(crate) no_default_features: bool,
    pub(crate) profile: Option<String>,
    pub(crate) release: bool,
    pub(crate) target: Option<String>,
    pub(crate) target_dir: Option<PathBuf>,
    pub(crate) manifest_path: Option<PathBuf>,
    pub(crate) frozen: bool,
    pub(crate) locked: bool,
    pub(crate) offline: bool,
    /// `--jobs`, as given (Cargo takes negative numbers and `default`).
    pub(crate) jobs: Option<String>,
    /// `--lib`, `--bin NAME` and so on, as Cargo takes them. Empty: Cargo's choice.
    pub(crate) targets: Vec<OsString>,
}

impl CargoOptions {
    /// Options for both `cargo metadata` and `cargo test`: which features.
    pub(crate) fn feature_arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        for features in &self.features {
            arguments.extend(["--features".into(), features.into()]);
        }
        flag(&mut arguments, self.all_features, "--all-features");
        flag(
            &mut arguments,
            self.no_default_features,
            "--no-default-features",
        );
        arguments
    }

    /// Options for both `cargo metadata` and `cargo test`: which manifest, and how it is locked.
    pub(crate) fn manifest_arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        if let Some(path) = &self.manifest_path {
            arguments.extend(["--manifest-path".into(), path.into()]);
        }
        flag(&mut arguments, self.frozen, "--frozen");
        flag(&mut arguments, self.locked, "--locked");
        flag(&mut arguments, self.offline, "--offline");
        arguments
    }

    /// Options for `cargo test` alone.
    pub(crate) fn compilation_arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        if let Some(profile) = &self.profile {
            arguments.extend(["--profile".into(), profile.into()]);
        }
        flag(&mut arguments, self.release, "--release");
        if let Some(target) = &self.target {
            arguments.extend(["--target".into(), target.into()]);
        }
        if let Some(directory) = &self.target_dir {
            arguments.extend(["--target-dir".into(), directory.into()]);
        }
        if let Some(jobs) = &self.jobs {
            arguments.extend(["--jobs".into(), jobs.into()]);
        }
        arguments.extend(self.targets.iter().cloned());
        arguments
    }

    /// The directory below the target directory that the template variable `build-dir` names.
    pub(crate) fn build_directory_name(&self) -> &str {
        match self.profile.as_deref() {
            None if self.release => "release",
            None | Some("dev") => "debug",
            Some(profile) => profile,
        }
    }
}

fn flag(arguments: &mut Vec<OsString>, given: bool, name: &str) {
    if given {
        arguments.push(name.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_chosen_passes_nothing() {
        let options = CargoOptions::default();
        assert!(options.feature_arguments().is_empty());
        assert!(options.manifest_arguments().is_empty());
        assert!(options.compilation_arguments().is_empty());
        assert_eq!(options.build_directory_name(), "debug");
    }

    #[test]
    fn each_option_reaches_its_group() {
        let options = CargoOptions {
            features: vec!["a,b".into(), "c".into()],
            no_default_features: true,
            profile: Some("bench".into()),
            target: Some("x86_64-unknown-linux-musl".into()),
            manifest_path: Some("x/Cargo.toml".into()),
            locked: true,
            jobs: Some("-1".into()),
            targets: vec!["--lib".into()],
            ..Default::default()
        };
        assert_eq!(
            options.feature_arguments(),
            [
                "--features",
                "a,b",
                "--features",
                "c",
                "--no-default-features"
            ]
        );
        assert_eq!(
            options.manifest_arguments(),
            ["--manifest-path", "x/Cargo.toml", "--locked"]
        );
        assert_eq!(
            options.compilation_arguments(),
            [
                "--profile",
                "bench",
                "--target",
                "x86_64-unknown-linux-musl",
                "--jobs",
                "-1",
                "--lib"
            ]
        );
        assert_eq!(options.build_directory_name(), "bench");
    }

    #[test]
    fn build_directory_of_the_profiles_that_differ_from_their_directory() {
        let profile = |name: &str| CargoOptions {
            profile: Some(name.into()),
            ..Default::default()
        };
        assert_eq!(profile("dev").build_directory_name(), "debug");
        assert_eq!(profile("release").build_directory_name(), "release");
        assert_eq!(
            CargoOptions {
                release: true,
                ..Default::default()
            }
            .build_directory_name(),
            "release"
        );
    }
}
