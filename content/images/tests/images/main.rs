//! Images from a registry that behaves, or does not, and from layouts.

mod faults;
mod image;
mod login;
mod registry;

use image::{Layer, TestImage, noise, tar};
use maelstrom_content::{EntryKind, LayerId, Store, StoreOptions};
use maelstrom_images::{Image, ImageError, ImageOptions, Images, LOCK_FILE_NAME};
use registry::Registry;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::Duration,
};

/// A project, a depot and a store.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place {
            directory: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(place.project()).unwrap();
        place
    }

    fn project(&self) -> PathBuf {
        self.directory.path().join("project")
    }

    fn depot(&self) -> PathBuf {
        self.directory.path().join("depot")
    }

    fn options(&self) -> ImageOptions {
        ImageOptions {
            docker_config: Some(self.directory.path().join("config.json")),
            silence: Duration::from_secs(20),
            ..ImageOptions::new(self.depot(), self.project())
        }
    }

    fn store(&self) -> Store {
        Store::open(
            &self.directory.path().join("store"),
            StoreOptions::default(),
        )
        .unwrap()
    }

    /// As a process would that uses the image and nothing else.
    fn pull(&self, name: &str) -> Result<(Image, Vec<LayerId>), ImageError> {
        let images = Images::new(self.options());
        let image = images.get(name, &name.parse().unwrap())?;
        let layers = images.layers(&image, &self.store(), &())?;
        Ok((image, layers))
    }

    fn error(&self, name: &str) -> String {
        match self.pull(name) {
            Ok(_) => panic!("{name} can be used"),
            Err(error) => error.to_string(),
        }
    }

    fn forget_store(&self) {
        fs::remove_dir_all(self.directory.path().join("store")).unwrap();
    }

    /// What lies about in the depot.
    fn depot_files(&self, of: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.depot().join(of)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// The entries of layers, as text.
fn show(store: &Store, layers: &[LayerId]) -> Vec<Vec<String>> {
    let show = |entry: &maelstrom_content::Entry| match &entry.kind {
        EntryKind::Directory { opaque } => {
            format!("{}/{}", entry.path, if *opaque { " opaque" } else { "" })
        }
        EntryKind::Whiteout => format!("{} hidden", entry.path),
        EntryKind::File { size_bytes, .. } => format!("{} {size_bytes}", entry.path),
        EntryKind::Symlink { .. } => format!("{} link", entry.path),
    };
    layers
        .iter()
        .map(|id| {
            store
                .manifest(*id)
                .unwrap()
                .entries()
                .iter()
                .map(show)
                .collect()
        })
        .collect()
}

/// An image of three layers, each packed in another way.
fn three_layers() -> TestImage {
    TestImage::new(vec![
        Layer::gzip(&tar(&[
            ("a/", b""),
            ("a/f", b"one"),
            ("a/g", &noise(300_000, 1)),
        ])),
        Layer::zstd(&tar(&[
            ("a/", b""),
            ("a/.wh.f", b""),
            ("b/", b""),
            ("b/.wh..wh..opq", b""),
        ])),
        Layer::plain(&tar(&[("c", b"three"), (".wh.d", b"")])),
    ])
}

#[test]
fn an_image_is_pulled_once_and_then_needs_no_registry() {
    let registry = Registry::start();
    let image = three_layers();
    image.push(&mut registry.state(), "some/image", "v1");
    let place = Place::new();
    let name = format!("docker://{}/some/image:v1", registry.host);
    let (pulled, layers) = place.pull(&name).unwrap();
    assert_eq!(pulled.digest(), &image.digest());
    assert_eq!(pulled.environment(), ["PATH=/bin", "A=b=c"]);
    assert_eq!(pulled.working_directory(), Some(Path::new("/work")));
    assert_eq!(
        show(&place.store(), &layers),
        [
            vec!["/a/", "/a/f 3", "/a/g 300000"],
            vec!["/a/", "/a/f hidden", "/b/ opaque"],
            vec!["/c 5", "/d hidden"]
        ]
    );
    assert_eq!(
        fs::read_to_string(place.project().join(LOCK_FILE_NAME)).unwrap(),
        format!(
            "version = 1\n\n[\"{}/some/image\"]\nv1 = \"{}\"\n",
            registry.host,
            image.digest()
        )
    );
    assert_eq!(
        place.depot_files(image.digest().as_str()),
        [
            "config.json",
            "layer_0.tar",
            "layer_1.tar",
            "layer_2.tar",
            "manifest.json"
        ]
    );
    assert_eq!(place.depot_files(".partial"), [""; 0]);
    // A manifest, a configuration, three layers.
    assert_eq!(registry.take_requests().len(), 5);

    // From here on the registry would be asked in vain.
    registry.state().contents.clear();
    assert_eq!(place.pull(&name).unwrap().1, layers);
    place.forget_store();
    assert_eq!(place.pull(&name).unwrap().1, layers);
    assert_eq!(registry.take_requests(), [""; 0]);
}

#[test]
fn a_store_that_has_the_layers_needs_no_depot_for_them() {
    let registry = Registry::start();
    let image = three_layers();
    image.push(&mut registry.state(), "i", "latest");
    let place = Place::new();
    let name = format!("docker://{}/i", registry.host);
    let (_, layers) = place.pull(&name).unwrap();
    fs::remove_dir_all(place.depot()).unwrap();
    registry.take_requests();
    assert_eq!(place.pull(&name).unwrap().1, layers);
    let manifest = format!("GET /v2/i/manifests/{}", image.digest());
    let requests = registry.take_requests();
    assert_eq!(requests[0], manifest);
    assert_eq!(requests.len(), 2, "{requests:?}");
}

#[test]
fn tags_that_are_pinned_are_not_looked_up() {
    let registry = Registry::start();
    let old = TestImage::new(vec![Layer::gzip(&tar(&[("old", b"")]))]);
    let new = TestImage::new(vec![Layer::gzip(&tar(&[("new", b"")]))]);
    old.push(&mut registry.state(), "i", "latest");
    new.push(&mut registry.state(), "i", "latest");
    let place = Place::new();
    let name = format!("docker://{}/i", registry.host);
    let lock = place.project().join(LOCK_FILE_NAME);
    let pinned = format!(
        "version = 1\n[\"{}/i\"]\nlatest = \"{}\"\n",
        registry.host,
        old.digest()
    );
    fs::write(&lock, &pinned).unwrap();
    assert_eq!(place.pull(&name).unwrap().0.digest(), &old.digest());
    assert_eq!(fs::read_to_string(&lock).unwrap(), pinned);
    // Who deletes the line gets the new one.
    fs::write(&lock, "version = 1\n").unwrap();
    assert_eq!(place.pull(&name).unwrap().0.digest(), &new.digest());
    // A digest in the name is neither looked for there nor written there.
    let exact = format!("{name}:latest@{}", old.digest());
    let before = fs::read_to_string(&lock).unwrap();
    assert_eq!(place.pull(&exact).unwrap().0.digest(), &old.digest());
    assert_eq!(fs::read_to_string(&lock).unwrap(), before);
}

#[test]
fn an_index_leads_to_the_image_for_this_machine() {
    let registry = Registry::start();
    let image = three_layers();
    image.push(&mut registry.state(), "i", "unused");
    let push_index = |architectures: &[(&str, &str)]| {
        let manifests: Vec<_> = architectures
            .iter()
            .map(|(architecture, digest)| {
                serde_json::json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": digest, "size": 1,
                    "platform": {"os": "linux", "architecture": architecture},
                })
            })
            .collect();
        let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        let digest = maelstrom_images::Digest::of(index.as_bytes());
        let mut state = registry.state();
        for reference in ["latest", digest.as_str()] {
            let name = format!("i/manifests/{reference}");
            state.contents.insert(name, index.clone().into_bytes());
        }
        digest
    };
    let ours = maelstrom_images::Platform::host().architecture;
    let digest = image.digest();
    let other = format!("sha256:{}", "1".repeat(64));
    let index = push_index(&[
        ("mips", &other),
        (&ours, digest.as_str()),
        ("sparc", &other),
    ]);
    let place = Place::new();
    let name = format!("docker://{}/i", registry.host);
    assert_eq!(place.pull(&name).unwrap().0.digest(), &digest);
    // The index is pinned, so the file does for teams with several kinds of machines.
    let lock = fs::read_to_string(place.project().join(LOCK_FILE_NAME)).unwrap();
    assert!(lock.contains(index.as_str()), "{lock}");
    registry.take_requests();
    place.pull(&name).unwrap();
    assert_eq!(registry.take_requests(), [""; 0]);

    push_index(&[("mips", &other), ("sparc", &other)]);
    assert_eq!(
        Place::new().error(&name),
        format!(
            "container image {name}: there is none for linux/{ours}; there is one for linux/mips, linux/sparc"
        )
    );
}

#[test]
fn layers_that_images_share_are_downloaded_once() {
    let registry = Registry::start();
    let shared = Layer::gzip(&tar(&[("shared", &noise(100_000, 2))]));
    let own = |name: &str| Layer::gzip(&tar(&[(name, b"")]));
    let one = TestImage::new(vec![shared.clone(), own("one"), own("one")]);
    let two = TestImage::new(vec![shared.clone(), own("two")]);
    one.push(&mut registry.state(), "one", "latest");
    two.push(&mut registry.state(), "two", "latest");
    let place = Place::new();
    place
        .pull(&format!("docker://{}/one", registry.host))
        .unwrap();
    // Another store, which knows nothing of it.
    place.forget_store();
    place
        .pull(&format!("docker://{}/two", registry.host))
        .unwrap();
    let requests = registry.take_requests();
    let of = |layer: &Layer| {
        let digest = layer.digest();
        requests
            .iter()
            .filter(|line| line.contains(digest.as_str()))
            .count()
    };
    assert_eq!(
        (of(&shared), of(&one.layers[1]), of(&two.layers[1])),
        (1, 1, 1),
        "{requests:?}"
    );
}

#[test]
fn several_at_once_download_an_image_once() {
    let registry = Registry::start();
    let image = three_layers();
    image.push(&mut registry.state(), "i", "latest");
    let place = Place::new();
    let name = format!("docker://{}/i@{}", registry.host, image.digest());
    let layers: Vec<_> = thread::scope(|scope| {
        let pull = || place.pull(&name).unwrap().1;
        let all: Vec<_> = (0..4).map(|_| scope.spawn(pull)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(layers.windows(2).all(|pair| pair[0] == pair[1]));
    let requests = registry.take_requests();
    for layer in &image.layers {
        let digest = layer.digest();
        let count = requests
            .iter()
            .filter(|line| line.contains(digest.as_str()))
            .count();
        assert_eq!(count, 1, "{requests:?}");
    }
}

#[test]
fn progress_is_told() {
    #[derive(Debug, Default)]
    struct Seen(Mutex<(Vec<(u64, u64)>, usize)>);
    impl maelstrom_images::Progress for Seen {
        fn downloading(&self, _: u64, image: &str, bytes: u64, total_bytes: u64) {
            assert!(image.starts_with("docker://"));
            self.0.lock().unwrap().0.push((bytes, total_bytes));
        }

        fn downloaded(&self, _: u64) {
            self.0.lock().unwrap().1 += 1;
        }
    }
    let registry = Registry::start();
    let image = TestImage::new(vec![Layer::plain(&tar(&[("f", &noise(3 << 20, 3))]))]);
    image.push(&mut registry.state(), "i", "latest");
    let place = Place::new();
    let images = Images::new(place.options());
    let name = format!("docker://{}/i", registry.host);
    let found = images.get(&name, &name.parse().unwrap()).unwrap();
    let seen = Seen::default();
    images.layers(&found, &place.store(), &seen).unwrap();
    let (seen, ends) = seen.0.into_inner().unwrap();
    assert_eq!(ends, 1);
    let total = image.layers[0].packed.len() as u64;
    assert!(!seen.is_empty() && seen.iter().all(|(bytes, of)| bytes <= of && *of == total));
}

#[test]
fn layouts_and_archives() {
    let place = Place::new();
    let image = three_layers();
    let layout = place.project().join("layout");
    image.write_layout(&layout, &["v1"]);
    let mut archive = tar::Builder::new(fs::File::create(place.project().join("a.tar")).unwrap());
    archive.append_dir_all(".", &layout).unwrap();
    archive.into_inner().unwrap();
    let mut all = Vec::new();
    for name in [
        "oci:layout",
        "oci:layout:v1",
        "oci-archive:a.tar",
        "oci-archive:a.tar:v1",
    ] {
        let (found, layers) = place.pull(name).unwrap();
        assert_eq!(found.environment(), ["PATH=/bin", "A=b=c"]);
        all.push(layers);
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(show(&place.store(), &all[0])[2], ["/c 5", "/d hidden"]);
    // Neither pinned nor downloaded.
    assert!(!place.depot().exists());
    assert!(!place.project().join(LOCK_FILE_NAME).exists());

    let shown = |path: &str| place.project().join(path).display().to_string();
    assert_eq!(
        place.error("oci:layout:v2"),
        format!(
            "container image oci:layout:v2: {}: it holds no image \"v2\"; there is \"v1\"",
            shown("layout")
        )
    );
    image.write_layout(&layout, &["v1", "v2"]);
    assert_eq!(place.pull("oci:layout:v2").unwrap().1, all[0]);
    assert!(
        place
            .error("oci:layout")
            .contains("it holds 2 images; write which one after a `:`; there is \"v1\", \"v2\"")
    );
    assert!(
        place
            .error("oci:nothing")
            .contains("No such file or directory")
    );
    fs::remove_file(layout.join("oci-layout")).unwrap();
    assert!(
        place
            .error("oci:layout")
            .contains("it is no OCI layout: it has no file `oci-layout`")
    );
    assert!(place.error("oci-archive:layout").contains("write `oci:`"));
    fs::write(place.project().join("b.tar"), "no tar").unwrap();
    assert!(
        place
            .error("oci-archive:b.tar")
            .contains("it is no tar file of an OCI layout")
    );
}

#[test]
fn damaged_layouts() {
    let image = three_layers();
    let digest = image.layers[0].digest();
    let blob = format!("blobs/sha256/{}", &digest.as_str()["sha256:".len()..]);
    let place = Place::new();
    let layout = place.project().join("l");
    image.write_layout(&layout, &["v1"]);
    let path = layout.join(blob);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = place.error("oci:l");
    assert!(
        error.contains(&format!("its layer 1 of 3 ({digest})")),
        "{error}"
    );
    bytes.pop();
    fs::write(&path, &bytes).unwrap();
    let error = place.error("oci:l");
    assert!(error.contains("but the manifest says"), "{error}");
    fs::write(
        layout.join("index.json"),
        "{\"schemaVersion\": 2,\n \"manifests\": x",
    )
    .unwrap();
    let error = place.error("oci:l");
    assert!(
        error.contains("its index.json is malformed: expected value at line 2"),
        "{error}"
    );
}
