//! Manifests, indexes and configurations, as OCI's image specification and Docker's older
//! formats have them.

use crate::{Problem, digest::Digest};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;

/// The longest manifest, index or configuration that is accepted, in bytes: what the
/// distribution specification asks registries to accept.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// The most layers that an image may have; tools make at most 127.
const MAX_LAYERS: usize = 512;

/// The most images that an index may name.
const MAX_INDEX: usize = 4096;

/// The longest layer, packed or not, in bytes.
pub(crate) const MAX_LAYER_BYTES: u64 = 64 << 30;

/// What is asked for where a manifest or an index may come.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest, or several to choose from.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

/// What an image is made of.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Blob>,
}

/// Something that is known by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
}

/// What is used of an image's configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// As in "linux/amd64".
    pub(crate) platform: String,
    /// `NAME=VALUE`.
    pub(crate) environment: Vec<String>,
    pub(crate) working_directory: Option<String>,
    /// The digests of the layers' tar files, unpacked.
    pub(crate) diff_ids: Vec<Digest>,
}

/// What tells the kinds of documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads a manifest or an index that may come from anyone.
    pub(crate) fn parse(bytes: &[u8], digest: &Digest) -> Result<Document, Problem> {
        let bad = |what: &'static str, problem: String| Problem::Document {
            what,
            digest: Some(digest.clone()),
            problem,
        };
        let malformed = |what| move |error: serde_json::Error| bad(what, error.to_string());
        let probe: Probe = serde_json::from_slice(bytes).map_err(malformed("the manifest"))?;
        if probe.schema_version == Some(1) || probe.fs_layers.is_some() {
            return Err(bad(
                "the manifest",
                "it is of the old format \"schema 1\"; push the image anew with a current tool"
                    .into(),
            ));
        }
        let is_index = match probe.media_type.as_deref() {
            Some(
                "application/vnd.oci.image.index.v1+json"
                | "application/vnd.docker.distribution.manifest.list.v2+json",
            ) => true,
            Some(
                "application/vnd.oci.image.manifest.v1+json"
                | "application/vnd.docker.distribution.manifest.v2+json",
            ) => false,
            Some(other) => {
                return Err(bad("the manifest", format!("{other:.200?} is no image")));
            }
            // The media type is optional in OCI's documents.
            None if probe.manifests.is_some() && probe.layers.is_some() => {
                return Err(bad(
                    "the manifest",
                    "it has both `manifests` and `layers`, so it is unclear what it is".into(),
                ));
            }
            None => probe.manifests.is_some(),
        };
        if is_index {
            return parse_index(bytes)
                .map(Document::Index)
                .map_err(|problem| bad("the image index", problem));
        }
        let manifest: ImageManifest =
            serde_json::from_slice(bytes).map_err(malformed("the manifest"))?;
        if manifest.layers().len() > MAX_LAYERS {
            return Err(bad(
                "the manifest",
                format!("it has more than {MAX_LAYERS} layers"),
            ));
        }
        if let MediaType::Other(kind) = manifest.config().media_type()
            && !is_image_config(kind)
        {
            return Err(bad(
                "the manifest",
                format!("it is of {kind:.200?}, not of a container image"),
            ));
        }
        let layers = manifest
            .layers()
            .iter()
            .map(layer)
            .collect::<Result<_, _>>();
        Ok(Document::Manifest(Manifest {
            config: blob(manifest.config()).map_err(|problem| bad("the manifest", problem))?,
            layers: layers.map_err(|problem| bad("the manifest", problem))?,
        }))
    }
}

/// Reads the images of an index.
pub(crate) fn parse_index(bytes: &[u8]) -> Result<Vec<Descriptor>, String> {
    let index: ImageIndex = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if index.manifests().len() > MAX_INDEX {
        return Err(format!("it names more than {MAX_INDEX} images"));
    }
    Ok(index.manifests().clone())
}

fn is_image_config(media_type: &str) -> bool {
    media_type == "application/vnd.docker.container.image.v1+json"
}

/// A descriptor as what it is known by.
pub(crate) fn blob(descriptor: &Descriptor) -> Result<Blob, String> {
    Ok(Blob {
        digest: descriptor.digest().to_string().parse()?,
        size_bytes: descriptor.size(),
    })
}

fn layer(descriptor: &Descriptor) -> Result<Blob, String> {
    let kind = descriptor.media_type().to_string();
    let is_tar = [
        "application/vnd.oci.image.layer.",
        "application/vnd.docker.image.rootfs.",
    ]
    .iter()
    .any(|start| kind.starts_with(start));
    if !is_tar {
        return Err(format!("a layer of the unknown type {kind:.200?}"));
    }
    if kind.contains("encrypted") {
        return Err("its layers are encrypted".into());
    }
    let blob = blob(descriptor)?;
    if blob.size_bytes > MAX_LAYER_BYTES {
        return Err(format!(
            "a layer of {} bytes; the most is {MAX_LAYER_BYTES}",
            blob.size_bytes
        ));
    }
    Ok(blob)
}

impl Config {
    /// Reads a configuration that may come from anyone, for an image of so many layers.
    pub(crate) fn parse(bytes: &[u8], digest: &Digest, layers: usize) -> Result<Config, Problem> {
        let bad = |problem: String| Problem::Document {
            what: "the configuration",
            digest: Some(digest.clone()),
            problem,
        };
        let config: ImageConfiguration =
            serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        let diff_ids = config
            .rootfs()
            .diff_ids()
            .iter()
            .map(|text| text.parse())
            .collect::<Result<Vec<Digest>, _>>()
            .map_err(bad)?;
        if diff_ids.len() != layers {
            return Err(bad(format!(
                "it tells of {} layers, but the manifest of {layers}",
                diff_ids.len()
            )));
        }
        let run = config.config().as_ref();
        Ok(Config {
            platform: format!("{}/{}", config.os(), config.architecture()),
            environment: run.and_then(|run| run.env().clone()).unwrap_or_default(),
            working_directory: run
                .and_then(|run| run.working_dir().clone())
                .filter(|directory| !directory.is_empty()),
            diff_ids,
        })
    }
}
