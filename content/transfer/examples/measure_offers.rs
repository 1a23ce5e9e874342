//! Measures what it costs to offer layers:
//! `cargo run --release -p maelstrom-transfer --example measure_offers [DIRECTORY]`.

use maelstrom_content::{Store, StoreOptions};
use maelstrom_transfer::TransferStore;
use std::{fs, io::Write, time::Instant};

fn main() {
    let parent = std::env::args_os().nth(1);
    let parent = parent.map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(parent).expect("a temporary directory");
    let dir = dir.path();
    let big = dir.join("big");
    let mut file = fs::File::create(&big).expect("a file");
    let mut word = 1u64;
    for _ in 0..1024 {
        let mebibyte: Vec<u8> = (0..1 << 17)
            .flat_map(|_| {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                word.to_le_bytes()
            })
            .collect();
        file.write_all(&mebibyte).expect("a file");
    }
    let store = Store::open(&dir.join("cache"), StoreOptions::default()).expect("a store");
    let start = Instant::now();
    let one = store
        .layer()
        .add_file("big", &big)
        .finish()
        .expect("a layer");
    println!("keep a file of 1 GiB            {:>10.3?}", start.elapsed());
    let mut layer = store.layer();
    for index in 0..10_000u32 {
        layer.add_bytes(format!("f{index}"), index.to_le_bytes().repeat(1000), 0o644);
    }
    let many = layer.finish().expect("a layer");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let transfer = TransferStore::open(&dir.join("transfer"))
            .await
            .expect("a store");
        for (what, id) in [
            ("a file of 1 GiB      ", one),
            ("10,000 files of 4 KB ", many),
        ] {
            let start = Instant::now();
            transfer.offer(&store, id).await.expect("an offer");
            println!("offer {what}     {:>10.3?}", start.elapsed());
        }
        transfer.shutdown().await.expect("a shutdown");
        let start = Instant::now();
        let transfer = TransferStore::open(&dir.join("transfer"))
            .await
            .expect("a store");
        transfer.resume(&store).await.expect("offers");
        println!("open again and resume both      {:>10.3?}", start.elapsed());
        transfer.shutdown().await.expect("a shutdown");
    });
}
