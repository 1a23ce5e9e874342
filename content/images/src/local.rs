//! Images on this machine: OCI layout directories and tar files of them.

use crate::{
    Problem,
    digest::Digest,
    document::{self, Blob, Document, MAX_DOCUMENT_BYTES},
    files,
    platform::Platform,
    unpack::Part,
};
use oci_spec::image::Descriptor;
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek},
    path::{Path, PathBuf},
    sync::Arc,
};

/// How many entries an archive may have.
const MAX_ENTRIES: usize = 100_000;

/// An image layout, wherever its files are.
#[derive(Debug)]
pub(crate) struct Layout {
    /// What the user named.
    path: PathBuf,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Directory,
    Archive {
        file: Arc<File>,
        /// Where the contents of each file are, and how long they are.
        entries: HashMap<Vec<u8>, (u64, u64)>,
    },
}

impl Layout {
    pub(crate) fn directory(path: PathBuf) -> Layout {
        Layout {
            path,
            source: Source::Directory,
        }
    }

    /// Reads where things are in an archive.
    pub(crate) fn archive(path: PathBuf) -> Result<Layout, Problem> {
        let file = File::open(&path).map_err(Problem::io("read", &path))?;
        let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
        let bad = |problem: String| Problem::Layout {
            path: path.clone(),
            problem,
        };
        if !is_file {
            return Err(bad(
                "it is no file; for an OCI layout directory write `oci:`".into(),
            ));
        }
        let entries = entries(&file).map_err(|error| {
            bad(format!(
                "it is no tar file of an OCI layout, or broken: {error}"
            ))
        })?;
        Ok(Layout {
            path,
            source: Source::Archive {
                file: Arc::new(file),
                entries,
            },
        })
    }

    fn bad(&self, problem: impl Into<String>) -> Problem {
        Problem::Layout {
            path: self.path.clone(),
            problem: problem.into(),
        }
    }

    /// A file of the layout, with its length in bytes.
    fn open(&self, name: &str) -> Result<(Part, u64), Problem> {
        match &self.source {
            Source::Directory => {
                let path = self.path.join(name);
                let file = File::open(&path).map_err(Problem::io("read", &path))?;
                let metadata = file.metadata().map_err(Problem::io("read", &path))?;
                if !metadata.is_file() {
                    return Err(self.bad(format!("its {name} is no file")));
                }
                Ok((Part::new(Arc::new(file), 0, metadata.len()), metadata.len()))
            }
            Source::Archive { file, entries } => {
                let (at, length) = *entries
                    .get(name.as_bytes())
                    .ok_or_else(|| self.bad(format!("it has no {name}")))?;
                Ok((Part::new(file.clone(), at, length), length))
            }
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, Problem> {
        let (part, _) = self.open(name)?;
        files::read_all(part, MAX_DOCUMENT_BYTES)
            .map_err(Problem::io("read", &self.path))?
            .ok_or_else(|| Problem::TooLong {
                what: format!("{} of {}", name, self.path.display()),
                limit_bytes: MAX_DOCUMENT_BYTES,
                limit: "which is the most that such a file may have",
            })
    }

    /// A manifest, index or configuration, verified.
    pub(crate) fn document(&self, what: &str, digest: &Digest) -> Result<Vec<u8>, Problem> {
        let bytes = self.read(&blob_name(digest))?;
        let found = digest.of_same_kind(&bytes);
        if found == *digest {
            return Ok(bytes);
        }
        Err(Problem::WrongDigest {
            what: what.to_owned(),
            from: self.path.display().to_string(),
            expected: digest.clone(),
            found,
            advice: "; it is damaged",
        })
    }

    /// A layer, as it is packed. Not verified.
    pub(crate) fn layer(&self, blob: &Blob) -> Result<Part, Problem> {
        let (part, length) = self.open(&blob_name(&blob.digest))?;
        if length != blob.size_bytes {
            return Err(self.bad(format!(
                "its layer {} has {length} bytes, but the manifest says {}",
                blob.digest, blob.size_bytes
            )));
        }
        Ok(part)
    }

    /// The manifest of the image that is meant, with its digest.
    pub(crate) fn manifest(
        &self,
        reference: Option<&str>,
        platform: &Platform,
    ) -> Result<(Digest, document::Manifest), Problem> {
        fs::metadata(&self.path).map_err(Problem::io("read", &self.path))?;
        let marker = self.read("oci-layout");
        if let Err(Problem::Io { source, .. }) = &marker
            && source.kind() == io::ErrorKind::NotFound
        {
            return Err(self.bad(
                "it is no OCI layout: it has no file `oci-layout` (an image that `docker save` \
                 wrote can be turned into one with `skopeo copy`)",
            ));
        }
        marker?;
        let bytes = self.read("index.json")?;
        let index = document::parse_index(&bytes)
            .map_err(|problem| self.bad(format!("its index.json is malformed: {problem}")))?;
        let mut descriptor = self.choose(&index, reference, platform)?.clone();
        // An index may lead to an index of platforms, and that, in theory, to another.
        for _ in 0..4 {
            let blob = document::blob(&descriptor)
                .map_err(|problem| self.bad(format!("its index.json: {problem}")))?;
            let bytes = self.document("the manifest", &blob.digest)?;
            match Document::parse(&bytes, &blob.digest)? {
                Document::Manifest(manifest) => return Ok((blob.digest, manifest)),
                Document::Index(index) => descriptor = platform.choose(&index)?.clone(),
            }
        }
        Err(self.bad("its indexes lead to indexes again and again"))
    }

    fn choose<'a>(
        &self,
        index: &'a [Descriptor],
        reference: Option<&str>,
        platform: &Platform,
    ) -> Result<&'a Descriptor, Problem> {
        let Some(reference) = reference else {
            return match index {
                [only] => Ok(only),
                [] => Err(self.bad("it holds no image")),
                _ => Err(self.bad(format!(
                    "it holds {} images; write which one after a `:`{}",
                    index.len(),
                    names(index)
                ))),
            };
        };
        let is_meant = |descriptor: &&Descriptor| {
            image_names(descriptor).any(|name| name == reference)
                || descriptor.digest().to_string() == reference
        };
        let meant: Vec<&Descriptor> = index.iter().filter(is_meant).collect();
        match meant[..] {
            [only] => Ok(only),
            [] => Err(self.bad(format!("it holds no image {reference:?}{}", names(index)))),
            _ => {
                let copies: Vec<Descriptor> = meant.iter().map(|one| (*one).clone()).collect();
                let chosen = platform.choose(&copies)?;
                // The same one, but of the list that was given.
                meant
                    .into_iter()
                    .find(|one| *one == chosen)
                    .ok_or_else(|| self.bad("it holds no image"))
            }
        }
    }
}

fn blob_name(digest: &Digest) -> String {
    let (algorithm, hex) = digest.parts();
    format!("blobs/{algorithm}/{hex}")
}

/// What tools call an image of a layout.
fn image_names(descriptor: &Descriptor) -> impl Iterator<Item = &str> {
    [
        "org.opencontainers.image.ref.name",
        "io.containerd.image.name",
    ]
    .iter()
    .filter_map(|key| Some(descriptor.annotations().as_ref()?.get(*key)?.as_str()))
}

fn names(index: &[Descriptor]) -> String {
    let names: Vec<String> = index
        .iter()
        .flat_map(image_names)
        .take(20)
        .map(|name| format!("{name:?}"))
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!("; there is {}", names.join(", "))
    }
}

fn entries(file: &File) -> io::Result<HashMap<Vec<u8>, (u64, u64)>> {
    let mut reader = file.try_clone()?;
    reader.rewind()?;
    let mut start = [0; 2];
    let read = reader.read(&mut start)?;
    if start[..read] == [0x1f, 0x8b] {
        return Err(io::Error::other("it is packed by gzip; unpack it"));
    }
    reader.rewind()?;
    let length = file.metadata()?.len();
    let mut archive = tar::Archive::new(reader);
    let mut found = HashMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if found.len() >= MAX_ENTRIES {
            return Err(io::Error::other("it has more than 100,000 entries"));
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let (at, size) = (entry.raw_file_position(), entry.size());
        if at.saturating_add(size) > length {
            return Err(io::Error::other("it ends too early"));
        }
        let name = entry.path_bytes();
        let name = name.strip_prefix(b"./".as_slice()).unwrap_or(&name);
        found.insert(name.to_vec(), (at, size));
    }
    Ok(found)
}

/// Where a local image is that a project names.
pub(crate) fn locate(project_dir: &Path, path: &Path) -> PathBuf {
    project_dir.join(path)
}
