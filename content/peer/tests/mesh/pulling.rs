use crate::host::{Host, Post, acquaint, assert_same, noise, until};
use maelstrom_content::LayerId;
use maelstrom_layers::FetchError;
use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
};

const PLENTY: u64 = 20 << 30;

async fn hosts(root: &Path, count: u8) -> Vec<Host> {
    let post = Post::default();
    let mut hosts = Vec::new();
    for seed in 1..=count {
        hosts.push(Host::start(root, seed, &post, PLENTY).await);
    }
    acquaint(&hosts);
    hosts
}

/// Fetches in the background.
fn fetching(
    host: &Host,
    layer: LayerId,
    origin: &Host,
    holders: &[&Host],
) -> tokio::task::JoinHandle<Result<maelstrom_content::Pin, FetchError>> {
    let layers = host.layers.clone();
    let origin = origin.id();
    let holders: Vec<_> = holders.iter().map(|holder| holder.id()).collect();
    tokio::spawn(async move { layers.fetch(layer, origin, &holders).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_comes_from_its_origin() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = hosts(dir.path(), 2).await;
    let mut builder = hosts[0].store.layer();
    builder
        .add_directory("bin", 0o755)
        .add_bytes("bin/large", noise(5_000_001, 1), 0o755)
        .add_bytes("bin/middle", noise(100_000, 2), 0o644)
        .add_bytes("secret", noise(300_000, 3), 0o000)
        .add_bytes("small", b"small", 0o644)
        .add_bytes("same", b"small", 0o600)
        .add_bytes("empty", b"", 0o644)
        .add_symlink("link", "bin/large");
    let layer = builder.finish().unwrap();
    hosts[0].layers.keep_offering(layer);
    let origin = hosts[0].id();
    let pin = hosts[1].layers.fetch(layer, origin, &[]).await.unwrap();
    assert_eq!(pin.id(), layer);
    assert_same(&hosts[0].store, &hosts[1].store, layer);
    let tree = hosts[1].store.tree(layer).unwrap();
    assert!(tree.path().join("link").exists());
    assert_eq!(hosts[1].layers.held(), [layer]);
    let left = fs::read_dir(hosts[1].root.join("cache/transfer/process-0")).unwrap();
    assert_eq!(left.count(), 1, "only the lock is left of the pull");
    // What is there already is not asked for again.
    let sent = hosts[0].layers.stats().sent_bytes;
    hosts[1].layers.fetch(layer, origin, &[]).await.unwrap();
    assert_eq!(hosts[0].layers.stats().sent_bytes, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_without_contents_comes() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = hosts(dir.path(), 2).await;
    let mut builder = hosts[0].store.layer();
    builder
        .add_directory("a", 0o755)
        .add_bytes("a/empty", b"", 0o644);
    for layer in [builder.finish().unwrap(), hosts[0].layer(0, 0, 0)] {
        hosts[0].layers.keep_offering(layer);
        let origin = hosts[0].id();
        hosts[1].layers.fetch(layer, origin, &[]).await.unwrap();
        assert_same(&hosts[0].store, &hosts[1].store, layer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_files_come() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = hosts(dir.path(), 2).await;
    let layer = hosts[0].layer(10_000, 4096, 1);
    hosts[0].layers.keep_offering(layer);
    let origin = hosts[0].id();
    hosts[1].layers.fetch(layer, origin, &[]).await.unwrap();
    assert_same(&hosts[0].store, &hosts[1].store, layer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_that_another_layer_has_are_not_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = hosts(dir.path(), 3).await;
    let large = noise(4 << 20, 1);
    let mut builder = hosts[0].store.layer();
    let first = builder.add_bytes("large", &*large, 0o644).finish().unwrap();
    builder.add_bytes("large", &*large, 0o644);
    let second = builder.add_bytes("small", b"new", 0o644).finish().unwrap();
    for layer in [first, second] {
        hosts[0].layers.keep_offering(layer);
        let before = hosts[0].layers.stats().sent_bytes;
        fetching(&hosts[1], layer, &hosts[0], &[])
            .await
            .unwrap()
            .unwrap();
        assert_same(&hosts[0].store, &hosts[1].store, layer);
        if layer == second {
            assert!(hosts[0].layers.stats().sent_bytes - before < 100_000);
        }
    }
    // And it is passed on with what was there before.
    hosts[2].layers.member_down(hosts[0].id());
    fetching(&hosts[2], second, &hosts[1], &[])
        .await
        .unwrap()
        .unwrap();
    assert_same(&hosts[0].store, &hosts[2].store, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_still_pull_serve_others() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = hosts(dir.path(), 5).await;
    let bytes = 24 << 20;
    let layer = hosts[0].layer(3, bytes / 3, 1);
    hosts[0].layers.keep_offering(layer);
    let pulls: Vec<_> = hosts[1..]
        .iter()
        .map(|host| fetching(host, layer, &hosts[0], &[]))
        .collect();
    for pull in pulls {
        pull.await.unwrap().unwrap();
    }
    for host in &hosts[1..] {
        assert_same(&hosts[0].store, &host.store, layer);
    }
    let sent: Vec<u64> = hosts
        .iter()
        .map(|host| host.layers.stats().sent_bytes)
        .collect();
    assert!(sent[0] < 3 * bytes as u64, "the origin sent {sent:?}");
    let passed_on: u64 = sent[1..].iter().sum();
    assert!(passed_on > bytes as u64, "{sent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_one_layer_share_its_pull() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = hosts(dir.path(), 2).await;
    let bytes = 8 << 20;
    let layer = hosts[0].layer(2, bytes / 2, 1);
    hosts[0].layers.keep_offering(layer);
    let pulls = [(); 5].map(|()| fetching(&hosts[1], layer, &hosts[0], &[]));
    for pull in pulls {
        assert_eq!(pull.await.unwrap().unwrap().id(), layer);
    }
    let sent = hosts[0].layers.stats().sent_bytes;
    assert!(sent < bytes as u64 * 5 / 4, "{sent} bytes were sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_outlives_a_provider() {
    let dir = tempfile::tempdir().unwrap();
    let mut hosts = hosts(dir.path(), 3).await;
    let layer = hosts[0].layer(1, 32 << 20, 1);
    hosts[0].layers.keep_offering(layer);
    fetching(&hosts[1], layer, &hosts[0], &[])
        .await
        .unwrap()
        .unwrap();
    let pull = fetching(&hosts[2], layer, &hosts[0], &[&hosts[1]]);
    until("the first pieces", || hosts[2].done_bytes() > 0).await;
    let dead = hosts.remove(1);
    let id = dead.id();
    dead.stop().await;
    hosts[1].layers.member_down(id);
    pull.await.unwrap().unwrap();
    assert_same(&hosts[0].store, &hosts[1].store, layer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_broke_off_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut hosts = hosts(dir.path(), 2).await;
    let bytes = 48 << 20;
    let mut builder = hosts[0].store.layer();
    for file in 0..100 {
        builder.add_bytes(format!("{file}"), noise(30_000, file), 0o644);
    }
    builder.add_bytes("large", noise(bytes, 1000), 0o644);
    let layer = builder.finish().unwrap();
    hosts[0].layers.keep_offering(layer);
    let pull = fetching(&hosts[1], layer, &hosts[0], &[]);
    until("half of it", || hosts[1].done_bytes() > bytes as u64 / 3).await;
    let done = hosts[1].done_bytes();
    let broken = hosts.pop().unwrap().restart().await;
    let error = pull.await.unwrap().unwrap_err();
    assert!(matches!(error, FetchError::Stopped { .. }), "{error}");
    hosts.push(broken);
    acquaint(&hosts);
    fetching(&hosts[1], layer, &hosts[0], &[])
        .await
        .unwrap()
        .unwrap();
    assert_same(&hosts[0].store, &hosts[1].store, layer);
    let again = hosts[1].layers.stats().received_bytes;
    let most = (bytes + 4_000_000) as u64 - done;
    assert!(again < most, "{again} bytes came again, {done} were there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_bad_data_is_asked_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = hosts(dir.path(), 4).await;
    let bytes = 16 << 20;
    let layer = hosts[0].layer(1, bytes, 1);
    hosts[0].layers.keep_offering(layer);
    fetching(&hosts[1], layer, &hosts[0], &[])
        .await
        .unwrap()
        .unwrap();
    let manifest = hosts[1].store.manifest(layer).unwrap();
    let paths = manifest.entries().iter();
    let path = paths
        .filter_map(|entry| hosts[1].store.file_path(entry))
        .next()
        .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    for place in (0..bytes as u64).step_by(64 << 10) {
        file.write_all_at(b"damaged", place).unwrap();
    }
    fetching(&hosts[2], layer, &hosts[0], &[&hosts[1]])
        .await
        .unwrap()
        .unwrap();
    assert_same(&hosts[0].store, &hosts[2].store, layer);
    let bad = hosts[2].layers.stats().bad_pieces;
    assert!((1..=16).contains(&bad), "{bad} bad pieces");
    // Alone it cannot give the layer, and is named.
    hosts[3].layers.member_down(hosts[0].id());
    hosts[3].layers.member_down(hosts[2].id());
    let error = fetching(&hosts[3], layer, &hosts[1], &[])
        .await
        .unwrap()
        .unwrap_err();
    assert!(matches!(&error, FetchError::NoProvider { bad, .. } if bad[..] == [hosts[1].id()]));
    assert!(error.to_string().contains("bad data came from"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_lost_contents_is_pulled_anew() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = hosts(dir.path(), 2).await;
    let layer = hosts[0].layer(1, 1 << 20, 1);
    hosts[0].layers.keep_offering(layer);
    for _ in 0..2 {
        let pin = fetching(&hosts[1], layer, &hosts[0], &[]);
        let pin = pin.await.unwrap().unwrap();
        assert_same(&hosts[0].store, &hosts[1].store, layer);
        drop(pin);
        let manifest = hosts[1].store.manifest(layer).unwrap();
        let mut paths = manifest.entries().iter();
        let path = paths.find_map(|entry| hosts[1].store.file_path(entry));
        fs::remove_file(path.unwrap()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_offered_is_not_given() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = hosts(dir.path(), 2).await;
    let layer = hosts[0].layer(1, 100_000, 1);
    let error = fetching(&hosts[1], layer, &hosts[0], &[])
        .await
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, FetchError::Manifest { .. }), "{error}");
    hosts[0].layers.keep_offering(layer);
    fetching(&hosts[1], layer, &hosts[0], &[])
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_member_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = hosts(dir.path(), 3).await;
    let layer = hosts[0].layer(1, 100_000, 1);
    hosts[0].layers.keep_offering(layer);
    hosts[0].layers.member_down(hosts[1].id());
    let error = fetching(&hosts[1], layer, &hosts[0], &[])
        .await
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, FetchError::Manifest { .. }), "{error}");
    assert_eq!(hosts[0].layers.stats().sent_bytes, 0);
    // Another does; and when it has left, no more.
    fetching(&hosts[2], layer, &hosts[0], &[])
        .await
        .unwrap()
        .unwrap();
    let next = hosts[0].layer(1, 100_000, 2);
    hosts[0].layers.keep_offering(next);
    hosts[0].layers.member_down(hosts[2].id());
    let error = fetching(&hosts[2], next, &hosts[0], &[])
        .await
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, FetchError::Manifest { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_keeps_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let post = Post::default();
    let cache = 20 << 20;
    let hosts = [
        Host::start(dir.path(), 1, &post, PLENTY).await,
        Host::start(dir.path(), 2, &post, cache).await,
    ];
    acquaint(&hosts);
    let huge = hosts[0].layer(1, 21 << 20, 1);
    hosts[0].layers.keep_offering(huge);
    let error = fetching(&hosts[1], huge, &hosts[0], &[])
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        error.to_string().contains("raise the cache size"),
        "{error}"
    );
    assert!(hosts[0].layers.stats().sent_bytes < 100_000);
    for salt in 2..7 {
        let layer = hosts[0].layer(1, 8 << 20, salt);
        hosts[0].layers.keep_offering(layer);
        let pin = fetching(&hosts[1], layer, &hosts[0], &[])
            .await
            .unwrap()
            .unwrap();
        assert_same(&hosts[0].store, &hosts[1].store, layer);
        drop(pin);
        let used = used_bytes(&hosts[1].root);
        assert!(used <= cache + (1 << 20), "{used} bytes are used");
    }
}

fn used_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut used = 0;
    for entry in fs::read_dir(directory).unwrap().flatten() {
        // What is evicted this moment may be gone.
        let Ok(found) = entry.metadata() else {
            continue;
        };
        used += found.blocks() * 512 / found.nlink().max(1);
        if found.is_dir() {
            used += used_bytes(&entry.path());
        }
    }
    used
}
