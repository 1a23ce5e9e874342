//! Container images of a client's containers.

use crate::ui::{TransferId, UiSender};
use maelstrom_content::{LayerId, Store};
use maelstrom_images::{Image, ImageOptions, Images, Progress};
use maelstrom_spec::{CollapsedImage, ImageUse, JobError, image_environment};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// How container images are found and kept.
#[derive(Clone, Debug)]
pub struct ImageConfig {
    depot_root: PathBuf,
    accept_invalid_tls_certs: bool,
    progress: Arc<dyn Progress>,
}

impl ImageConfig {
    /// Downloaded images are kept in `depot_root`, which is created when it is needed.
    pub fn new(depot_root: impl Into<PathBuf>) -> ImageConfig {
        ImageConfig {
            depot_root: depot_root.into(),
            accept_invalid_tls_certs: false,
            progress: Arc::new(()),
        }
    }

    /// Whether registries may show certificates that nobody vouches for.
    #[must_use]
    pub fn accept_invalid_tls_certs(mut self, accept: bool) -> ImageConfig {
        self.accept_invalid_tls_certs = accept;
        self
    }

    /// Who shows how far downloads are.
    #[must_use]
    pub fn progress(mut self, progress: Arc<dyn Progress>) -> ImageConfig {
        self.progress = progress;
        self
    }
}

/// Where the numbers of downloads start among those of transfers.
const FIRST_TRANSFER: u64 = 1 << 63;

impl Progress for UiSender {
    fn downloading(&self, number: u64, image: &str, bytes: u64, total_bytes: u64) {
        let id = TransferId(FIRST_TRANSFER | number);
        self.transfer(id, image, bytes, Some(total_bytes));
    }

    fn downloaded(&self, number: u64) {
        self.transfer_done(TransferId(FIRST_TRANSFER | number));
    }
}

/// What an image gives to a container.
#[derive(Debug, Default)]
pub(crate) struct PreparedImage {
    /// The lowest first.
    pub(crate) layers: Vec<LayerId>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) working_directory: Option<PathBuf>,
}

/// Finds each image once, and makes its layers once, whoever asks.
#[derive(Debug)]
pub(crate) struct ClientImages {
    images: Images,
    progress: Arc<dyn Progress>,
    found: Mutex<HashMap<String, Arc<Found>>>,
}

/// An image that somebody asked for. Those who ask while it is looked for wait.
#[derive(Debug, Default)]
struct Found {
    image: OnceLock<Result<Image, JobError>>,
    layers: OnceLock<Result<Vec<LayerId>, JobError>>,
}

impl ClientImages {
    pub(crate) fn new(config: &ImageConfig, project_dir: &Path) -> ClientImages {
        ClientImages {
            images: Images::new(ImageOptions {
                accept_invalid_tls_certs: config.accept_invalid_tls_certs,
                ..ImageOptions::new(&config.depot_root, project_dir)
            }),
            progress: config.progress.clone(),
            found: Mutex::default(),
        }
    }

    /// Everything that a container takes from its image.
    pub(crate) fn prepare(
        &self,
        wanted: &CollapsedImage,
        store: &Store,
    ) -> Result<PreparedImage, JobError> {
        let remote = |error: &dyn std::fmt::Display| JobError::Remote(error.to_string());
        let found = self
            .found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(wanted.name.clone())
            .or_default()
            .clone();
        let image = found
            .image
            .get_or_init(|| {
                self.images
                    .get(&wanted.name, &wanted.uri)
                    .map_err(|error| remote(&error))
            })
            .as_ref()
            .map_err(Clone::clone)?;
        let mut prepared = PreparedImage::default();
        if wanted.members.contains(&ImageUse::Layers) {
            prepared.layers = found
                .layers
                .get_or_init(|| {
                    self.images
                        .layers(image, store, &*self.progress)
                        .map_err(|error| remote(&error))
                })
                .clone()?;
        }
        if wanted.members.contains(&ImageUse::Environment) {
            prepared.environment = image_environment(&wanted.name, image.environment())
                .map_err(|error| remote(&error))?;
        }
        if wanted.members.contains(&ImageUse::WorkingDirectory) {
            prepared.working_directory = image
                .working_directory()
                .map(|directory| Path::new("/").join(directory));
        }
        Ok(prepared)
    }
}
