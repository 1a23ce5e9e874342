use crate::host::{Host, Post, acquaint, assert_same};

const PLENTY: u64 = 20 << 30;

async fn hosts(root: &std::path::Path, post: &Post, count: u8) -> Vec<Host> {
    let mut hosts = Vec::new();
    for seed in 1..=count {
        hosts.push(Host::start(root, seed, post, PLENTY).await);
    }
    acquaint(&hosts);
    hosts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_comes_from_its_origin() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = hosts(dir.path(), &Post::default(), 2).await;
    let mut builder = hosts[0].store.layer();
    builder
        .add_directory("bin", 0o755)
        .add_bytes("bin/large", crate::host::noise(5_000_001, 1), 0o755)
        .add_bytes("bin/middle", crate::host::noise(100_000, 2), 0o644)
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
    let left = std::fs::read_dir(hosts[1].root.join("cache/transfer/process-0")).unwrap();
    assert_eq!(left.count(), 1, "only the lock is left of the pull");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_files_come() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = hosts(dir.path(), &Post::default(), 2).await;
    let layer = hosts[0].layer(10_000, 4096, 1);
    hosts[0].layers.keep_offering(layer);
    let origin = hosts[0].id();
    hosts[1].layers.fetch(layer, origin, &[]).await.unwrap();
    assert_same(&hosts[0].store, &hosts[1].store, layer);
}
