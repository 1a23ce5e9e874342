//! Measures what a store costs: `cargo run --release -p maelstrom-content --example measure_store`.
//!
//! Everything happens in a temporary directory below the one that is given as argument (the
//! system's, without); a number after it is how often the unchanged case runs. All is read
//! from a warm page cache, as it is right after a build.

use maelstrom_content::{BuildContext, LayerId, Store, StoreOptions};
use maelstrom_spec::{LayerSpec, PrefixOptions};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

fn main() {
    let parent = std::env::args_os().nth(1);
    let parent = parent.map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(parent).expect("a temporary directory");
    let dir = dir.path();
    let project = dir.join("project");
    for index in 0..10_000u32 {
        let directory = project.join(format!("d{:02}/e{}", index % 50, index % 20));
        if index < 1000 {
            fs::create_dir_all(&directory).expect("a directory");
        }
        let bytes = index.to_le_bytes().repeat(1000);
        fs::write(directory.join(format!("f{index}")), bytes).expect("a file");
    }
    let binary = dir.join("binary");
    let bytes: Vec<u8> = (0..50_000_000u32)
        .flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    fs::write(&binary, &bytes).expect("a file");
    // Hashes of files that changed just now are not remembered.
    std::thread::sleep(Duration::from_millis(100));

    let cache = dir.join("cache");
    let tree = |store: &Store| {
        let id = store.layer().add_tree("/", &project).finish();
        id.expect("a layer")
    };
    measure("10,000 files, cold", &cache, tree);
    let runs = std::env::args().nth(2).and_then(|runs| runs.parse().ok());
    for _ in 0..runs.unwrap_or(3) {
        measure("10,000 files, unchanged", &cache, tree);
    }
    let list: Vec<_> = (0..10_000u32)
        .map(|index| format!("d{:02}/e{}/f{index}", index % 50, index % 20))
        .collect();
    let listed = |store: &Store| {
        let mut layer = store.layer();
        for path in &list {
            layer.add_file(path, project.join(path));
        }
        layer.finish().expect("a layer")
    };
    measure("10,000 files by name, first", &cache, listed);
    measure("10,000 files by name, unchanged", &cache, listed);
    fs::write(project.join("d00/e0/f0"), "changed").expect("a file");
    std::thread::sleep(Duration::from_millis(100));
    measure("10,000 files, one changed", &cache, tree);

    let file = |store: &Store| {
        let id = store.layer().add_file("binary", &binary).finish();
        id.expect("a layer")
    };
    measure("200 MB file, cold", &cache, file);
    measure("200 MB file, unchanged", &cache, file);
    let context = BuildContext {
        project_dir: dir.to_owned(),
        current_dir: dir.to_owned(),
        ..BuildContext::default()
    };
    let libraries = LayerSpec::SharedLibraryDependencies {
        binary_paths: vec![std::env::current_exe().expect("this program")],
        prefix_options: PrefixOptions::default(),
    };
    let libraries = |store: &Store| store.build(&libraries, &context).expect("a layer");
    measure("libraries of a program, cold", &cache, libraries);
    for _ in 0..3 {
        measure("libraries of a program, unchanged", &cache, libraries);
    }
    let store = open(&cache);
    let id = file(&store);
    let layers = [id, tree(&store), id];
    store.stack(&layers).expect("a stack");
    let start = Instant::now();
    for _ in 0..1000 {
        std::hint::black_box(store.stack(&layers).expect("a stack"));
    }
    println!(
        "{:40} {:>10.3?}",
        "the same stack again, each",
        start.elapsed() / 1000
    );
}

fn open(cache: &Path) -> Store {
    Store::open(cache, StoreOptions::default()).expect("a store")
}

fn measure(what: &str, cache: &Path, build: impl FnOnce(&Store) -> LayerId) {
    let start = Instant::now();
    let store = open(cache);
    let opened = start.elapsed();
    let id = build(&store);
    let built = start.elapsed();
    drop(store.tree(id).expect("a tree"));
    let unpacked = start.elapsed();
    drop(store);
    println!(
        "{what:40} {:>10.3?}  (open {opened:.3?}, build {:.3?}, unpack {:.3?}, close {:.3?})",
        start.elapsed(),
        built - opened,
        unpacked - built,
        start.elapsed() - unpacked,
    );
}
