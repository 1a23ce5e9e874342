//! From the name of an image to layers of the store.

use crate::{
    Digest, ImageError, Platform, Problem, Progress, credentials,
    depot::{Depot, UnpackError},
    digest::Verified,
    document::{Blob, Config, Document, Manifest},
    local::{self, Layout},
    lockfile::LockFile,
    progress::Download,
    registry::Registry,
    transport::Manner,
    unpack,
};
use maelstrom_content::{LayerId, Store};
use maelstrom_spec::{ImageUri, RegistryReference};
use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// How many layers of an image are downloaded at the same time.
const PARALLEL: usize = 4;

/// How many indexes may lead to each other.
const MAX_INDEXES: usize = 4;

/// How images are found and kept.
#[derive(Clone, Debug)]
pub struct ImageOptions {
    /// Where downloaded images are kept. Created when it is needed.
    pub depot_root: PathBuf,
    /// Where the lock file is, and what relative paths of local images are relative to.
    pub project_dir: PathBuf,
    /// Whether registries may show certificates that nobody vouches for, or use no TLS at all.
    pub accept_invalid_tls_certs: bool,
    /// Docker's configuration file with credentials. `None`: there are none.
    pub docker_config: Option<PathBuf>,
    /// How long a registry may be silent before it is asked again.
    pub silence: Duration,
    /// For which machines.
    pub platform: Platform,
}

impl ImageOptions {
    /// For this machine, with the user's credentials.
    pub fn new(depot_root: impl Into<PathBuf>, project_dir: impl Into<PathBuf>) -> ImageOptions {
        ImageOptions {
            depot_root: depot_root.into(),
            project_dir: project_dir.into(),
            accept_invalid_tls_certs: false,
            docker_config: credentials::config_file(),
            silence: Duration::from_secs(60),
            platform: Platform::host(),
        }
    }
}

/// Finds images and makes layers of them. Can be used from several threads.
pub struct Images {
    options: ImageOptions,
    depot: Depot,
    lock_file: LockFile,
    registries: Mutex<HashMap<String, Arc<Registry>>>,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// An image whose manifest and configuration are known.
#[derive(Debug)]
pub struct Image {
    name: String,
    digest: Digest,
    layers: Vec<Layer>,
    config: Config,
    source: Source,
}

/// A layer as an image names it.
#[derive(Debug)]
struct Layer {
    /// As it is packed.
    blob: Blob,
    /// Unpacked.
    diff_id: Digest,
}

/// Where the layers are.
#[derive(Debug)]
enum Source {
    Registry(RegistryReference),
    Local(Layout),
}

impl Image {
    /// The digest of its manifest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// `NAME=VALUE`, as its configuration has them.
    pub fn environment(&self) -> &[String] {
        &self.config.environment
    }

    /// The working directory that its configuration sets.
    pub fn working_directory(&self) -> Option<&Path> {
        self.config.working_directory.as_deref().map(Path::new)
    }

    fn failed(&self, problem: Problem) -> ImageError {
        ImageError {
            image: self.name.clone(),
            problem: Box::new(problem),
        }
    }

    fn place(&self, index: usize) -> (usize, usize, Digest) {
        (
            index + 1,
            self.layers.len(),
            self.layers[index].blob.digest.clone(),
        )
    }

    fn unpack_problem(&self, index: usize, problem: String) -> Problem {
        let (number, count, digest) = self.place(index);
        Problem::Unpack {
            number,
            count,
            digest,
            problem,
        }
    }
}

impl Images {
    /// Nothing is read or written yet.
    pub fn new(options: ImageOptions) -> Images {
        Images {
            depot: Depot::new(options.depot_root.clone()),
            lock_file: LockFile::new(&options.project_dir),
            options,
            registries: Mutex::default(),
        }
    }

    /// Finds an image. Asks a registry only for what the lock file and the depot do not have.
    /// `name` is `uri` as it was written.
    ///
    /// # Errors
    ///
    /// Says what was asked for, from whom, and what came instead.
    pub fn get(&self, name: &str, uri: &ImageUri) -> Result<Image, ImageError> {
        let found = match uri {
            ImageUri::Registry(reference) => self.find_in_registry(reference),
            ImageUri::OciLayout { path, reference } => {
                let path = local::locate(&self.options.project_dir, path);
                self.find_in_layout(Layout::directory(path), reference.as_deref())
            }
            ImageUri::OciArchive { path, reference } => {
                let path = local::locate(&self.options.project_dir, path);
                Layout::archive(path)
                    .and_then(|layout| self.find_in_layout(layout, reference.as_deref()))
            }
        };
        let (digest, manifest, config, source) = found.map_err(|problem| ImageError {
            image: name.to_owned(),
            problem: Box::new(problem),
        })?;
        let layers = manifest
            .layers
            .into_iter()
            .zip(config.diff_ids.iter().cloned())
            .map(|(blob, diff_id)| Layer { blob, diff_id })
            .collect();
        let image = Image {
            name: name.to_owned(),
            digest,
            layers,
            config,
            source,
        };
        let wanted = self.options.platform.to_string();
        if image.config.platform != wanted {
            tracing::warn!(
                "container image {name} is for {}, and its programs may not run on {wanted}",
                image.config.platform
            );
        }
        Ok(image)
    }

    fn find_in_layout(
        &self,
        layout: Layout,
        reference: Option<&str>,
    ) -> Result<(Digest, Manifest, Config, Source), Problem> {
        let (digest, manifest) = layout.manifest(reference, &self.options.platform)?;
        let bytes = layout.document("the configuration", &manifest.config.digest)?;
        let config = Config::parse(&bytes, &manifest.config.digest, manifest.layers.len())?;
        Ok((digest, manifest, config, Source::Local(layout)))
    }

    fn find_in_registry(
        &self,
        reference: &RegistryReference,
    ) -> Result<(Digest, Manifest, Config, Source), Problem> {
        let pinned = self.pinned(reference)?;
        let (digest, document) = match &pinned {
            Some(digest) => (digest.clone(), self.document(reference, digest)?),
            None => self.resolve(reference)?,
        };
        let found = self.follow(reference, digest.clone(), document)?;
        if pinned.is_some() {
            return Ok(found);
        }
        // Only what can be used is pinned.
        match self.lock_file.pin(reference, &digest) {
            Ok(pinned) if pinned == digest => Ok(found),
            // Somebody else was faster.
            Ok(pinned) => {
                let document = self.document(reference, &pinned)?;
                self.follow(reference, pinned, document)
            }
            Err(problem @ Problem::Io { .. }) => {
                tracing::warn!(
                    "{problem}; the tag {} of {} is not pinned",
                    reference.tag_or_latest(),
                    reference.familiar_name()
                );
                Ok(found)
            }
            Err(problem) => Err(problem),
        }
    }

    /// From a manifest, or an index that leads to one, to a configuration.
    fn follow(
        &self,
        reference: &RegistryReference,
        mut digest: Digest,
        mut document: Document,
    ) -> Result<(Digest, Manifest, Config, Source), Problem> {
        let mut indexes = 0;
        let manifest = loop {
            match document {
                Document::Manifest(manifest) => break manifest,
                Document::Index(index) => {
                    indexes += 1;
                    if indexes > MAX_INDEXES {
                        return Err(Problem::Document {
                            what: "the image index",
                            digest: Some(digest),
                            problem: "indexes lead to indexes again and again".into(),
                        });
                    }
                    let chosen = self.options.platform.choose(&index)?;
                    let chosen =
                        crate::document::blob(chosen).map_err(|problem| Problem::Document {
                            what: "the image index",
                            digest: Some(digest.clone()),
                            problem,
                        })?;
                    digest = chosen.digest;
                    document = self.document(reference, &digest)?;
                }
            }
        };
        let bytes = match self.depot.config(&digest, &manifest.config)? {
            Some(bytes) => bytes,
            None => {
                let bytes = self.registry(reference).document(
                    "the configuration",
                    &reference.repository,
                    &manifest.config,
                )?;
                self.depot.keep_config(&digest, &bytes)?;
                bytes
            }
        };
        let config = Config::parse(&bytes, &manifest.config.digest, manifest.layers.len())?;
        Ok((
            digest,
            manifest,
            config,
            Source::Registry(reference.clone()),
        ))
    }

    /// What a reference means without asking anybody.
    fn pinned(&self, reference: &RegistryReference) -> Result<Option<Digest>, Problem> {
        match &reference.digest {
            None => self.lock_file.get(reference),
            Some(text) => text.parse().map(Some).map_err(|problem| Problem::Document {
                what: "its digest",
                digest: None,
                problem,
            }),
        }
    }

    /// Asks what a tag means.
    fn resolve(&self, reference: &RegistryReference) -> Result<(Digest, Document), Problem> {
        let (bytes, digest) = self
            .registry(reference)
            .manifest(&reference.repository, reference.tag_or_latest())?;
        let document = Document::parse(&bytes, &digest)?;
        self.depot.keep_document(&digest, &document, &bytes)?;
        Ok((digest, document))
    }

    /// The manifest or index of a digest, from the depot or the registry.
    fn document(
        &self,
        reference: &RegistryReference,
        digest: &Digest,
    ) -> Result<Document, Problem> {
        if let Some(document) = self.depot.document(digest)? {
            return Ok(document);
        }
        let (bytes, _) = self
            .registry(reference)
            .manifest(&reference.repository, digest.as_str())?;
        let document = Document::parse(&bytes, digest)?;
        self.depot.keep_document(digest, &document, &bytes)?;
        Ok(document)
    }

    fn registry(&self, reference: &RegistryReference) -> Arc<Registry> {
        self.registries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(reference.host.clone())
            .or_insert_with(|| {
                let manner = Manner {
                    accept_invalid_certs: self.options.accept_invalid_tls_certs,
                    silence: self.options.silence,
                };
                let credentials = self.options.docker_config.clone();
                Arc::new(Registry::new(&reference.host, manner, credentials))
            })
            .clone()
    }

    /// Makes the layers of an image, the lowest first, or finds those that were made before. The
    /// store keeps them as if they had been built through it.
    ///
    /// # Errors
    ///
    /// Says which layer of which image could not be had and why. What has come of it is kept.
    pub fn layers(
        &self,
        image: &Image,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Vec<LayerId>, ImageError> {
        match &image.source {
            Source::Local(layout) => self.local_layers(image, layout, store),
            Source::Registry(reference) => self.registry_layers(image, reference, store, progress),
        }
        .map_err(|problem| image.failed(problem))
    }

    fn local_layers(
        &self,
        image: &Image,
        layout: &Layout,
        store: &Store,
    ) -> Result<Vec<LayerId>, Problem> {
        let mut ids = Vec::with_capacity(image.layers.len());
        for (index, layer) in image.layers.iter().enumerate() {
            if let Some(id) = store.find_image_layer(layer.diff_id.as_str(), &ids)? {
                ids.push(id);
                continue;
            }
            let blob = &layer.blob;
            let mut packed = Verified::new(layout.layer(blob)?, &blob.digest, blob.size_bytes);
            let problem = |problem: String| image.unpack_problem(index, problem);
            let mut unpacked = Verified::new(
                unpack::reader(&mut packed).map_err(|error| problem(error.to_string()))?,
                &layer.diff_id,
                unpack::limit_bytes(blob.size_bytes),
            );
            let source = PathBuf::from(blob.digest.as_str());
            let made =
                store.build_image_layer(layer.diff_id.as_str(), &ids, &source, &mut unpacked);
            drop(unpacked);
            // Of what is packed wrongly, that is what is worth telling.
            if let Some(found) = packed.found {
                return Err(problem(format!("what is there has the digest {found}")));
            }
            ids.push(made.map_err(|error| layer_problem(image, index, error))?);
        }
        Ok(ids)
    }

    fn registry_layers(
        &self,
        image: &Image,
        reference: &RegistryReference,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Vec<LayerId>, Problem> {
        let mut ids = Vec::with_capacity(image.layers.len());
        for layer in &image.layers {
            match store.find_image_layer(layer.diff_id.as_str(), &ids)? {
                Some(id) => ids.push(id),
                None => break,
            }
        }
        if ids.len() == image.layers.len() {
            return Ok(ids);
        }
        let _lock = self.depot.lock_image(&image.digest, || {
            tracing::info!("another process is downloading {}", image.name);
        })?;
        let wanted: Vec<usize> = (ids.len()..image.layers.len())
            .filter(|index| !self.depot.layer_path(&image.digest, *index).exists())
            .collect();
        let total_bytes = wanted
            .iter()
            .map(|index| image.layers[*index].blob.size_bytes)
            .sum();
        let fetch = Fetch {
            images: self,
            image,
            reference,
            download: Download::new(progress, &image.name, total_bytes),
            stop: AtomicBool::new(false),
            failure: Mutex::default(),
        };
        if !wanted.is_empty() {
            tracing::info!(
                "downloading {} ({} layers, {:.1} MB)",
                image.name,
                wanted.len(),
                total_bytes as f64 / 1e6
            );
        }
        let (mut arriving, queue): (HashMap<_, _>, Vec<_>) = wanted
            .into_iter()
            .map(|index| {
                let (send, receive) = mpsc::sync_channel::<()>(1);
                ((index, receive), (index, send))
            })
            .unzip();
        let threads = PARALLEL.min(queue.len());
        let queue = Mutex::new(queue.into_iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    // That its sender is dropped tells that a layer is there, or will not be.
                    while let Some((index, _sender)) = next() {
                        if let Err(problem) = fetch.layer(index, Origin::Anywhere) {
                            fetch.fail(problem);
                        }
                    }
                });
            }
            if let Err(problem) = self.build_layers(image, store, &mut ids, &fetch, &mut arriving) {
                fetch.fail(problem);
            }
        });
        match fetch.into_failure() {
            Some(problem) => Err(problem),
            None => Ok(ids),
        }
    }

    /// Makes the layers that are still wanted, each as soon as it is there.
    fn build_layers(
        &self,
        image: &Image,
        store: &Store,
        ids: &mut Vec<LayerId>,
        fetch: &Fetch<'_>,
        arriving: &mut HashMap<usize, mpsc::Receiver<()>>,
    ) -> Result<(), Problem> {
        for index in ids.len()..image.layers.len() {
            if let Some(arriving) = arriving.remove(&index) {
                // Nothing is ever sent: its other end is dropped when the layer is there.
                let _ = arriving.recv();
            }
            if fetch.has_failed() {
                return Ok(());
            }
            let diff_id = &image.layers[index].diff_id;
            if let Some(id) = store.find_image_layer(diff_id.as_str(), ids)? {
                ids.push(id);
                continue;
            }
            let id = match self.build_layer(image, store, ids, index)? {
                Some(id) => id,
                None => {
                    tracing::warn!(
                        "{} is damaged; getting it again",
                        self.depot.layer_path(&image.digest, index).display()
                    );
                    fetch.layer(index, Origin::Registry)?;
                    self.build_layer(image, store, ids, index)?.ok_or_else(|| {
                        image.unpack_problem(index, "it is damaged again and again".into())
                    })?
                }
            };
            ids.push(id);
        }
        Ok(())
    }

    /// Makes a layer of its tar file in the depot. `None`: that was damaged, and is removed.
    fn build_layer(
        &self,
        image: &Image,
        store: &Store,
        below: &[LayerId],
        index: usize,
    ) -> Result<Option<LayerId>, Problem> {
        let layer = &image.layers[index];
        let path = self.depot.layer_path(&image.digest, index);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Problem::io("read", &path)(source)),
        };
        let length = file.metadata().map_err(Problem::io("read", &path))?.len();
        let reader = std::io::BufReader::with_capacity(128 << 10, file);
        let mut verified = Verified::new(reader, &layer.diff_id, length);
        let made = store.build_image_layer(layer.diff_id.as_str(), below, &path, &mut verified);
        let error = match made {
            Ok(id) => return Ok(Some(id)),
            Err(error) => error,
        };
        // What is no tar file may be what the image has, or what a crash has left of it.
        let rest = std::io::copy(&mut verified, &mut std::io::sink());
        if rest.is_err() && verified.found.is_some() {
            fs::remove_file(&path).map_err(Problem::io("remove", &path))?;
            return Ok(None);
        }
        Err(layer_problem(image, index, error))
    }
}

fn layer_problem(image: &Image, index: usize, error: maelstrom_content::LayerError) -> Problem {
    let (number, count, digest) = image.place(index);
    Problem::Layer {
        number,
        count,
        digest,
        error: Box::new(error),
    }
}

/// Gets layers of one image from its registry into the depot.
struct Fetch<'a> {
    images: &'a Images,
    image: &'a Image,
    reference: &'a RegistryReference,
    download: Download<'a>,
    /// Set once it is no use to go on.
    stop: AtomicBool,
    /// What went wrong first; the rest follows from it.
    failure: Mutex<Option<Problem>>,
}

/// Where a layer may be taken from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Also from other images of the depot.
    Anywhere,
    Registry,
}

impl Fetch<'_> {
    fn fail(&self, problem: Problem) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(problem);
        self.stop.store(true, Ordering::Release);
    }

    fn has_failed(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn into_failure(self) -> Option<Problem> {
        self.failure
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn layer(&self, index: usize, origin: Origin) -> Result<(), Problem> {
        let Layer { blob, diff_id } = &self.image.layers[index];
        let depot = &self.images.depot;
        let image = &self.image.digest;
        let mut partial = depot.partial(&blob.digest)?;
        if origin == Origin::Anywhere && depot.link_layer(image, index, blob)? {
            self.download.moved(0, blob.size_bytes);
            partial.remove();
            return Ok(());
        }
        let (number, count, digest) = self.image.place(index);
        let doing = format!("getting layer {number} of {count} ({digest})");
        let mut have = 0;
        self.images.registry(self.reference).blob(
            &doing,
            &self.reference.repository,
            blob,
            &mut partial.file,
            &mut |now| {
                self.download.moved(have, now);
                have = now;
                !self.has_failed()
            },
        )?;
        let unpacked = depot.unpack_layer(image, index, blob, diff_id, &partial.file);
        match unpacked {
            Ok(()) => {
                partial.remove();
                Ok(())
            }
            Err(UnpackError::Layer(error)) => {
                // It is what the manifest names, so it will be no better the next time.
                partial.remove();
                Err(self.image.unpack_problem(index, error.to_string()))
            }
            Err(UnpackError::Other(problem)) => Err(problem),
        }
    }
}
