//! Building test binaries with `go test -c`, and noticing each as soon as it is there.
//!
//! One `go` command builds all packages whose binaries have different names, so packages are
//! loaded once and compiled and vetted at the same time. It leaves binaries that are up to date
//! alone but for their time stamps, so each binary makes an event in its directory, new or not.

use crate::packages::{Package, go};
use anyhow::{Context as _, Result, bail};
use maelstrom_runner::runner::{Exit, Tools};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::inotify,
};
use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read},
    mem::MaybeUninit,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// The file whose appearance says that nothing more is built.
const END: &str = ".end";

/// How often it is looked whether the build has ended.
const GLANCE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// How many packages one command may have, so that its arguments fit.
const MAX_PACKAGES: usize = 2000;

/// What is built, and how.
pub(crate) struct Build<'a> {
    /// Where `go` is started.
    pub(crate) directory: &'a Path,
    /// Where binaries are kept. They depend on the flags.
    pub(crate) binaries: &'a Path,
    /// For `go test`.
    pub(crate) flags: &'a [String],
    pub(crate) tools: &'a Tools,
}

/// What a build tells while it goes on.
pub(crate) trait Progress: Sync {
    /// The binary of a package is there.
    fn built(&self, package: usize, binary: &Path);

    /// A line of standard output, with its end.
    fn stdout(&self, line: &[u8]);

    /// A line of standard error, with its end.
    fn stderr(&self, line: &[u8]);
}

/// Packages that one command builds into one directory.
struct Group {
    directory: PathBuf,
    packages: Vec<usize>,
}

impl Build<'_> {
    /// Where the binary of each package is, or will be.
    pub(crate) fn places(&self, packages: &[&Package]) -> Vec<PathBuf> {
        let mut uses: HashMap<String, usize> = HashMap::new();
        packages
            .iter()
            .map(|package| {
                let name = package.binary_name();
                let number = uses.entry(name.clone()).or_default();
                let place = self.binaries.join(number.to_string()).join(name);
                *number += 1;
                place
            })
            .collect()
    }

    /// Builds the test binaries of `packages`, which are sorted. `None`: all of them are built;
    /// otherwise how the run ends because some are not.
    ///
    /// # Errors
    /// `go` cannot be started, or there is no place for the binaries.
    pub(crate) fn run(
        &self,
        packages: &[&Package],
        progress: &dyn Progress,
    ) -> Result<Option<Exit>> {
        let places = self.places(packages);
        let groups = groups(&places);
        for group in &groups {
            fs::create_dir_all(&group.directory)
                .with_context(|| format!("creating {}", group.directory.display()))?;
            remove_strangers(group, &places);
        }
        let before: Vec<Option<Stamp>> = places.iter().map(|place| stamp(place)).collect();
        let seen = Seen::new(&places, progress);
        let watch = Watch::new(&groups);
        let ended = AtomicBool::new(false);
        let statuses = thread::scope(|scope| {
            if let Some(watch) = &watch {
                scope.spawn(|| watch.run(&seen, &ended));
            }
            let builds: Vec<_> = groups
                .iter()
                .map(|group| scope.spawn(|| self.build_group(group, packages, progress)))
                .collect();
            let statuses: Vec<Result<ExitStatus>> = builds
                .into_iter()
                .map(|build| {
                    build
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect();
            ended.store(true, Ordering::Release);
            if let (Some(_), Some(group)) = (&watch, groups.first()) {
                // Only for the watching thread to look up at once.
                let _ = fs::write(group.directory.join(END), "");
            }
            statuses
        });
        let mut exit = None;
        for (group, status) in groups.iter().zip(statuses) {
            let status = status?;
            for &package in &group.packages {
                let place = &places[package];
                let now = stamp(place);
                // Of a build that failed, what was not touched is not of this build.
                if now.is_some() && (status.success() || now != before[package]) {
                    seen.note(package);
                }
            }
            if !status.success() && exit.is_none() {
                exit = Some(Exit::of_tool(status));
            }
        }
        Ok(exit)
    }

    fn build_group(
        &self,
        group: &Group,
        packages: &[&Package],
        progress: &dyn Progress,
    ) -> Result<ExitStatus> {
        let mut command = go(self.directory);
        command.args(["test", "-c", "-o"]);
        command.arg(format!("{}/", group.directory.display()));
        command.args(self.flags);
        let paths = group.packages.iter();
        command.args(paths.map(|&index| &packages[index].import_path));
        run(&mut command, self.tools, progress)
    }
}

fn run(command: &mut Command, tools: &Tools, progress: &dyn Progress) -> Result<ExitStatus> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut tool = tools
        .spawn(command)
        .context("could not start `go test`; is Go installed, and `go` in PATH?")?;
    let (Some(stdout), Some(stderr)) = (tool.stdout(), tool.stderr()) else {
        bail!("the output of `go test` is not connected")
    };
    thread::scope(|scope| {
        scope.spawn(|| each_line(stderr, |line| progress.stderr(line)));
        each_line(stdout, |line| progress.stdout(line));
    });
    tool.wait().context("waiting for `go test`")
}

/// Calls `on_line` for each line, with an end.
fn each_line(stream: impl Read, on_line: impl Fn(&[u8])) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line) {
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        on_line(&line);
        line.clear();
    }
}

/// The packages by the directories of their binaries.
fn groups(places: &[PathBuf]) -> Vec<Group> {
    let mut by_directory: BTreeMap<&Path, Vec<usize>> = BTreeMap::new();
    for (index, place) in places.iter().enumerate() {
        if let Some(directory) = place.parent() {
            by_directory.entry(directory).or_default().push(index);
        }
    }
    let mut groups = Vec::new();
    for (directory, packages) in by_directory {
        for packages in packages.chunks(MAX_PACKAGES) {
            groups.push(Group {
                directory: directory.to_owned(),
                packages: packages.to_vec(),
            });
        }
    }
    groups
}

/// Removes binaries of packages that are gone.
fn remove_strangers(group: &Group, places: &[PathBuf]) {
    for entry in fs::read_dir(&group.directory)
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = entry.path();
        let is_binary = path.extension() == Some("test".as_ref());
        if is_binary && !places.contains(&path) {
            // At worst it lies there a little longer.
            let _ = fs::remove_file(path);
        }
    }
}

/// What changes whenever a file is written or touched.
pub(crate) type Stamp = (u64, u64, i64, i64, i64, i64);

pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ))
}

/// How many sets of flags binaries are kept for.
const MAX_FLAGS: usize = 4;

/// Where binaries that are built with these flags are kept, below `root`. Those of flags that were
/// not used for long go.
pub(crate) fn directory(root: &Path, flags: &[String]) -> PathBuf {
    // The standard library's own hash differs from one version of it to the next.
    let hash = blake3::hash(flags.join("\0").as_bytes());
    let directory = root.join(&hash.to_hex()[..16]);
    let mut others: Vec<_> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| *path != directory)
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .collect();
    others.sort();
    while others.len() >= MAX_FLAGS {
        // At worst it lies there a little longer.
        let _ = fs::remove_dir_all(others.remove(0).1);
    }
    let _ = fs::create_dir_all(&directory);
    let now = fs::FileTimes::new().set_modified(std::time::SystemTime::now());
    let _ = fs::File::open(&directory).and_then(|file| file.set_times(now));
    directory
}

/// Which binaries have been handed over.
struct Seen<'a> {
    places: &'a [PathBuf],
    done: Mutex<Vec<bool>>,
    progress: &'a dyn Progress,
}

impl<'a> Seen<'a> {
    fn new(places: &'a [PathBuf], progress: &'a dyn Progress) -> Seen<'a> {
        Seen {
            places,
            done: Mutex::new(vec![false; places.len()]),
            progress,
        }
    }

    fn note(&self, package: usize) {
        let mut done = self
            .done
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if !std::mem::replace(&mut done[package], true) {
            drop(done);
            self.progress.built(package, &self.places[package]);
        }
    }
}

/// Tells of binaries as they appear.
struct Watch {
    queue: rustix::fd::OwnedFd,
    directories: HashMap<i32, PathBuf>,
}

impl Watch {
    /// `None` where that is not to be had; the end of the build then says the same later.
    fn new(groups: &[Group]) -> Option<Watch> {
        let queue = inotify::init(inotify::CreateFlags::CLOEXEC).ok()?;
        // New binaries are moved there, or written where the temporary directory is on another
        // file system; those that are up to date get a new time.
        let flags = inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::ATTRIB;
        let mut directories = HashMap::new();
        for group in groups {
            let id = inotify::add_watch(&queue, &group.directory, flags).ok()?;
            directories.insert(id, group.directory.clone());
        }
        Some(Watch { queue, directories })
    }

    /// Until [`END`] appears, or the build has ended without.
    fn run(&self, seen: &Seen<'_>, ended: &AtomicBool) {
        let packages: HashMap<&Path, usize> = seen
            .places
            .iter()
            .enumerate()
            .map(|(index, place)| (place.as_path(), index))
            .collect();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.queue, &mut buffer);
        loop {
            if events.is_buffer_empty() {
                let mut waiting = [PollFd::new(&self.queue, PollFlags::IN)];
                match rustix::event::poll(&mut waiting, Some(&GLANCE)) {
                    Ok(0) if ended.load(Ordering::Acquire) => return,
                    Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
            let event = match events.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
            };
            let (Some(directory), Some(name)) =
                (self.directories.get(&event.wd()), event.file_name())
            else {
                continue;
            };
            let name = OsStr::from_bytes(name.to_bytes());
            if name == END {
                return;
            }
            let path = directory.join(name);
            // An event of the attributes also tells of a name that is gone.
            if let Some(&package) = packages.get(path.as_path())
                && path.is_file()
            {
                seen.note(package);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(import_path: &str) -> Package {
        Package {
            import_path: import_path.into(),
            name: "x".into(),
            directory: "/x".into(),
            path: String::new(),
            has_tests: true,
        }
    }

    #[test]
    fn binaries_of_one_name_go_to_different_directories() {
        let packages = ["m/a", "m/b", "m/c/a", "m/d/a", "m/d/b"].map(package);
        let build = Build {
            directory: Path::new("/"),
            binaries: Path::new("/t"),
            flags: &[],
            tools: &Tools::default(),
        };
        let places = build.places(&packages.iter().collect::<Vec<_>>());
        let shown: Vec<_> = places.iter().map(|place| place.to_str().unwrap()).collect();
        assert_eq!(
            shown,
            [
                "/t/0/a.test",
                "/t/0/b.test",
                "/t/1/a.test",
                "/t/2/a.test",
                "/t/1/b.test"
            ]
        );
        let groups = groups(&places);
        let members: Vec<_> = groups.iter().map(|group| &group.packages[..]).collect();
        assert_eq!(members, [&[0, 1][..], &[2, 4], &[3]]);
    }
}
