//! Which image of an index is for a machine.

use crate::Problem;
use oci_spec::image::{Descriptor, Platform as Described};
use std::fmt;

/// An operating system and an architecture, by the names that Go has for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// As in "linux".
    pub os: String,
    /// As in "amd64" or "arm64".
    pub architecture: String,
}

impl Platform {
    /// The one that this program was made for.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "loongarch64" => "loong64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            other => other,
        };
        Platform {
            os: "linux".into(),
            architecture: architecture.into(),
        }
    }

    fn matches(&self, described: &Described) -> bool {
        let variant = described.variant().as_deref().unwrap_or("");
        let has_variant = !(variant.is_empty() || self.architecture == "arm64" && variant == "v8");
        described.os().to_string() == self.os
            && described.architecture().to_string() == self.architecture
            && !has_variant
    }

    /// The image of an index for this platform. A single one is taken whatever it is for.
    pub(crate) fn choose<'a>(&self, index: &'a [Descriptor]) -> Result<&'a Descriptor, Problem> {
        if let [only] = index {
            return Ok(only);
        }
        let is_ours = |described: &&Descriptor| {
            described
                .platform()
                .as_ref()
                .is_some_and(|platform| self.matches(platform))
        };
        index.iter().find(is_ours).ok_or_else(|| Problem::Platform {
            wanted: self.to_string(),
            available: index.iter().take(50).map(describe).collect(),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

fn describe(descriptor: &Descriptor) -> String {
    match descriptor.platform() {
        None => "no platform in particular".into(),
        Some(platform) => {
            let mut text = format!("{}/{}", platform.os(), platform.architecture());
            if let Some(variant) = platform.variant() {
                text.push('/');
                text.push_str(variant);
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::parse_index;

    fn index(platforms: &[&str]) -> Vec<Descriptor> {
        let manifests: Vec<String> = platforms
            .iter()
            .enumerate()
            .map(|(number, platform)| {
                let parts: Vec<&str> = platform.split('/').collect();
                let platform = match parts[..] {
                    [os, architecture] => {
                        format!(r#", "platform": {{"os": "{os}", "architecture": "{architecture}"}}"#)
                    }
                    [os, architecture, variant] => format!(
                        r#", "platform": {{"os": "{os}", "architecture": "{architecture}", "variant": "{variant}"}}"#
                    ),
                    _ => String::new(),
                };
                format!(
                    r#"{{"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": {number},
                    "digest": "sha256:{}"{platform}}}"#,
                    "0".repeat(64)
                )
            })
            .collect();
        let text = format!(
            r#"{{"schemaVersion": 2, "manifests": [{}]}}"#,
            manifests.join(",")
        );
        parse_index(text.as_bytes()).unwrap()
    }

    #[test]
    fn which_one_is_chosen() {
        let on = |architecture: &str, platforms: &[&str]| {
            let platform = Platform {
                os: "linux".into(),
                architecture: architecture.into(),
            };
            let index = index(platforms);
            platform
                .choose(&index)
                .map(|chosen| chosen.size())
                .map_err(|problem| problem.to_string())
        };
        let usual = [
            "linux/amd64",
            "linux/arm/v7",
            "linux/arm64/v8",
            "unknown/unknown",
        ];
        assert_eq!(on("amd64", &usual), Ok(0));
        assert_eq!(on("arm64", &usual), Ok(2));
        assert_eq!(on("arm64", &["linux/amd64", "linux/arm64"]), Ok(1));
        assert_eq!(
            on("amd64", &["windows/amd64", "linux/amd64/v3", "linux/amd64"]),
            Ok(2)
        );
        assert_eq!(on("amd64", &["linux/s390x"]), Ok(0));
        assert_eq!(on("amd64", &[""]), Ok(0));
        assert_eq!(
            on("riscv64", &["linux/amd64", "linux/arm64/v8", ""]).unwrap_err(),
            "there is none for linux/riscv64; there is one for linux/amd64, linux/arm64/v8, no platform in particular"
        );
        assert_eq!(
            on("amd64", &[]).unwrap_err(),
            "there is none for linux/amd64; its index is empty"
        );
    }
}
