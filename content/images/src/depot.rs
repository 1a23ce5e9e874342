//! Where downloaded images are kept, shared by all projects and processes of a user.
//!
//! ```text
//! sha256:ID/manifest.json   the manifest, word for word
//! sha256:ID/config.json     the configuration, word for word
//! sha256:ID/layer_N.tar     the layers, unpacked
//! .sha256:ID.flock          locked while layers of the image are downloaded
//! .indexes/sha256:ID.json   the indexes that led to manifests
//! .partial/sha256:ID        layers on their way; locked while they are
//! ```
//!
//! Everything is known by its digest and compared with it whenever it is read, so what a crash
//! or a full disk has damaged is noticed, and fetched again. Nothing is ever removed but that.

use crate::{
    Problem,
    digest::{Digest, Verified},
    document::{Blob, Document, MAX_DOCUMENT_BYTES, Manifest},
    files, unpack,
};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// What the names of layers start with while they are unpacked, which is done only by who has
/// the image locked.
const UNFINISHED: &str = ".layer-";

/// The directory of all images.
#[derive(Clone, Debug)]
pub(crate) struct Depot {
    root: PathBuf,
}

impl Depot {
    pub(crate) fn new(root: PathBuf) -> Depot {
        Depot { root }
    }

    fn image(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.as_str())
    }

    fn manifest_path(&self, digest: &Digest) -> PathBuf {
        self.image(digest).join("manifest.json")
    }

    fn index_path(&self, digest: &Digest) -> PathBuf {
        self.root.join(".indexes").join(format!("{digest}.json"))
    }

    fn config_path(&self, image: &Digest) -> PathBuf {
        self.image(image).join("config.json")
    }

    pub(crate) fn layer_path(&self, image: &Digest, index: usize) -> PathBuf {
        self.image(image).join(format!("layer_{index}.tar"))
    }

    /// The manifest or index of a digest, if it is here.
    pub(crate) fn document(&self, digest: &Digest) -> Result<Option<Document>, Problem> {
        for path in [self.manifest_path(digest), self.index_path(digest)] {
            if let Some(bytes) = read_verified(&path, digest)? {
                return Document::parse(&bytes, digest).map(Some);
            }
        }
        Ok(None)
    }

    /// Keeps a manifest or index that was found to be what its digest says.
    pub(crate) fn keep_document(
        &self,
        digest: &Digest,
        document: &Document,
        bytes: &[u8],
    ) -> Result<(), Problem> {
        let path = match document {
            Document::Manifest(_) => self.manifest_path(digest),
            Document::Index(_) => self.index_path(digest),
        };
        write(&path, bytes)
    }

    /// The configuration of an image, if it is here.
    pub(crate) fn config(&self, image: &Digest, config: &Blob) -> Result<Option<Vec<u8>>, Problem> {
        read_verified(&self.config_path(image), &config.digest)
    }

    pub(crate) fn keep_config(&self, image: &Digest, bytes: &[u8]) -> Result<(), Problem> {
        write(&self.config_path(image), bytes)
    }

    /// Held while layers of an image are downloaded, so that only one process does. `waiting` is
    /// called if another one is at it.
    pub(crate) fn lock_image(
        &self,
        image: &Digest,
        waiting: impl FnOnce(),
    ) -> Result<File, Problem> {
        let directory = self.image(image);
        create_directory(&directory)?;
        let lock = files::lock(&self.root.join(format!(".{image}.flock")), waiting)?;
        // Whoever was at it before may have been killed.
        let entries = fs::read_dir(&directory).map_err(Problem::io("read", &directory))?;
        for entry in entries.flatten() {
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(UNFINISHED.as_bytes())
            {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(lock)
    }

    /// The file that a layer is downloaded into, with what has come of it. Others wait.
    pub(crate) fn partial(&self, blob: &Digest) -> Result<Partial, Problem> {
        let directory = self.root.join(".partial");
        create_directory(&directory)?;
        let path = directory.join(blob.as_str());
        let file = files::lock(&path, || {})?;
        Ok(Partial { path, file })
    }

    /// Lets a layer be another name of the same layer of whichever image has it. Says whether
    /// one has.
    pub(crate) fn link_layer(
        &self,
        image: &Digest,
        index: usize,
        blob: &Blob,
    ) -> Result<bool, Problem> {
        let path = self.layer_path(image, index);
        if path.exists() {
            return Ok(true);
        }
        let entries = fs::read_dir(&self.root).map_err(Problem::io("read", &self.root))?;
        for entry in entries.flatten() {
            let Some(other) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let Ok(Some(Document::Manifest(Manifest { layers, .. }))) = self.document(&other)
            else {
                continue;
            };
            for (number, layer) in layers.iter().enumerate() {
                if layer.digest == blob.digest
                    && fs::hard_link(self.layer_path(&other, number), &path).is_ok()
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Unpacks what was downloaded to where the layer belongs. An error is what is wrong with
    /// it, or with the disk.
    pub(crate) fn unpack_layer(
        &self,
        image: &Digest,
        index: usize,
        blob: &Blob,
        diff_id: &Digest,
        packed: &File,
    ) -> Result<(), UnpackError> {
        let path = self.layer_path(image, index);
        let directory = self.image(image);
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&directory)
            .map_err(Problem::io("write in", &directory))?;
        let packed = packed
            .try_clone()
            .and_then(unpack::Part::whole)
            .map_err(Problem::io("read", &path))?;
        let unpacked = unpack::reader(packed).map_err(UnpackError::Layer)?;
        let mut verified = Verified::new(unpacked, diff_id, unpack::limit_bytes(blob.size_bytes));
        copy(&mut verified, file.as_file_mut(), &path)?;
        files::persist(file, &path)?;
        Ok(())
    }
}

/// Why a layer was not unpacked.
pub(crate) enum UnpackError {
    /// It is itself at fault.
    Layer(io::Error),
    /// Something else is.
    Other(Problem),
}

impl From<Problem> for UnpackError {
    fn from(problem: Problem) -> Self {
        UnpackError::Other(problem)
    }
}

/// As [`io::copy`], telling apart which side failed.
fn copy(from: &mut impl io::Read, to: &mut impl io::Write, path: &Path) -> Result<(), UnpackError> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to
                .write_all(&buffer[..read])
                .map_err(Problem::io("write", path))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(UnpackError::Layer(error)),
        }
    }
}

/// A layer on its way.
pub(crate) struct Partial {
    path: PathBuf,
    pub(crate) file: File,
}

impl Partial {
    /// Removes it, once it is not needed any more.
    pub(crate) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn create_directory(path: &Path) -> Result<(), Problem> {
    fs::create_dir_all(path).map_err(Problem::io("create the directory", path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    create_directory(path.parent().unwrap_or(Path::new(".")))?;
    files::write_whole(path, bytes)
}

/// What a file holds, if it holds what it should.
fn read_verified(path: &Path, digest: &Digest) -> Result<Option<Vec<u8>>, Problem> {
    let bytes = match files::read_bounded(path, MAX_DOCUMENT_BYTES) {
        Err(Problem::TooLong { .. }) => None,
        other => other?,
    };
    Ok(bytes.filter(|bytes| digest.of_same_kind(bytes) == *digest))
}
