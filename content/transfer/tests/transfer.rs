//! Layers from one content store to another, by way of two transfer stores.

use iroh_blobs::{Hash, protocol::ChunkRanges};
use maelstrom_content::{EntryKind, LayerId, Store, StoreOptions};
use maelstrom_transfer::{TransferError, TransferStore};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const HELPER: &str = "MAELSTROM_TRANSFER_TEST_DIR";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn content(dir: &Path, name: &str) -> Store {
    Store::open(&dir.join(name), StoreOptions::default()).unwrap()
}

async fn transfer(dir: &Path, name: &str) -> TransferStore {
    TransferStore::open_collecting(&dir.join(name).join("transfer"), Duration::from_millis(100))
        .await
        .unwrap()
}

/// A layer with contents on both sides of every limit, the same as often as it is built.
fn layer(store: &Store) -> LayerId {
    let mut layer = store.layer();
    for size in [0usize, 1, 16 << 10, (16 << 10) + 1, 100_000, 3_000_000] {
        let bytes: Vec<u8> = (0..size).map(|index| (index * 7 + size) as u8).collect();
        layer.add_bytes(format!("d/{size}"), bytes.clone(), 0o644);
        layer.add_bytes(format!("again/{size}"), bytes, 0o755);
    }
    layer.add_bytes("unreadable", vec![9; 50_000], 0o200);
    layer.add_symlink("link", "d/1");
    layer.finish().unwrap()
}

fn disk_usage(dir: &Path) -> u64 {
    let mut total = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        total += if metadata.is_dir() {
            disk_usage(&entry.path())
        } else {
            metadata.blocks() * 512
        };
    }
    total
}

/// One blob from store to store, as the network would carry it.
async fn carry(from: &TransferStore, to: &TransferStore, hash: Hash) {
    let ranges = ChunkRanges::all();
    let bytes = from
        .blobs()
        .export_bao(hash, ranges.clone())
        .bao_to_vec()
        .await
        .unwrap();
    to.blobs()
        .import_bao_bytes(hash, ranges, bytes)
        .await
        .unwrap();
}

fn hash(bytes: &[u8; 32]) -> Hash {
    Hash::from_bytes(*bytes)
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done().await {
        assert!(Instant::now() < deadline, "still waiting until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn assert_same(one: &Store, other: &Store, id: LayerId) {
    other.verify(id).unwrap();
    let (one, other) = (one.tree(id).unwrap(), other.tree(id).unwrap());
    for path in [
        "d/0",
        "d/1",
        "d/16385",
        "again/3000000",
        "link",
        "unreadable",
    ] {
        let one = one.path().join(path);
        let other = other.path().join(path);
        let modes = [&one, &other].map(|path| fs::symlink_metadata(path).unwrap().mode());
        assert_eq!(modes[0], modes[1], "{path}");
        if path != "unreadable" {
            assert_eq!(fs::read(one).unwrap(), fs::read(other).unwrap(), "{path}");
        }
    }
}

#[test]
fn from_one_machine_to_another() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (here, there) = (content(dir, "here"), content(dir, "there"));
        let id = layer(&here);
        let a = transfer(dir, "here").await;
        let b = transfer(dir, "there").await;
        let sequence = a.offer(&here, id).await.unwrap();
        assert_eq!(
            a.offer(&here, id).await.unwrap(),
            sequence,
            "twice is as good as once"
        );
        assert_eq!(a.offered(), [id]);
        // Referred to, not copied: 3 MB of contents.
        let used = disk_usage(&dir.join("here/transfer"));
        assert!(used < 2_500_000, "{used}");

        // Nothing has come.
        let error = b.accept(&there, id).await.unwrap_err().to_string();
        assert!(error.contains("its manifest has not come"), "{error}");
        // The manifest, whose hash is the id.
        carry(&a, &b, hash(id.as_bytes())).await;
        let manifest = b.blobs().get_bytes(hash(id.as_bytes())).await.unwrap();
        let wrong = b.expect(&there, LayerId::of(b"?"), &manifest).await;
        assert!(wrong.is_err());
        let expected = b.expect(&there, id, &manifest).await.unwrap();
        assert_eq!(expected.sequence, sequence, "anyone can compute it");
        let error = b.accept(&there, id).await.unwrap_err();
        assert!(matches!(error, TransferError::Incomplete { .. }), "{error}");
        // The contents.
        for (index, (content, _)) in expected.missing.iter().enumerate() {
            carry(&a, &b, hash(content.as_bytes())).await;
            let left = b.expect(&there, id, &manifest).await.unwrap().missing;
            assert_eq!(left, expected.missing[index + 1..]);
        }
        b.accept(&there, id).await.unwrap();
        assert_same(&here, &there, id);
        // What was moved is served from its new place, to the next one.
        assert_eq!(b.offered(), [id]);
        let used = disk_usage(&dir.join("there/transfer"));
        assert!(used < 2_500_000, "{used}");
        let (next, c) = (content(dir, "next"), transfer(dir, "next").await);
        carry(&b, &c, hash(id.as_bytes())).await;
        for (content, _) in c.expect(&next, id, &manifest).await.unwrap().missing {
            carry(&b, &c, hash(content.as_bytes())).await;
        }
        c.accept(&next, id).await.unwrap();
        assert_same(&here, &next, id);
        for store in [a, b, c] {
            store.shutdown().await.unwrap();
        }
    });
}

#[test]
fn a_second_layer_needs_only_what_is_new() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (here, there) = (content(dir, "here"), content(dir, "there"));
        let a = transfer(dir, "here").await;
        let b = transfer(dir, "there").await;
        let old = vec![1; 200_000];
        let new = vec![2; 200_000];
        there
            .layer()
            .add_bytes("a", old.clone(), 0o644)
            .finish()
            .unwrap();
        let id = here
            .layer()
            .add_bytes("a", old, 0o644)
            .add_bytes("b", new.clone(), 0o644)
            .finish()
            .unwrap();
        a.offer(&here, id).await.unwrap();
        carry(&a, &b, hash(id.as_bytes())).await;
        let manifest = here.manifest(id).unwrap().encode();
        let expected = b.expect(&there, id, &manifest).await.unwrap();
        assert_eq!(
            expected.missing,
            [(maelstrom_content::ContentHash::of(&new), 200_000)]
        );
        carry(&a, &b, hash(expected.missing[0].0.as_bytes())).await;
        b.accept(&there, id).await.unwrap();
        there.verify(id).unwrap();
    });
}

#[test]
fn what_is_withdrawn_or_abandoned_is_collected() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (here, there) = (content(dir, "here"), content(dir, "there"));
        let id = layer(&here);
        let manifest = here.manifest(id).unwrap();
        let contents = manifest.contents();
        let (large, _) = contents
            .iter()
            .find(|(_, size)| *size == 3_000_000)
            .unwrap();
        let large = hash(large.as_bytes());
        let a = transfer(dir, "here").await;
        let b = transfer(dir, "there").await;
        a.offer(&here, id).await.unwrap();
        b.expect(&there, id, &manifest.encode()).await.unwrap();
        carry(&a, &b, large).await;
        // It survives several collections …
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(120)).await;
            assert!(a.blobs().has(large).await.unwrap());
            assert!(b.blobs().has(large).await.unwrap());
        }
        // … and what the content store has is pinned there.
        here.release(id);
        let small = StoreOptions {
            cache_size_bytes: 0,
        };
        let other = Store::open(&dir.join("here"), small).unwrap();
        assert_eq!(other.evict().unwrap().layers, 0);
        a.withdraw(id).await.unwrap();
        b.abandon(id).await.unwrap();
        until("it is collected", async || {
            !a.blobs().has(large).await.unwrap()
        })
        .await;
        until("it is collected", async || {
            !b.blobs().has(large).await.unwrap()
        })
        .await;
        // Collecting leaves the content store alone; evicting is its own business.
        here.verify(id).unwrap();
        assert_eq!(other.evict().unwrap().layers, 1);
    });
}

#[test]
fn damaged_contents_are_not_offered() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let here = content(dir, "here");
        let id = layer(&here);
        let manifest = here.manifest(id).unwrap();
        let victim = manifest.get("again/3000000").unwrap();
        fs::write(here.file_path(victim).unwrap(), vec![1; 3_000_000]).unwrap();
        let a = transfer(dir, "here").await;
        let error = a.offer(&here, id).await.unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
        assert!(a.offered().is_empty());
        let error = a
            .offer(&here, LayerId::of(b"?"))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("has no layer"), "{error}");
    });
}

#[test]
fn one_process_at_a_time() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let first = transfer(dir.path(), "x").await;
        let error = TransferStore::open(&dir.path().join("x/transfer"))
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("Only one node") && text.contains("x/transfer"),
            "{text}"
        );
        first.shutdown().await.unwrap();
        transfer(dir.path(), "x").await.shutdown().await.unwrap();
    });
}

#[test]
fn killed_and_reopened() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..6u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "helper", "--nocapture"])
            .env(HELPER, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Any moment is a good one to be killed at.
        std::thread::sleep(Duration::from_millis(100 + round * 150));
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        runtime().block_on(async {
            let here = content(dir.path(), "here");
            let a = transfer(dir.path(), "here").await;
            for id in a.resume(&here).await.unwrap() {
                serve_all(&here, &a, id).await;
            }
            let id = layer(&here);
            a.offer(&here, id).await.unwrap();
            serve_all(&here, &a, id).await;
            a.shutdown().await.unwrap();
        });
    }
    // What was offered is offered again; what is gone is not.
    runtime().block_on(async {
        let here = content(dir.path(), "here");
        let a = transfer(dir.path(), "here").await;
        let id = layer(&here);
        assert!(a.resume(&here).await.unwrap().contains(&id));
        a.shutdown().await.unwrap();
        drop(here);
        let small = StoreOptions {
            cache_size_bytes: 0,
        };
        let here = Store::open(&dir.path().join("here"), small).unwrap();
        here.evict().unwrap();
        assert!(!here.contains(id));
        let a = transfer(dir.path(), "here").await;
        assert!(a.resume(&here).await.unwrap().is_empty());
        a.shutdown().await.unwrap();
    });
}

/// Every blob of a layer can be read, and is what it is called.
async fn serve_all(store: &Store, transfer: &TransferStore, id: LayerId) {
    let manifest = store.manifest(id).unwrap();
    for entry in manifest.entries() {
        if let EntryKind::File { content, .. } = entry.kind {
            let bytes = transfer
                .blobs()
                .get_bytes(hash(content.as_bytes()))
                .await
                .unwrap();
            assert_eq!(maelstrom_content::ContentHash::of(&bytes), content);
        }
    }
}

/// Offers and withdraws without end, in a process of its own.
#[test]
fn helper() {
    let Some(dir) = std::env::var_os(HELPER).map(PathBuf::from) else {
        return;
    };
    runtime().block_on(async {
        let here = content(&dir, "here");
        let a = transfer(&dir, "here").await;
        for round in 0u64.. {
            let id = layer(&here);
            a.offer(&here, id).await.unwrap();
            let bytes = round.to_le_bytes().repeat(10_000);
            let other = here.layer().add_bytes("x", bytes, 0o644).finish().unwrap();
            a.offer(&here, other).await.unwrap();
            a.withdraw(id).await.unwrap();
        }
    });
}
