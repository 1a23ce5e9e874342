use super::*;
use crate::{Store, StoreOptions};
use std::{fs, process::Command};

fn context(project: &Path) -> BuildContext {
    BuildContext {
        project_dir: project.to_owned(),
        current_dir: project.to_owned(),
        library_path: Vec::new(),
        program_path: Vec::new(),
    }
}

/// Builds something with the machine's C compiler; `None` if there is none.
fn compile(dir: &Path, output: &str, source: &str, arguments: &[&str]) -> Option<PathBuf> {
    let input = dir.join(format!("{}.c", output.replace('/', "_")));
    fs::write(&input, source).unwrap();
    let output = dir.join(output);
    fs::create_dir_all(output.parent().unwrap()).unwrap();
    let result = Command::new("cc")
        .current_dir(dir)
        .arg(&input)
        .arg("-o")
        .arg(&output)
        .args(arguments)
        .output();
    match result {
        Ok(result) if result.status.success() => Some(output),
        Ok(result) => panic!("{}", String::from_utf8_lossy(&result.stderr)),
        Err(_) => {
            eprintln!("skipped: no C compiler here");
            None
        }
    }
}

fn library(dir: &Path, output: &str, function: &str, arguments: &[&str]) -> Option<PathBuf> {
    let source = format!("int {function}(void) {{ return 1; }}");
    let mut all = vec!["-shared", "-fPIC", "-nostdlib"];
    all.extend(arguments);
    compile(dir, output, &source, &all)
}

fn main_calling(function: &str) -> String {
    format!("int {function}(void); int main(void) {{ return {function}(); }}")
}

fn found(binary: &Path, context: &BuildContext) -> Result<Vec<PathBuf>, String> {
    let mut closure = Closure::new(context);
    closure
        .add_binary(binary)
        .map_err(|error| error.to_string())?;
    Ok(closure.files.into_keys().collect())
}

#[test]
fn origin_is_expanded() {
    let expand = |text: &str| String::from_utf8(expand(text.as_bytes(), Path::new("/o"))).unwrap();
    assert_eq!(expand("$ORIGIN/../lib"), "/o/../lib");
    assert_eq!(expand("${ORIGIN}"), "/o");
    assert_eq!(expand("$LIB/$ORIGIN$"), "$LIB//o$");
    let origin = Path::new("/o");
    assert_eq!(
        split(b"$ORIGIN:/a::relative", origin),
        [Path::new("/o"), Path::new("/a")]
    );
}

#[test]
fn found_as_the_loader_finds_them() {
    let dir = tempfile::tempdir().unwrap();
    let dir = &dir.path().canonicalize().unwrap();
    let context = context(dir);
    let new_dtags = "-Wl,--enable-new-dtags";
    let old_dtags = "-Wl,--disable-new-dtags";
    if library(dir, "deep/libinner.so", "inner", &[]).is_none() {
        return;
    }
    let outer = "int inner(void); int outer(void) { return inner(); }";
    let shared = ["-shared", "-fPIC", "-nostdlib", "-Ldeep", "-linner"];

    // RPATH of the program holds for what its libraries need …
    compile(dir, "lib/libouter.so", outer, &shared).unwrap();
    let link = ["-Llib", "-louter", "-Wl,--allow-shlib-undefined"];
    let old = [
        &link[..],
        &[old_dtags, "-Wl,-rpath,$ORIGIN/lib:$ORIGIN/deep"],
    ]
    .concat();
    let program = compile(dir, "old", &main_calling("outer"), &old).unwrap();
    let libraries = found(&program, &context).unwrap();
    assert!(
        libraries.contains(&dir.join("lib/libouter.so")),
        "{libraries:?}"
    );
    assert!(
        libraries.contains(&dir.join("deep/libinner.so")),
        "{libraries:?}"
    );
    assert!(!libraries.contains(&program));

    // … RUNPATH does not.
    let new = [
        &link[..],
        &[new_dtags, "-Wl,-rpath,$ORIGIN/lib:$ORIGIN/deep"],
    ]
    .concat();
    let program = compile(dir, "new", &main_calling("outer"), &new).unwrap();
    let error = found(&program, &context).unwrap_err();
    assert!(
        error.contains("libouter.so needs the shared library `libinner.so`"),
        "{error}"
    );
    // LD_LIBRARY_PATH helps.
    let mut helped = context.clone();
    helped.library_path = vec![dir.join("deep")];
    let libraries = found(&program, &helped).unwrap();
    assert!(
        libraries.contains(&dir.join("deep/libinner.so")),
        "{libraries:?}"
    );

    // Something that is no library for this machine is passed over.
    fs::create_dir(dir.join("wrong")).unwrap();
    fs::write(dir.join("wrong/libinner.so"), "not a library").unwrap();
    helped.library_path = vec![dir.join("wrong"), dir.join("deep")];
    assert_eq!(found(&program, &helped).unwrap(), libraries);
}

#[test]
fn the_closure_is_what_ldd_says() {
    for program in [
        "/bin/sh",
        "/usr/bin/env",
        "/usr/bin/cc",
        "/usr/bin/git",
        "/usr/bin/python3",
    ] {
        let Ok(output) = Command::new("ldd").arg(program).output() else {
            eprintln!("skipped: no ldd here");
            return;
        };
        if !output.status.success() {
            continue;
        }
        let expected: Vec<PathBuf> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
            .map(|path| PathBuf::from(path).canonicalize().unwrap())
            .collect();
        let mut expected: Vec<_> = expected.into_iter().collect();
        expected.sort();
        expected.dedup();
        let mut libraries: Vec<PathBuf> = found(Path::new(program), &context(Path::new("/")))
            .unwrap()
            .into_iter()
            .map(|path| path.canonicalize().unwrap())
            .collect();
        libraries.sort();
        libraries.dedup();
        assert_eq!(libraries, expected, "{program}");
    }
}

#[test]
fn static_binaries_need_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = "void _start(void) { for (;;); }";
    let arguments = ["-static", "-nostdlib"];
    if let Some(program) = compile(dir.path(), "static", source, &arguments) {
        assert_eq!(
            found(&program, &context(dir.path())).unwrap(),
            Vec::<PathBuf>::new()
        );
    }
}

#[test]
fn what_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let context = context(dir.path());
    let script = dir.path().join("script");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    let error = found(&script, &context).unwrap_err();
    assert!(
        error.contains("script") && error.contains("not an ELF binary"),
        "{error}"
    );
    let error = found(&dir.path().join("gone"), &context).unwrap_err();
    assert!(
        error.contains("gone") && error.contains("No such file"),
        "{error}"
    );

    // Another architecture: the header of a program for 64-bit ARM.
    let mut bytes = fs::read("/bin/sh").unwrap();
    bytes[18..20].copy_from_slice(&183u16.to_le_bytes());
    let foreign = dir.path().join("foreign");
    fs::write(&foreign, &bytes).unwrap();
    if cfg!(target_arch = "x86_64") {
        let error = found(&foreign, &context).unwrap_err();
        assert!(
            error.contains("for aarch64 (this machine is x86_64)")
                || error.contains("not in the file"),
            "{error}"
        );
    }
}

#[test]
fn damaged_binaries_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let context = context(dir.path());
    let original = fs::read("/bin/sh").unwrap();
    let path = dir.path().join("damaged");
    // Bytes of the headers, and others, and cuts.
    for at in (0..1024)
        .step_by(3)
        .chain((0..original.len()).step_by(original.len() / 64))
    {
        let mut bytes = original.clone();
        bytes[at] ^= 0xff;
        fs::write(&path, &bytes).unwrap();
        let _ = found(&path, &context);
        fs::write(&path, &original[..at]).unwrap();
        let _ = found(&path, &context);
    }
}

#[test]
fn both_spellings_of_merged_directories() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("cache"), StoreOptions::default()).unwrap();
    let context = context(dir.path());
    let mut builder = store.layer();
    let binaries = [PathBuf::from("/bin/sh")];
    add(&mut builder, &binaries, &PrefixOptions::default(), &context).unwrap();
    let manifest = store.manifest(builder.finish().unwrap()).unwrap();
    for path in found(Path::new("/bin/sh"), &context).unwrap() {
        for path in spellings(&path) {
            let entry = manifest.get(path.strip_prefix("/").unwrap()).unwrap();
            assert!(
                matches!(entry.kind, crate::EntryKind::File { .. }),
                "{path:?}"
            );
        }
    }
    assert!(
        manifest
            .entries()
            .iter()
            .all(|entry| !matches!(entry.kind, crate::EntryKind::Symlink { .. })),
        "nothing a directory of another layer could meet"
    );
    // With prefix options, just where they say.
    let mut builder = store.layer();
    let options = PrefixOptions {
        prepend_prefix: Some("/opt".into()),
        ..PrefixOptions::default()
    };
    add(&mut builder, &binaries, &options, &context).unwrap();
    let manifest = store.manifest(builder.finish().unwrap()).unwrap();
    let files = manifest
        .entries()
        .iter()
        .filter(|entry| matches!(entry.kind, crate::EntryKind::File { .. }));
    assert!(
        files
            .clone()
            .all(|entry| entry.path.as_path().starts_with("opt"))
    );
    assert_eq!(
        files.count(),
        found(Path::new("/bin/sh"), &context).unwrap().len()
    );
}

#[test]
fn libraries_that_only_the_configuration_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let dir = &dir.path().canonicalize().unwrap();
    if library(dir, "odd/libodd.so", "odd", &[]).is_none() {
        return;
    }
    let link = ["-Lodd", "-lodd"];
    let program = compile(dir, "program", &main_calling("odd"), &link).unwrap();
    let context = context(dir);
    let mut closure = Closure::new(&context);
    closure.configured.push(dir.join("odd"));
    closure.add_binary(&program).unwrap();
    let (place, target) = closure.links.iter().next().expect("a link");
    assert_eq!(target, &dir.join("odd/libodd.so"));
    assert!(place.parent().unwrap().join("libc.so.6").exists() || place.ends_with("libodd.so"));
}
