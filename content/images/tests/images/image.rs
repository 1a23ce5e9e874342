//! Images made in memory.

use crate::registry::State;
use flate2::{Compression, write::GzEncoder};
use maelstrom_images::Digest;
use std::{fs, io::Write, path::Path};
use tar::{Builder, EntryType, Header};

/// A tar file: `name/` is a directory, everything else a file with its contents.
pub(crate) fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, contents) in entries {
        let mut header = Header::new_gnu();
        header.set_mode(0o755);
        header.set_mtime(1_000_000);
        header.set_size(contents.len() as u64);
        if name.ends_with('/') {
            header.set_entry_type(EntryType::Directory);
        }
        builder.append_data(&mut header, name, *contents).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not pack, the same for the same seed.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A layer as it is packed, with the digest of its tar file.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) packed: Vec<u8>,
    pub(crate) diff_id: Digest,
    pub(crate) media_type: &'static str,
}

impl Layer {
    pub(crate) fn gzip(tar: &[u8]) -> Layer {
        Layer {
            packed: gzip(tar),
            diff_id: Digest::of(tar),
            media_type: "application/vnd.docker.image.rootfs.diff.tar.gzip",
        }
    }

    pub(crate) fn zstd(tar: &[u8]) -> Layer {
        Layer {
            packed: zstd::encode_all(tar, 3).unwrap(),
            diff_id: Digest::of(tar),
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    pub(crate) fn plain(tar: &[u8]) -> Layer {
        Layer {
            packed: tar.to_vec(),
            diff_id: Digest::of(tar),
            media_type: "application/vnd.oci.image.layer.v1.tar",
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.packed)
    }
}

/// An image with all that belongs to it.
#[derive(Clone)]
pub(crate) struct TestImage {
    pub(crate) layers: Vec<Layer>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

impl TestImage {
    pub(crate) fn new(layers: Vec<Layer>) -> TestImage {
        let architecture = maelstrom_images::Platform::host().architecture;
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = serde_json::json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/bin", "A=b=c"], "WorkingDir": "/work", "User": "x", "Volumes": null},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string()
        .into_bytes();
        let described: Vec<_> = layers
            .iter()
            .map(|layer| {
                serde_json::json!({
                    "mediaType": layer.media_type,
                    "digest": layer.digest().as_str(),
                    "size": layer.packed.len(),
                })
            })
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": Digest::of(&config).as_str(),
                "size": config.len(),
            },
            "layers": described,
        })
        .to_string()
        .into_bytes();
        TestImage {
            layers,
            config,
            manifest,
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// Everything by digest.
    fn blobs(&self) -> Vec<(Digest, Vec<u8>)> {
        let mut blobs = vec![(Digest::of(&self.config), self.config.clone())];
        for layer in &self.layers {
            blobs.push((layer.digest(), layer.packed.clone()));
        }
        blobs
    }

    pub(crate) fn push(&self, state: &mut State, repository: &str, tag: &str) {
        for (digest, bytes) in self.blobs() {
            let name = format!("{repository}/blobs/{digest}");
            state.contents.insert(name, bytes);
        }
        for reference in [tag, self.digest().as_str()] {
            let name = format!("{repository}/manifests/{reference}");
            state.contents.insert(name, self.manifest.clone());
        }
    }

    /// Writes an OCI layout with this image under `names`.
    pub(crate) fn write_layout(&self, directory: &Path, names: &[&str]) {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(
            directory.join("oci-layout"),
            r#"{"imageLayoutVersion": "1.0.0"}"#,
        )
        .unwrap();
        let mut all = self.blobs();
        all.push((self.digest(), self.manifest.clone()));
        for (digest, bytes) in all {
            fs::write(blobs.join(&digest.as_str()["sha256:".len()..]), bytes).unwrap();
        }
        let manifests: Vec<_> = names
            .iter()
            .map(|name| {
                serde_json::json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": self.digest().as_str(),
                    "size": self.manifest.len(),
                    "annotations": {"org.opencontainers.image.ref.name": name},
                })
            })
            .collect();
        let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(directory.join("index.json"), index.to_string()).unwrap();
    }
}
