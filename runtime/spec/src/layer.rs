use std::path::PathBuf;

/// How to make one layer. Relative paths are relative to the project directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LayerSpec {
    /// The contents of a tar file.
    Tar {
        /// The file.
        path: PathBuf,
    },
    /// Everything below the project directory whose project-relative path matches.
    Glob {
        /// A pattern in globset's dialect; `*` crosses `/`.
        glob: String,
        /// How sources become destinations.
        prefix_options: PrefixOptions,
    },
    /// Single files, symlinks, and directories (as empty directories).
    Paths {
        /// The sources.
        paths: Vec<PathBuf>,
        /// How sources become destinations.
        prefix_options: PrefixOptions,
    },
    /// Whole directory trees.
    Trees {
        /// The directories; each is taken with everything below it.
        trees: Vec<PathBuf>,
        /// How sources become destinations.
        prefix_options: PrefixOptions,
    },
    /// Programs found in the client's `PATH`, with their interpreters and shared libraries, at
    /// their own absolute paths.
    Programs {
        /// Names, or absolute paths.
        programs: Vec<String>,
    },
    /// Empty files, and empty directories where the name ends in `/`. Brace expansion applies.
    Stubs {
        /// Unexpanded names.
        stubs: Vec<String>,
    },
    /// Symbolic links.
    Symlinks {
        /// The links.
        symlinks: Vec<SymlinkSpec>,
    },
    /// The dynamic loader and shared libraries that binaries need, without the binaries.
    SharedLibraryDependencies {
        /// The binaries.
        binary_paths: Vec<PathBuf>,
        /// How sources become destinations.
        prefix_options: PrefixOptions,
    },
    /// A layer that exists already. Only programs make these; no file can name one.
    Built {
        /// The hash that names it.
        id: [u8; 32],
    },
    /// What a command changes when it runs on the layers below this one.
    Command {
        /// The program.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

/// One symbolic link of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SymlinkSpec {
    /// Where the link stands.
    pub link: PathBuf,
    /// What it says, verbatim. Need not exist.
    pub target: PathBuf,
}

/// How the path of a source becomes its path in the layer, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PrefixOptions {
    /// Store what a symlink points at instead of the link.
    pub follow_symlinks: bool,
    /// Use the absolute path without symlinks as destination.
    pub canonicalize: bool,
    /// Remove these leading components; no effect where the path does not start with them.
    pub strip_prefix: Option<PathBuf>,
    /// Put these components in front.
    pub prepend_prefix: Option<PathBuf>,
}
