//! Names of container images.

use std::{fmt, path::PathBuf, str::FromStr};
use thiserror::Error;

/// Where a container image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageUri {
    /// `docker://…`: a registry.
    Registry(RegistryReference),
    /// `oci:PATH[:REFERENCE]`: an OCI layout directory.
    OciLayout {
        /// The directory.
        path: PathBuf,
        /// Which of its images; `None` where it holds exactly one.
        reference: Option<String>,
    },
    /// `oci-archive:PATH[:REFERENCE]`: a tar of an OCI layout.
    OciArchive {
        /// The file.
        path: PathBuf,
        /// Which of its images; `None` where it holds exactly one.
        reference: Option<String>,
    },
}

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegistryReference {
    /// `HOST[:PORT]`; [`RegistryReference::DOCKER_HUB`] where none is written.
    pub host: String,
    /// The repository, `library/` included for the official images of Docker Hub.
    pub repository: String,
    /// The tag as written.
    pub tag: Option<String>,
    /// The digest as written, `ALGORITHM:HEX`. Wins over the tag.
    pub digest: Option<String>,
}

impl RegistryReference {
    /// The host that a reference without a host means.
    pub const DOCKER_HUB: &str = "docker.io";

    /// The reference without tag and digest in its shortest form, as it heads its section of the
    /// lock file: Docker Hub's host and `library/` are left out.
    pub fn familiar_name(&self) -> String {
        if self.host == Self::DOCKER_HUB {
            let name = &self.repository;
            name.strip_prefix("library/").unwrap_or(name).to_owned()
        } else {
            format!("{}/{}", self.host, self.repository)
        }
    }

    /// The tag, `latest` where none is written.
    pub fn tag_or_latest(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }
}

/// An image name that is no image URI.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("bad image name {name:?}: {reason}")]
pub struct ImageUriError {
    /// The name as written.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

impl FromStr for ImageUri {
    type Err = ImageUriError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        parse(name).map_err(|reason| ImageUriError {
            name: name.to_owned(),
            reason,
        })
    }
}

impl fmt::Display for ImageUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, path, reference) = match self {
            ImageUri::Registry(reference) => {
                write!(f, "docker://{}", reference.familiar_name())?;
                if let Some(tag) = &reference.tag {
                    write!(f, ":{tag}")?;
                }
                if let Some(digest) = &reference.digest {
                    write!(f, "@{digest}")?;
                }
                return Ok(());
            }
            ImageUri::OciLayout { path, reference } => ("oci", path, reference),
            ImageUri::OciArchive { path, reference } => ("oci-archive", path, reference),
        };
        write!(f, "{scheme}:{}", path.display())?;
        match reference {
            Some(reference) => write!(f, ":{reference}"),
            None => Ok(()),
        }
    }
}

fn parse(name: &str) -> Result<ImageUri, String> {
    if let Some(reference) = name.strip_prefix("docker://") {
        return parse_reference(reference).map(ImageUri::Registry);
    }
    let (is_archive, local) = if let Some(local) = name.strip_prefix("oci:") {
        (false, local)
    } else if let Some(local) = name.strip_prefix("oci-archive:") {
        (true, local)
    } else {
        let advice = match name.split_once("://") {
            Some((scheme, _)) => format!("unknown scheme {scheme:?}"),
            None if parse_reference(name).is_ok() => {
                format!("no scheme; for an image in a registry write \"docker://{name}\"")
            }
            None => "no scheme".to_owned(),
        };
        return Err(format!(
            "{advice} (known are docker://, oci: and oci-archive:)"
        ));
    };
    let (path, reference) = match local.split_once(':') {
        Some((_, "")) => return Err("nothing after the `:` that starts the reference".into()),
        Some((path, reference)) => (path, Some(reference.to_owned())),
        None => (local, None),
    };
    if path.is_empty() {
        return Err("no path".into());
    }
    let path = PathBuf::from(path);
    Ok(if is_archive {
        ImageUri::OciArchive { path, reference }
    } else {
        ImageUri::OciLayout { path, reference }
    })
}

fn parse_reference(text: &str) -> Result<RegistryReference, String> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
        None => (text, None),
    };
    let (host, rest) = match rest.split_once('/') {
        Some((first, rest))
            if first.contains('.') || first.contains(':') || first == "localhost" =>
        {
            (Some(parse_host(first)?), rest)
        }
        _ => (None, rest),
    };
    let (repository, tag) = match rest.split_once(':') {
        Some((repository, tag)) => (repository, Some(parse_tag(tag)?)),
        None => (rest, None),
    };
    for component in repository.split('/') {
        check_component(component)?;
    }
    let host = match host {
        None | Some("index.docker.io") => RegistryReference::DOCKER_HUB,
        Some(host) => host,
    };
    let is_official = host == RegistryReference::DOCKER_HUB && !repository.contains('/');
    Ok(RegistryReference {
        host: host.to_owned(),
        repository: if is_official {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        },
        tag,
        digest,
    })
}

fn parse_host(text: &str) -> Result<&str, String> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if !host.split('.').all(is_label) {
        return Err(format!("{host:?} is not a host name"));
    }
    match port {
        Some(port) if port.starts_with('+') || port.parse::<u16>().is_err() => {
            Err(format!("{port:?} is not a port"))
        }
        _ => Ok(text),
    }
}

/// One component of a repository: lower-case letters and digits, joined by single `.`, one or two
/// `_`, or any number of `-`.
fn check_component(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("a component of the name is empty".into());
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
        return Err(if bad.is_ascii_uppercase() {
            format!("upper-case letters such as {bad:?} are not allowed in {text:?}")
        } else {
            format!("{bad:?} is not allowed in {text:?}")
        });
    }
    let is_alphanumeric = |c: char| !"._-".contains(c);
    let mut separators = text.split(is_alphanumeric);
    let good = text.starts_with(is_alphanumeric)
        && text.ends_with(is_alphanumeric)
        && separators.all(|s| s.bytes().all(|b| b == b'-') || matches!(s, "." | "_" | "__"));
    if good {
        Ok(())
    } else {
        Err(format!("the punctuation in {text:?} is misplaced"))
    }
}

fn parse_tag(text: &str) -> Result<String, String> {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = (1..=128).contains(&text.len())
        && text.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
        && text.bytes().next().is_some_and(is_word);
    if good {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a tag"))
    }
}

fn parse_digest(text: &str) -> Result<String, String> {
    let bad = |why: &str| Err(format!("{text:?} is not a digest: {why}"));
    let Some((algorithm, encoded)) = text.split_once(':') else {
        return bad("it has no `:` after the algorithm");
    };
    let is_algorithm_byte =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+._-".contains(&b);
    if algorithm.is_empty() || !algorithm.bytes().all(is_algorithm_byte) {
        return bad("the algorithm is malformed");
    }
    if encoded.len() < 2 || !encoded.bytes().all(|b| b.is_ascii_hexdigit()) {
        return bad("it is not hexadecimal");
    }
    let expected = match algorithm {
        "sha256" => Some(64),
        "sha512" => Some(128),
        _ => None,
    };
    match expected {
        Some(digits) if encoded.len() != digits => bad(&format!(
            "{algorithm} has {digits} hexadecimal digits, this has {}",
            encoded.len()
        )),
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn registry(text: &str) -> Result<(String, String, Option<String>, Option<String>), String> {
        match format!("docker://{text}").parse::<ImageUri>() {
            Ok(ImageUri::Registry(r)) => Ok((r.host, r.repository, r.tag, r.digest)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn registry_references() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        for (text, host, repository, tag, with_digest) in [
            ("python", "docker.io", "library/python", None, false),
            (
                "python:3.12-slim",
                "docker.io",
                "library/python",
                Some("3.12-slim"),
                false,
            ),
            ("foo/bar", "docker.io", "foo/bar", None, false),
            (
                "docker.io/python",
                "docker.io",
                "library/python",
                None,
                false,
            ),
            ("index.docker.io/a/b", "docker.io", "a/b", None, false),
            ("foo.com/bar", "foo.com", "bar", None, false),
            ("localhost/bar", "localhost", "bar", None, false),
            (
                "localhost:5000/bar:x",
                "localhost:5000",
                "bar",
                Some("x"),
                false,
            ),
            ("foo.com:1234/a/b/c", "foo.com:1234", "a/b/c", None, false),
            ("n:t", "docker.io", "library/n", Some("t"), true),
            ("n", "docker.io", "library/n", None, true),
            (
                "a__b-c.d--e",
                "docker.io",
                "library/a__b-c.d--e",
                None,
                false,
            ),
        ] {
            let text = if with_digest {
                format!("{text}@{digest}")
            } else {
                text.to_owned()
            };
            let expected = (
                host.to_owned(),
                repository.to_owned(),
                tag.map(str::to_owned),
                with_digest.then(|| digest.clone()),
            );
            assert_eq!(registry(&text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn bad_names() {
        for (name, expected) in [
            ("", "no scheme"),
            ("python", "write \"docker://python\""),
            ("http://python", "unknown scheme \"http\""),
            ("docker://", "empty"),
            ("docker://foo:", "\"\" is not a tag"),
            ("docker://foo@", "\"\" is not a digest"),
            ("docker://foo:a:b", "\"a:b\" is not a tag"),
            ("docker://foo*bar", "'*' is not allowed"),
            ("docker://Foo", "upper-case"),
            ("docker://foo.com:/bar", "\"\" is not a port"),
            ("docker://foo.com:70000/bar", "\"70000\" is not a port"),
            ("docker://-a.com/bar", "not a host name"),
            ("docker://foo//bar", "empty"),
            ("docker://a___b", "punctuation"),
            ("docker://a_.b", "punctuation"),
            ("docker://.a", "punctuation"),
            ("docker://n@sha256:12", "64 hexadecimal digits, this has 2"),
            ("docker://n@sha256:xy", "not hexadecimal"),
            ("oci:", "no path"),
            ("oci-archive::x", "no path"),
            ("oci:a:", "nothing after"),
        ] {
            let error = name.parse::<ImageUri>().unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
            assert!(error.contains(&format!("{name:?}")), "{name}: {error}");
        }
    }

    #[test]
    fn local_forms() {
        let layout = |path: &str, reference: Option<&str>| ImageUri::OciLayout {
            path: path.into(),
            reference: reference.map(str::to_owned),
        };
        assert_eq!("oci:/a/b".parse(), Ok(layout("/a/b", None)));
        assert_eq!("oci:a:b:c".parse(), Ok(layout("a", Some("b:c"))));
        assert_eq!(
            "oci-archive:x.tar:v1".parse(),
            Ok(ImageUri::OciArchive {
                path: "x.tar".into(),
                reference: Some("v1".into())
            })
        );
    }

    #[test]
    fn familiar_names() {
        for (uri, familiar) in [
            ("docker://python:3", "python"),
            ("docker://docker.io/library/python", "python"),
            ("docker://foo/bar", "foo/bar"),
            ("docker://ghcr.io/acme/tool:v1", "ghcr.io/acme/tool"),
        ] {
            let Ok(ImageUri::Registry(reference)) = uri.parse() else {
                panic!("{uri}");
            };
            assert_eq!(reference.familiar_name(), familiar);
        }
    }

    proptest! {
        #[test]
        fn display_parses_back(text in "(docker://|oci:|oci-archive:)[a-z0-9.:/@_-]{0,30}") {
            if let Ok(uri) = text.parse::<ImageUri>() {
                prop_assert_eq!(uri.to_string().parse::<ImageUri>(), Ok(uri));
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = text.parse::<ImageUri>();
            let _ = format!("docker://{text}").parse::<ImageUri>();
        }
    }
}
