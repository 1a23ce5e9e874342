//! Tests that start the `go` command. They find in their container what it needs: the toolchain,
//! the downloaded modules, a C compiler if there is one, and what is compiled already of the
//! project and the standard library. All are copies in layers; there is no network.

use crate::packages::{self, GoEnv, Package, go};
use maelstrom_content::{BuildContext, LayerBuilder, LayerError, LayerId, Store};
use maelstrom_runner::runner::Tools;
use maelstrom_spec::LayerSpec;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    thread,
};

/// What a package's tests do with the `go` command, by the look of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum GoUse {
    /// Nothing.
    #[default]
    None,
    /// They may start it.
    Plain,
    /// They may start it with `-race`, too.
    Race,
}

/// The toolchain, and what it needs to build the project's packages.
pub(crate) struct Toolchain {
    env: GoEnv,
    /// The project directory.
    directory: PathBuf,
    /// For `go list`, so that what is compiled is what is needed.
    flags: Vec<String>,
    tools: Tools,
    /// The layers that do not depend on how the command is used.
    common: OnceLock<Result<Vec<LayerId>, String>>,
    plain: OnceLock<Result<LayerId, String>>,
    race: OnceLock<Result<LayerId, String>>,
}

/// Parts of the toolchain that nobody builds with.
const UNUSED_PARTS: [&str; 4] = ["api", "doc", "misc", "test"];

impl Toolchain {
    pub(crate) fn new(env: &GoEnv, directory: &Path, flags: &[String], tools: &Tools) -> Toolchain {
        Toolchain {
            env: env.clone(),
            directory: directory.to_owned(),
            flags: flags.to_vec(),
            tools: tools.clone(),
            common: OnceLock::new(),
            plain: OnceLock::new(),
            race: OnceLock::new(),
        }
    }

    /// Makes the layers that tests need. The first caller of each does.
    ///
    /// # Errors
    /// A file that cannot be read or stored, or `go` fails.
    pub(crate) fn layers(
        &self,
        store: &Store,
        context: &BuildContext,
        go_use: GoUse,
    ) -> Result<Vec<LayerId>, String> {
        if go_use == GoUse::None {
            return Ok(Vec::new());
        }
        let common = || self.common_layers(store, context);
        let mut layers = self.common.get_or_init(common).clone()?;
        let compiled = if go_use == GoUse::Race {
            &self.race
        } else {
            &self.plain
        };
        let compile = || self.compiled_layer(store, go_use == GoUse::Race);
        layers.push(compiled.get_or_init(compile).clone()?);
        Ok(layers)
    }

    /// What the environment of such tests has besides.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let downloads = self.env.gomodcache.join("cache/download");
        // There is no network: modules come from copies, and there is nobody to ask about them.
        BTreeMap::from([
            ("GOPROXY".into(), format!("file://{}", downloads.display())),
            ("GOSUMDB".into(), "off".into()),
            ("GOTOOLCHAIN".into(), "local".into()),
            ("GOFLAGS".into(), self.env.goflags.clone()),
        ])
    }

    fn common_layers(&self, store: &Store, context: &BuildContext) -> Result<Vec<LayerId>, String> {
        let (goroot, modules, c_compiler) = thread::scope(|scope| {
            let goroot =
                scope.spawn(|| self.goroot_layer(store).map_err(|error| error.to_string()));
            let modules = scope.spawn(|| self.modules_layer(store));
            let c_compiler = c_compiler_layers(store, context, &self.tools);
            (joined(goroot), joined(modules), c_compiler)
        });
        let mut layers = vec![goroot?, modules?];
        layers.extend(c_compiler?);
        Ok(layers)
    }

    fn goroot_layer(&self, store: &Store) -> Result<LayerId, LayerError> {
        let root = &self.env.goroot;
        let mut layer = store.layer();
        layer.add_tree_if(root, root, |path, is_directory| {
            let unused = UNUSED_PARTS.iter().any(|name| path == Path::new(name));
            let test = !is_directory && path.to_string_lossy().ends_with("_test.go");
            !unused && !test && !path.ends_with("testdata")
        });
        layer.finish()
    }

    /// The modules that the project is built with, as they lie in the module cache.
    fn modules_layer(&self, store: &Store) -> Result<LayerId, String> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Module {
            main: bool,
            dir: PathBuf,
            go_mod: PathBuf,
        }
        let mut command = go(&self.directory);
        command.args(["list", "-e", "-m", "-json=Main,Dir,GoMod", "all"]);
        // Vendored modules are the project's own files.
        let listed = packages::output(&mut command, &self.tools).unwrap_or_else(|error| {
            tracing::debug!("{error:#}");
            Vec::new()
        });
        let mut layer = store.layer();
        let cache = &self.env.gomodcache;
        for module in serde_json::Deserializer::from_slice(&listed).into_iter::<Module>() {
            let module = module.map_err(|error| format!("reading what `go list` says: {error}"))?;
            if module.main {
                continue;
            }
            if module.go_mod.starts_with(cache) {
                for extension in ["mod", "info", "zip", "ziphash"] {
                    add_if_there(&mut layer, &module.go_mod.with_extension(extension));
                }
                add_if_there(&mut layer, &module.go_mod.with_file_name("list"));
            }
            if module.dir.starts_with(cache) && module.dir.is_dir() {
                layer.add_tree(&module.dir, &module.dir);
            }
        }
        layer.add_directory(cache, 0o755);
        layer.finish().map_err(|error| error.to_string())
    }

    /// What is compiled of the project's packages and all that they import, as entries of Go's
    /// build cache, which are named by their inputs.
    fn compiled_layer(&self, store: &Store, race: bool) -> Result<LayerId, String> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Compiled {
            export: PathBuf,
            #[serde(rename = "BuildID")]
            build_id: String,
        }
        let mut command = go(&self.directory);
        command.args([
            "list",
            "-e",
            "-export",
            "-deps",
            "-test",
            "-json=Export,BuildID",
        ]);
        command.args(packages::listing_flags(&self.flags));
        if race {
            command.arg("-race");
        }
        command.arg("./...");
        let listed = packages::output(&mut command, &self.tools).unwrap_or_else(|error| {
            // They are compiled in the container, then.
            tracing::debug!("{error:#}");
            Vec::new()
        });
        let mut layer = store.layer();
        let cache = &self.env.gocache;
        for compiled in serde_json::Deserializer::from_slice(&listed).into_iter::<Compiled>() {
            let compiled =
                compiled.map_err(|error| format!("reading what `go list` says: {error}"))?;
            let entry = cache_entry(cache, &compiled.build_id);
            if let Some(entry) = entry.filter(|_| compiled.export.starts_with(cache)) {
                add_if_there(&mut layer, &entry);
                add_if_there(&mut layer, &compiled.export);
            }
        }
        layer.add_directory(cache, 0o755);
        layer.finish().map_err(|error| error.to_string())
    }
}

fn joined<T>(handle: thread::ScopedJoinHandle<'_, T>) -> T {
    handle
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn add_if_there(layer: &mut LayerBuilder, path: &Path) {
    if path.is_file() {
        layer.add_file(path, path);
    }
}

/// The entry of Go's build cache that says what came of an action. Its name starts with the
/// action's number, of which a build id has the first 15 bytes.
fn cache_entry(cache: &Path, build_id: &str) -> Option<PathBuf> {
    let action = hex_of_base64(build_id.split('/').next()?)?;
    let directory = cache.join(action.get(..2)?);
    let entries = fs::read_dir(directory).ok()?.flatten();
    let mut entries = entries.map(|entry| entry.path());
    entries.find(|path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(&action) && name.ends_with("-a"))
    })
}

/// Text in the alphabet for addresses, as hexadecimal digits.
fn hex_of_base64(text: &str) -> Option<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut hex = String::new();
    for group in text.as_bytes().chunks(2) {
        // Two letters are twelve bits, which are three digits.
        let mut bits = 0;
        for letter in group {
            bits = bits << 6 | ALPHABET.iter().position(|known| known == letter)?;
        }
        hex.push_str(&format!("{bits:03x}"));
    }
    text.len().is_multiple_of(2).then_some(hex)
}

/// Directories of headers that belong to the C library and the kernel.
const HEADER_DIRECTORIES: [&str; 16] = [
    "arpa",
    "asm",
    "asm-generic",
    "bits",
    "finclude",
    "gnu",
    "linux",
    "misc",
    "net",
    "netinet",
    "netpacket",
    "protocols",
    "rpc",
    "scsi",
    "sys",
    "x86_64-linux-gnu",
];

/// Beginnings of the names of files that every C program is linked with.
const C_LIBRARIES: [&str; 14] = [
    "Mcrt1.o",
    "Scrt1.o",
    "crt1.o",
    "crti.o",
    "crtn.o",
    "gcrt1.o",
    "libc.",
    "libc_nonshared.",
    "libdl.",
    "libm.",
    "libm-",
    "libmvec",
    "libpthread.",
    "libresolv.",
];

/// What compiles C in the container, as far as this machine has it: GCC's own programs and
/// libraries, the assembler, the linker, and the C library.
fn c_compiler_layers(
    store: &Store,
    context: &BuildContext,
    tools: &Tools,
) -> Result<Vec<LayerId>, String> {
    let ask = |question: &str| {
        let output = packages::output(Command::new("gcc").arg(question), tools).ok()?;
        let answer = PathBuf::from(String::from_utf8(output).ok()?.trim());
        fs::canonicalize(answer).ok()
    };
    let (Some(compiler), Some(library), Some(start)) = (
        ask("-print-prog-name=cc1"),
        ask("-print-file-name=libgcc.a"),
        ask("-print-file-name=crt1.o"),
    ) else {
        return Ok(Vec::new());
    };
    let mut programs: Vec<String> = ["gcc", "cc", "as", "ld", "ar"].map(str::to_owned).to_vec();
    for part in [&compiler, &compiler.with_file_name("collect2")] {
        programs.extend(part.to_str().map(str::to_owned));
    }
    programs.retain(|program| {
        program.starts_with('/')
            || context
                .program_path
                .iter()
                .any(|directory| directory.join(program).is_file())
    });
    let programs = store
        .build(&LayerSpec::Programs { programs }, context)
        .map_err(|error| error.to_string())?;
    let mut layer = store.layer();
    if let Some(directory) = library.parent() {
        layer.add_tree_if(directory, directory, |path, is_directory| {
            let name = path.to_string_lossy();
            let is_library = name.starts_with("crt") || name.starts_with("libgcc");
            is_directory && name != "plugin"
                || name.starts_with("include/")
                || is_library
                || name == "liblto_plugin.so"
        });
    }
    if let Some(directory) = start.parent() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if C_LIBRARIES.iter().any(|start| name.starts_with(start)) && entry.path().is_file() {
                layer.add_path(entry.path(), entry.path());
            }
        }
    }
    let headers = Path::new("/usr/include");
    if headers.is_dir() {
        layer.add_tree_if(headers, headers, |path, is_directory| {
            let first = path.iter().next().map(|name| name.to_string_lossy());
            let nested = path.components().count() > 1;
            (!is_directory && !nested)
                || first.is_some_and(|first| {
                    HEADER_DIRECTORIES.contains(&&*first)
                        && !path.starts_with("x86_64-linux-gnu/c++")
                })
        });
    }
    let files = layer.finish().map_err(|error| error.to_string())?;
    Ok(vec![files, programs])
}

/// Names of functions that start the `go` command.
const FUNCTIONS: [&[u8]; 2] = [
    b"golang.org/x/tools/go/packages.",
    b"go/build.(*Context).importGo",
];

/// What the tests of a package do with the `go` command: their binary has a function that starts
/// it, or their sources name it where they start programs.
pub(crate) fn go_use(binary: &Path, package: &Package) -> GoUse {
    match go_use_of_sources(&package.directory) {
        GoUse::None if calls_starter(binary) => GoUse::Plain,
        found => found,
    }
}

/// Whether a binary has a function that starts the `go` command.
fn calls_starter(binary: &Path) -> bool {
    let Ok(bytes) = fs::read(binary) else {
        return false;
    };
    FUNCTIONS.iter().any(|name| contains(&bytes, name))
}

fn go_use_of_sources(directory: &Path) -> GoUse {
    let mut found = GoUse::None;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension() != Some("go".as_ref()) {
            continue;
        }
        let Ok(text) = fs::read(&path) else { continue };
        let starts_go = contains(&text, b"\"os/exec\"")
            && (contains(&text, b"\"go\"") || contains(&text, b"GOROOT"));
        if starts_go && contains(&text, b"\"-race\"") {
            return GoUse::Race;
        } else if starts_go {
            found = GoUse::Plain;
        }
    }
    found
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    let Some((&first, rest)) = part.split_first() else {
        return true;
    };
    let mut text = text;
    while let Some(at) = text.iter().position(|&byte| byte == first) {
        text = &text[at + 1..];
        if text.starts_with(rest) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_tell_who_starts_go() {
        let temp = tempfile::tempdir().unwrap();
        let with = |text: &str| {
            fs::write(temp.path().join("a_test.go"), text).unwrap();
            go_use_of_sources(temp.path())
        };
        assert_eq!(
            with("import \"os/exec\"\nexec.Command(\"sh\")"),
            GoUse::None
        );
        assert_eq!(with("var a = \"go\""), GoUse::None);
        assert_eq!(
            with("import \"os/exec\"\nexec.Command(\"go\", \"build\")"),
            GoUse::Plain
        );
        assert_eq!(
            with("import \"os/exec\"\nexec.Command(\"go\", \"test\", \"-race\")"),
            GoUse::Race
        );
    }

    #[test]
    fn entries_of_the_build_cache_are_found_by_build_id() {
        let temp = tempfile::tempdir().unwrap();
        // "Man" in base64 is TWFu, and 4d616e in hexadecimal.
        assert_eq!(hex_of_base64("TWFu").as_deref(), Some("4d616e"));
        assert_eq!(hex_of_base64("_-A_").as_deref(), Some("ffe03f"));
        assert_eq!(hex_of_base64("T!"), None);
        let entry = temp.path().join("4d/4d616e0123-a");
        fs::create_dir_all(entry.parent().unwrap()).unwrap();
        fs::write(&entry, "").unwrap();
        fs::write(temp.path().join("4d/4d616e0123-d"), "").unwrap();
        assert_eq!(cache_entry(temp.path(), "TWFu/xyz"), Some(entry));
        assert_eq!(cache_entry(temp.path(), "AAAA/xyz"), None);
    }

    #[test]
    fn parts_are_found_anywhere() {
        assert!(contains(b"aab", b"ab") && contains(b"ab", b"ab") && contains(b"x", b""));
        assert!(!contains(b"aa", b"ab") && !contains(b"", b"a"));
    }
}
