//! Registries and images that are not as they should be.

use crate::{
    Place,
    image::{Layer, TestImage, gzip, noise, tar},
    registry::Registry,
    show, three_layers,
};
use maelstrom_images::Digest;
use std::fs;

fn one_layer(registry: &Registry, layer: Layer) -> (Place, String, TestImage) {
    let image = TestImage::new(vec![layer]);
    image.push(&mut registry.state(), "i", "v");
    (
        Place::new(),
        format!("docker://{}/i:v", registry.host),
        image,
    )
}

fn large() -> Layer {
    Layer::plain(&tar(&[("f", &noise(2 << 20, 4))]))
}

#[test]
fn a_layer_with_a_wrong_digest_is_refused_and_not_kept() {
    let registry = Registry::start();
    let (place, name, image) = one_layer(&registry, large());
    let digest = image.layers[0].digest();
    let blob = format!("i/blobs/{digest}");
    let mut wrong = image.layers[0].packed.clone();
    wrong[1_000_000] ^= 1;
    let found = Digest::of(&wrong);
    registry.state().contents.insert(blob.clone(), wrong);
    assert_eq!(
        place.error(&name),
        format!(
            "container image {name}: getting layer 1 of 1 ({digest}) should have the digest \
             {digest}, but what {} gave has {found}; nothing of it was kept. The registry, or a \
             proxy before it, is damaged",
            registry.host
        )
        .replace("getting layer", "layer")
    );
    let kept = place.depot().join(".partial").join(digest.as_str());
    assert_eq!(fs::metadata(kept).unwrap().len(), 0);
    registry
        .state()
        .contents
        .insert(blob, image.layers[0].packed.clone());
    place.pull(&name).unwrap();
}

#[test]
fn a_transfer_that_breaks_off_goes_on_from_there() {
    let registry = Registry::start();
    let (place, name, image) = one_layer(&registry, large());
    let total = image.layers[0].packed.len();
    registry.state().cut_after = Some((1_000_000, 2));
    let (_, layers) = place.pull(&name).unwrap();
    assert_eq!(show(&place.store(), &layers), [["/f 2097152"]]);
    assert_eq!(registry.state().bytes_sent, total + image.config.len());
    let requests = registry.take_requests();
    // The first one breaks off twice, the configuration not at all: it is shorter.
    assert!(
        requests.iter().any(|line| line.ends_with("bytes=1000000-")),
        "{requests:?}"
    );
}

#[test]
fn a_registry_that_dies_in_the_middle_is_told_and_what_came_is_kept() {
    let registry = Registry::start();
    let (place, name, image) = one_layer(&registry, large());
    let digest = image.layers[0].digest();
    let total = image.layers[0].packed.len();
    // It gives the first 600,000 bytes, and nothing more.
    registry.state().cut_after = Some((600_000, 1));
    place.error_after_config(&registry, &name);
    let error = place.error(&name);
    assert!(
        error.contains(&format!(
            "getting layer 1 of 1 ({digest}) from {}: the registry broke off after 600000 of {total} bytes",
            registry.host
        )) && error.ends_with("; what has come is kept, and the next run goes on from there"),
        "{error}"
    );
    registry.state().cut_after = None;
    registry.state().bytes_sent = 0;
    place.pull(&name).unwrap();
    assert_eq!(registry.state().bytes_sent, total - 600_000);
    assert_eq!(place.depot_files(".partial"), [""; 0]);
}

impl Place {
    /// Lets everything but the layer come, then the registry gives part of the layer and from
    /// then on nothing.
    fn error_after_config(&self, registry: &Registry, name: &str) {
        let cut = registry.state().cut_after.take();
        let images = maelstrom_images::Images::new(self.options());
        images.get(name, &name.parse().unwrap()).unwrap();
        let (first, _) = cut.unwrap();
        // The first answer breaks off after some bytes; those that go on from there at once.
        registry.state().cut_after = Some((first, 1));
        registry.state().then_cut_at_once = true;
    }
}

#[test]
fn what_was_damaged_on_disk_is_fetched_again() {
    let registry = Registry::start();
    let (place, name, image) = one_layer(&registry, large());
    // A partial download of something else.
    let partial = place.depot().join(".partial");
    fs::create_dir_all(&partial).unwrap();
    let partial = partial.join(image.layers[0].digest().as_str());
    fs::write(&partial, noise(500_000, 9)).unwrap();
    let (_, layers) = place.pull(&name).unwrap();
    // A layer, a manifest and a configuration that a crash cut off.
    for file in ["layer_0.tar", "manifest.json", "config.json"] {
        let path = place.depot().join(image.digest().as_str()).join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        place.forget_store();
        assert_eq!(place.pull(&name).unwrap().1, layers, "{file}");
        assert_eq!(fs::read(&path).unwrap(), whole, "{file}");
    }
}

#[test]
fn registries_without_ranges_start_over() {
    let registry = Registry::start();
    let (place, name, image) = one_layer(&registry, large());
    registry.state().no_ranges = true;
    registry.state().cut_after = Some((1_000_000, 1));
    place.pull(&name).unwrap();
    let total = image.layers[0].packed.len() + image.config.len();
    assert_eq!(registry.state().bytes_sent, total + 1_000_000);
}

#[test]
fn a_registry_that_is_busy_is_asked_again() {
    let registry = Registry::start();
    let (place, name, _) = one_layer(&registry, large());
    registry.state().unavailable = 2;
    place.pull(&name).unwrap();
}

#[test]
fn names_that_the_registry_does_not_know() {
    let registry = Registry::start();
    let place = Place::new();
    let name = format!("docker://{}/no/such:tag", registry.host);
    assert_eq!(
        place.error(&name),
        format!(
            "container image {name}: getting the manifest of no/such tag from {}: it answered 404 Not Found (MANIFEST_UNKNOWN: manifest_unknown); there is nothing of this name",
            registry.host
        )
    );
    assert!(
        !place
            .project()
            .join(maelstrom_images::LOCK_FILE_NAME)
            .exists()
    );
}

#[test]
fn a_registry_that_is_not_there() {
    // Bound, so that nobody else is there, and dropped.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let name = format!("docker://{address}/i");
    let error = Place::new().error(&name);
    assert!(
        error.contains(&format!(
            "getting the manifest of i latest from {address}: "
        )) && error.contains("Connection refused"),
        "{error}"
    );
}

#[test]
fn manifests_that_are_not_what_they_should_be() {
    let registry = Registry::start();
    let (place, name, image) = one_layer(&registry, large());
    // A tag, of which the registry tells a wrong digest.
    let other = Digest::of(b"other");
    registry.state().told_digest = Some(other.to_string());
    let error = place.error(&name);
    assert!(
        error.contains(&format!(
            "the manifest should have the digest {other}, but what"
        )) && error.contains(image.digest().as_str()),
        "{error}"
    );
    registry.state().told_digest = None;
    // A digest, of which it gives something else.
    registry
        .state()
        .contents
        .insert(format!("i/manifests/{other}"), image.manifest.clone());
    let error = place.error(&format!("docker://{}/i@{other}", registry.host));
    assert!(
        error.contains("the manifest should have the digest"),
        "{error}"
    );
    assert!(place.depot_files(other.as_str()).is_empty());
    for (body, expected) in [
        (
            "{",
            "the manifest sha256:021fb596db81e6d02bf3d2586ee3981fe519f275c0ac9ca76bbcf2ebb4097d96: EOF while parsing",
        ),
        (
            r#"{"schemaVersion": 1, "fsLayers": []}"#,
            "old format \"schema 1\"",
        ),
        (
            r#"{"schemaVersion": 2, "mediaType": "text/x"}"#,
            "\"text/x\" is no image",
        ),
        (
            r#"{"schemaVersion": 2, "manifests": [], "layers": []}"#,
            "it is unclear what it is",
        ),
        (
            r#"{"schemaVersion": 2, "manifests": []}"#,
            "its index is empty",
        ),
    ] {
        registry
            .state()
            .contents
            .insert("i/manifests/v".into(), body.into());
        let error = place.error(&name);
        assert!(error.contains(expected), "{body}: {error}");
    }
    let long = vec![b' '; (4 << 20) + 1];
    registry
        .state()
        .contents
        .insert("i/manifests/v".into(), long);
    let error = place.error(&name);
    assert!(
        error.contains("the manifest is longer than 4194304 bytes"),
        "{error}"
    );
}

#[test]
fn layers_that_are_longer_than_the_manifest_says() {
    let registry = Registry::start();
    let (place, name, image) = one_layer(&registry, large());
    let blob = format!("i/blobs/{}", image.layers[0].digest());
    registry.state().contents.get_mut(&blob).unwrap().push(0);
    let error = place.error(&name);
    assert!(error.contains("which is what the manifest says"), "{error}");
    registry.state().contents.get_mut(&blob).unwrap().pop();
    place.pull(&name).unwrap();
}

#[test]
fn layers_that_cannot_be_unpacked() {
    let good = tar(&[("f", &noise(1000, 5))]);
    let mut escaping = tar(&[("xx/f", b"1")]);
    escaping[..2].copy_from_slice(b"..");
    let mut header = tar::Header::from_byte_slice(&escaping[..512]).clone();
    header.set_cksum();
    escaping[..512].copy_from_slice(header.as_bytes());
    let cut = |packed: Vec<u8>| packed[..packed.len() - 20].to_vec();
    let with = |packed: Vec<u8>, tar: &[u8]| Layer {
        packed,
        ..Layer::gzip(tar)
    };
    for (layer, expected) in [
        (with(cut(gzip(&good)), &good), "cannot be unpacked: "),
        (
            with(gzip(b"other"), &good),
            "cannot be unpacked: its digest is sha256:",
        ),
        (Layer::gzip(b"this is no tar file at all"), "is no tar file"),
        (
            Layer::zstd(&good[..700]),
            "entry `f`: is cut off: the file ends too early",
        ),
        (
            Layer::gzip(&escaping),
            "entry `../f`: its path leads out of the root directory",
        ),
    ] {
        let registry = Registry::start();
        let (place, name, image) = one_layer(&registry, layer);
        let error = place.error(&name);
        let which = format!("its layer 1 of 1 ({})", image.layers[0].digest());
        assert!(
            error.contains(&which) && error.contains(expected),
            "{error}"
        );
        assert_eq!(place.depot_files(".partial"), [""; 0]);
    }
}

#[test]
fn the_first_thing_that_goes_wrong_is_told() {
    let registry = Registry::start();
    let image = three_layers();
    image.push(&mut registry.state(), "i", "v");
    let missing = image.layers[2].digest();
    registry
        .state()
        .contents
        .remove(&format!("i/blobs/{missing}"));
    let error = Place::new().error(&format!("docker://{}/i:v", registry.host));
    assert!(
        error.contains(&format!("getting layer 3 of 3 ({missing})")),
        "{error}"
    );
}

#[test]
fn configurations_that_do_not_fit() {
    let registry = Registry::start();
    let mut image = three_layers();
    image.config = br#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}"#.to_vec();
    let fitting = three_layers();
    let old = Digest::of(&fitting.config).to_string();
    let manifest = String::from_utf8(fitting.manifest).unwrap();
    let manifest = manifest
        .replace(&old, Digest::of(&image.config).as_str())
        .replace(
            &format!("\"size\":{}", fitting.config.len()),
            &format!("\"size\":{}", image.config.len()),
        );
    image.manifest = manifest.into_bytes();
    image.push(&mut registry.state(), "i", "v");
    let error = Place::new().error(&format!("docker://{}/i:v", registry.host));
    assert!(
        error.contains("it tells of 0 layers, but the manifest of 3"),
        "{error}"
    );
}
