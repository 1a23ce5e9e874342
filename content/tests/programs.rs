//! Programs of this machine in layers, started there.

use maelstrom_content::{BuildContext, EntryKind, Store, StoreOptions};
use maelstrom_spec::LayerSpec;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

fn context(project: &Path) -> BuildContext {
    BuildContext {
        project_dir: project.to_owned(),
        current_dir: project.to_owned(),
        library_path: Vec::new(),
        program_path: std::env::split_paths("/usr/local/bin:/usr/bin:/bin").collect(),
    }
}

fn programs(programs: &[&str]) -> LayerSpec {
    LayerSpec::Programs {
        programs: programs.iter().map(ToString::to_string).collect(),
    }
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Runs something with the tree as its root directory; `None` where that is not allowed.
fn run(root: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--root"])
        .arg(root)
        .args(arguments);
    let output = command.output().ok()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("unshare:") && errors.contains("not permitted") {
        eprintln!("skipped: no user namespaces here: {errors}");
        return None;
    }
    assert!(output.status.success(), "{arguments:?}: {errors}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn programs_run() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().canonicalize().unwrap();
    let store = Store::open(&project.join("cache"), StoreOptions::default()).unwrap();
    script(&project.join("inner"), "#!/bin/sh\necho inner \"$1\"\n");
    script(
        &project.join("outer"),
        &format!("#! {}/inner\n", project.display()),
    );
    script(
        &project.join("by-env"),
        "#!/usr/bin/env -S sh -e\necho by env\n",
    );
    fs::create_dir(project.join("real")).unwrap();
    symlink("real", project.join("linked")).unwrap();
    script(&project.join("real/tool"), "#!/bin/sh\necho tool\n");
    symlink("linked/tool", project.join("tool")).unwrap();
    let spec = programs(&["sh", "cat", "./outer", "./by-env", "./tool"]);
    let id = store.build(&spec, &context(&project)).unwrap();
    let root = store.tree(id).unwrap();
    let at = |name: &str| format!("{}/{name}", project.display());
    for sh in ["/bin/sh", "/usr/bin/sh"] {
        if Path::new(sh).exists() && run(root.path(), &[sh, "-c", "echo $0"]).is_none() {
            return;
        }
    }
    let outer = at("outer");
    assert_eq!(
        run(root.path(), &[&outer]).unwrap(),
        format!("inner {outer}\n")
    );
    assert_eq!(run(root.path(), &[&at("by-env")]).unwrap(), "by env\n");
    assert_eq!(run(root.path(), &[&at("tool")]).unwrap(), "tool\n");

    // A manifest is refused if anything stands below a link, so this is half the proof that
    // directories are real; the other half:
    let manifest = store.manifest(id).unwrap();
    for entry in manifest.entries() {
        if let EntryKind::Symlink { .. } = entry.kind {
            let target = Path::new("/").join(entry.path.as_path());
            assert!(!target.is_dir(), "{target:?}");
        }
    }
}

#[test]
fn alternatives_keep_their_links() {
    let awk = Path::new("/usr/bin/awk");
    if !fs::read_link(awk).is_ok_and(|target| target.starts_with("/etc/alternatives")) {
        eprintln!("skipped: awk is no alternative here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("cache"), StoreOptions::default()).unwrap();
    let id = store
        .build(&programs(&["awk"]), &context(dir.path()))
        .unwrap();
    let root = store.tree(id).unwrap();
    let link = fs::read_link(root.path().join("usr/bin/awk")).unwrap();
    assert_eq!(link, Path::new("/etc/alternatives/awk"));
    for awk in ["/usr/bin/awk", "/bin/awk"] {
        if let Some(output) = run(root.path(), &[awk, "BEGIN { print 6 * 7 }"]) {
            assert_eq!(output, "42\n");
        }
    }
}

#[test]
fn layers_of_programs_and_libraries_stack() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().canonicalize().unwrap();
    let store = Store::open(&project.join("cache"), StoreOptions::default()).unwrap();
    let context = context(&project);
    let sh = store.build(&programs(&["sh"]), &context).unwrap();
    let cat = store.build(&programs(&["cat", "env"]), &context).unwrap();
    let libraries = LayerSpec::SharedLibraryDependencies {
        binary_paths: vec![std::env::current_exe().unwrap()],
        prefix_options: Default::default(),
    };
    let libraries = store.build(&libraries, &context).unwrap();
    // Whatever the order, each path is of the same kind in all of them.
    let manifests = [sh, cat, libraries].map(|id| store.manifest(id).unwrap());
    for one in &manifests {
        for other in &manifests {
            for entry in one.entries() {
                let Some(same) = other.get(entry.path.as_path()) else {
                    continue;
                };
                assert_eq!(entry, same);
            }
        }
    }
}

#[test]
fn what_cannot_be_found() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().canonicalize().unwrap();
    let store = Store::open(&project.join("cache"), StoreOptions::default()).unwrap();
    let error = |program: &str| {
        let error = store.build(&programs(&[program]), &context(&project));
        error.unwrap_err().to_string()
    };
    let text = error("no-such-program");
    assert!(
        text.contains("`no-such-program` is not there; searched"),
        "{text}"
    );
    assert!(text.contains("/usr/local/bin, /usr/bin, /bin"), "{text}");
    script(&project.join("bad"), "#!/no/such/interpreter\n");
    let text = error("./bad");
    assert!(text.contains("`/no/such/interpreter`, which"), "{text}");
    assert!(text.contains("/bad starts with,"), "{text}");
    script(
        &project.join("circle-a"),
        &format!("#!{}/circle-b\n", project.display()),
    );
    script(
        &project.join("circle-b"),
        &format!("#!{}/circle-a\n", project.display()),
    );
    store
        .build(&programs(&["./circle-a"]), &context(&project))
        .unwrap();
    fs::write(project.join("data"), "x").unwrap();
    assert!(error("./data").contains("is not there"));
    assert!(error("").contains("is not there"));
}
