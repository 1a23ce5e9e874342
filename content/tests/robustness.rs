//! What must not happen to a store, whatever happens around it.

mod fixture;

use fixture::{content, count, kept_files, open, open_small, project, snapshot};
use maelstrom_content::{Store, StoreOptions};
use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// Set for the processes that these tests start: which helper they are to run.
const HELPER: &str = "MAELSTROM_CONTENT_TEST_HELPER";

/// Runs one of the helpers below in a process of its own.
fn helper(name: &str, argument: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "helpers", "--nocapture"])
        .env(HELPER, name)
        .env("ARGUMENT", argument)
        .stdin(Stdio::null());
    command
}

#[test]
fn helpers() {
    let Ok(name) = std::env::var(HELPER) else {
        return;
    };
    let dir = PathBuf::from(std::env::var_os("ARGUMENT").unwrap());
    let cache = dir.join("cache");
    match name.as_str() {
        "churn" => loop {
            // Builds, unpacks and evicts without end.
            let store = open_small(&cache, 3_000_000);
            for seed in 0..3 {
                let source = dir.join(format!("project-{seed}"));
                let id = store.layer().add_tree("/", source).finish().unwrap();
                drop(store.tree(id).unwrap());
                store.release(id);
                store.evict().unwrap();
            }
        },
        "build" => {
            let store = open(&cache);
            let source = dir.join("project-0");
            let id = store.layer().add_tree("/", &source).finish().unwrap();
            let tree = store.tree(id).unwrap();
            assert_eq!(snapshot(tree.path()), snapshot(&source));
        }
        "exit" => exit_early(&dir),
        "modes" => odd_modes(&dir),
        "full" => full_disk(&dir),
        "read-only" => {
            let error = Store::open(&cache, StoreOptions::default()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(cache.to_str().unwrap()), "{text}");
            assert!(
                text.contains("check its owner") || text.contains("choose another"),
                "{text}"
            );
        }
        _ => panic!("no helper {name}"),
    }
    println!("helper done");
}

/// Runs a helper to its end.
fn run(mut command: Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("helper done"),
        "{text}\n{errors}"
    );
}

#[test]
fn killed_at_any_point() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let cache = dir.join("cache");
    let sources: Vec<_> = (0..3).map(|seed| project(dir, 60, seed)).collect();
    let expected: Vec<_> = sources.iter().map(|source| snapshot(source)).collect();
    for round in 0..12u64 {
        let mut children: Vec<_> = (0..2)
            .map(|_| {
                helper("churn", dir)
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        // Not a wait for anything: any moment is a good one to be killed at.
        std::thread::sleep(Duration::from_millis(20 + round * 37 % 200));
        for child in &mut children {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let store = open(&cache);
        for (source, expected) in sources.iter().zip(&expected) {
            let id = store.layer().add_tree("/", source).finish().unwrap();
            let tree = store.tree(id).unwrap();
            assert_eq!(snapshot(tree.path()), *expected, "round {round}");
            store.verify(id).unwrap();
        }
        assert_eq!(count(&content(&cache, "tmp")), 1, "only our own");
        assert_eq!(count(&content(&cache, "processes")), 1, "only our own");
    }
    assert_eq!(count(&content(&cache, "tmp")), 0);
}

#[test]
fn several_processes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path(), 200, 0);
    let children: Vec<_> = (0..4)
        .map(|_| {
            helper("build", dir.path())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
    }
    assert_eq!(count(&content(&dir.path().join("cache"), "trees")), 1);
}

/// A process that exits without dropping its store has its work remembered all the same.
#[test]
fn exits_without_ceremony() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path(), 50, 0);
    let cache = dir.path().join("cache");
    let status = helper("exit", dir.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(7));
    assert_eq!(count(&content(&cache, "processes")), 1);
    let digests = fs::metadata(content(&cache, "digests")).unwrap();
    assert!(digests.len() > 50 * 80);
    let _store = open(&cache);
    assert_eq!(
        count(&content(&cache, "processes")),
        1,
        "its own took the other's place"
    );
}

fn exit_early(dir: &Path) -> ! {
    let store = open(&dir.join("cache"));
    // Hashes of files that changed just now are not remembered.
    let newest = fs::metadata(dir.join("project-0/d0/link"))
        .unwrap()
        .modified()
        .unwrap();
    while newest.elapsed().unwrap() < Duration::from_millis(200) {
        std::thread::sleep(Duration::from_millis(10));
    }
    store
        .layer()
        .add_tree("/", dir.join("project-0"))
        .finish()
        .unwrap();
    let digests = content(&dir.join("cache"), "digests");
    while !digests.exists() {
        std::thread::yield_now();
    }
    std::process::exit(7);
}

/// The same as an ordinary user, for whom permissions matter.
fn odd_modes(dir: &Path) {
    let cache = dir.join("cache");
    let store = open(&cache);
    let mut layer = store.layer();
    for mode in [
        0o0000, 0o0111, 0o0200, 0o0444, 0o0555, 0o1777, 0o2755, 0o4755,
    ] {
        let directory = format!("d{mode:o}");
        layer.add_bytes(format!("{directory}/f{mode:o}"), "x", mode);
        layer.add_bytes(format!("{directory}/deeper/f"), "x", 0o644);
        layer.add_directory(format!("{directory}/deeper"), mode);
        layer.add_directory(directory, mode);
    }
    let id = layer.finish().unwrap();
    drop(layer);
    let path = store.tree(id).unwrap().path().to_owned();
    for mode in [0o0000, 0o0111, 0o0444, 0o0555, 0o1777] {
        let metadata = fs::metadata(path.join(format!("d{mode:o}"))).unwrap();
        assert_eq!(metadata.mode() & 0o7777, mode);
    }
    for mode in [0o0200, 0o4755] {
        if let Ok(metadata) = fs::metadata(path.join(format!("d0/f{mode:o}"))) {
            assert_eq!(metadata.mode() & 0o7777, mode);
        }
    }
    store.verify(id).unwrap();
    drop(store);
    // Sound when looked at again.
    let inode = fs::metadata(&path).unwrap().ino();
    let store = open(&cache);
    assert_eq!(
        fs::metadata(store.tree(id).unwrap().path()).unwrap().ino(),
        inode
    );
    drop(store);
    let eviction = open_small(&cache, 0).evict().unwrap();
    assert_eq!(eviction.layers, 1);
    assert_eq!(count(&content(&cache, "trees")), 0);
    assert_eq!(kept_files(&cache), 0);
}

#[test]
fn permissions_of_all_kinds() {
    let dir = tempfile::tempdir().unwrap();
    odd_modes(dir.path());
    let unprivileged = tempfile::tempdir().unwrap();
    if let Some(command) = as_nobody("modes", unprivileged.path()) {
        run(command);
    }
}

#[test]
fn a_cache_that_cannot_be_written_to() {
    let dir = tempfile::tempdir().unwrap();
    if let Some(command) = as_nobody("read-only", dir.path()) {
        let cache = dir.path().join("cache");
        fs::create_dir(&cache).unwrap();
        fs::set_permissions(&cache, PermissionsExt::from_mode(0o555)).unwrap();
        run(command);
    }
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file, StoreOptions::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("create the directory") && error.contains("file"),
        "{error}"
    );
}

/// A helper run by a user who is not root; `None` if that cannot be had.
fn as_nobody(name: &str, dir: &Path) -> Option<Command> {
    let mut command = helper(name, dir);
    if rustix::process::getuid().is_root() {
        const NOBODY: u32 = 65534;
        command.uid(NOBODY).gid(NOBODY);
        std::os::unix::fs::chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
        // The test itself may lie where others cannot look.
        let test = dir.join("test");
        fs::copy(std::env::current_exe().unwrap(), &test).unwrap();
        let mut copied = Command::new(test);
        copied
            .args(command.get_args())
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .current_dir(dir)
            .uid(NOBODY)
            .gid(NOBODY);
        return Some(copied);
    }
    Some(command)
}

fn full_disk(dir: &Path) {
    let cache = dir.join("small/cache");
    let source = dir.join("project-0");
    let store = open(&cache);
    let small = store.layer().add_bytes("a", "a", 0o644).finish().unwrap();
    for attempt in 0..3 {
        let error = store.layer().add_tree("/", &source).finish().unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("No space left on device"),
            "{attempt}: {text}"
        );
        assert!(
            text.contains("make room there") && text.contains("project-0"),
            "{text}"
        );
    }
    // What was there still is, and room that is made is used.
    store.tree(small).unwrap();
    store.verify(small).unwrap();
    fs::write(source.join("d3/f3"), "smaller").unwrap();
    let id = store.layer().add_tree("/", &source).finish().unwrap();
    assert_eq!(snapshot(store.tree(id).unwrap().path()), snapshot(&source));
}

#[test]
fn a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    project(dir, 20, 0);
    fs::create_dir(dir.join("small")).unwrap();
    let inner = helper("full", dir);
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .arg("mount -t tmpfs -o size=1m none \"$0\" && exec \"$@\"")
        .arg(dir.join("small"))
        .arg(inner.get_program())
        .args(inner.get_args())
        .envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("unshare:") || errors.contains("mount:") {
        eprintln!("skipped: no mounts in user namespaces here: {errors}");
        return;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("helper done"),
        "{text}{errors}"
    );
}
