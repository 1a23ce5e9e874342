//! Noticing that the project changed.

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// How long after a change the project is taken to be at rest.
pub const SETTLE: Duration = Duration::from_millis(100);

/// Why the project could not be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The operating system refused.
    #[error("could not watch {path}: {source}{}", hint(.source))]
    Watch {
        /// The directory.
        path: PathBuf,
        /// What it said.
        source: notify::Error,
    },
}

fn hint(error: &notify::Error) -> &'static str {
    match error.kind {
        notify::ErrorKind::MaxFilesWatch => {
            "\nthe limit of watched directories is reached; raise it with `sysctl fs.inotify.max_user_watches=524288`"
        }
        _ => "",
    }
}

/// Which changes do not count.
#[derive(Clone, Debug, Default)]
pub struct Ignored {
    /// Whole directories and single files, by absolute path.
    pub paths: Vec<PathBuf>,
}

impl Ignored {
    fn contains(&self, path: &Path) -> bool {
        path.components()
            .any(|component| component.as_os_str() == ".git")
            || self.paths.iter().any(|ignored| path.starts_with(ignored))
    }
}

/// What a wait ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The project changed, and has settled.
    Changed,
    /// A signal arrived.
    Signal(i32),
}

/// Watches a project's tree from when it is made.
pub struct ProjectWatcher {
    changes: Receiver<()>,
    // Held for its thread.
    _watcher: Arc<Mutex<Option<RecommendedWatcher>>>,
}

impl ProjectWatcher {
    /// Arms a watch over everything in `root` that is not `ignored`. Ignored directories cost
    /// nothing.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn new(root: &Path, ignored: Ignored) -> Result<ProjectWatcher, WatchError> {
        // One change is as good as many.
        let (sender, changes) = bounded(1);
        let shared: Arc<Mutex<Option<RecommendedWatcher>>> = Arc::default();
        let weak = Arc::downgrade(&shared);
        let handler_ignored = ignored.clone();
        // New directories are watched from a thread of their own: the watcher's thread must not
        // wait for the watcher.
        let (new_directories, directories) = crossbeam_channel::unbounded::<PathBuf>();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            handle(event, &handler_ignored, &sender, &new_directories);
        });
        let error = |path: &Path, source| WatchError::Watch {
            path: path.to_owned(),
            source,
        };
        let watcher = watcher.map_err(|source| error(root, source))?;
        *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(watcher);
        arm(&shared, root, &ignored).map_err(|(path, source)| error(&path, source))?;
        thread::spawn(move || {
            for directory in directories {
                let Some(shared) = weak.upgrade() else { return };
                if let Err((path, error)) = arm(&shared, &directory, &ignored) {
                    tracing::warn!(
                        "could not watch {}: {error}{}",
                        path.display(),
                        hint(&error)
                    );
                }
            }
        });
        Ok(ProjectWatcher {
            changes,
            _watcher: shared,
        })
    }

    /// Waits for a change since the last wait, or since the watch was armed, and then until the
    /// project has settled.
    pub fn wait(&self, signals: &Receiver<i32>) -> Woken {
        select! {
            recv(self.changes) -> _ => {}
            recv(signals) -> signal => if let Ok(signal) = signal { return Woken::Signal(signal) },
        }
        if let Ok(signal) = signals.recv_timeout(SETTLE) {
            return Woken::Signal(signal);
        }
        // What came while it settled belongs to the same change.
        while !matches!(
            self.changes.try_recv(),
            Err(TryRecvError::Empty | TryRecvError::Disconnected)
        ) {}
        Woken::Changed
    }
}

fn handle(
    event: notify::Result<Event>,
    ignored: &Ignored,
    sender: &Sender<()>,
    new_directories: &Sender<PathBuf>,
) {
    let Ok(event) = event else {
        // Events were lost: something did change.
        let _ = sender.try_send(());
        return;
    };
    if matches!(event.kind, EventKind::Access(_)) {
        return;
    }
    let mut counts = event.need_rescan();
    for path in event.paths {
        if !ignored.contains(&path) {
            counts = true;
            if matches!(
                event.kind,
                EventKind::Create(_) | EventKind::Modify(notify::event::ModifyKind::Name(_))
            ) && fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir())
            {
                let _ = new_directories.send(path);
            }
        }
    }
    if counts {
        // Full means that a change is waiting to be seen already.
        let _ = sender.try_send(());
    }
}

/// Watches a directory and everything below it, one by one, so that ignored trees are left out.
fn arm(
    watcher: &Mutex<Option<RecommendedWatcher>>,
    root: &Path,
    ignored: &Ignored,
) -> Result<(), (PathBuf, notify::Error)> {
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        if ignored.contains(&directory) {
            continue;
        }
        let mut guard = watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watcher) = guard.as_mut() else {
            return Ok(());
        };
        match watcher.watch(&directory, RecursiveMode::NonRecursive) {
            Ok(()) => {}
            // It went away meanwhile.
            Err(_) if !directory.exists() => continue,
            Err(error) => return Err((directory, error)),
        }
        drop(guard);
        for child in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if child.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(child.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::never;

    const LONG: Duration = Duration::from_secs(30);

    fn watched() -> (tempfile::TempDir, PathBuf, ProjectWatcher) {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        for directory in ["src", "target/debug", ".git"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let ignored = Ignored {
            paths: vec![
                root.join("target"),
                root.join("maelstrom-container-tags.lock"),
            ],
        };
        let watcher = ProjectWatcher::new(&root, ignored).unwrap();
        (temp, root, watcher)
    }

    #[test]
    fn changes_anywhere_in_the_tree_count() {
        let (_temp, root, watcher) = watched();
        fs::write(root.join("src/lib.rs"), "").unwrap();
        assert_eq!(watcher.wait(&never()), Woken::Changed);
        fs::create_dir_all(root.join("new/deep")).unwrap();
        assert_eq!(watcher.wait(&never()), Woken::Changed);
        // The new directory is watched soon after it was seen.
        let deadline = std::time::Instant::now() + LONG;
        while watcher.changes.try_recv().is_err() {
            assert!(
                std::time::Instant::now() < deadline,
                "changes in a new directory are not seen"
            );
            fs::write(root.join("new/deep/file"), "").unwrap();
        }
    }

    #[test]
    fn ignored_places_and_reading_do_not_count() {
        let (_temp, root, watcher) = watched();
        fs::write(root.join("target/debug/x"), "").unwrap();
        fs::write(root.join(".git/index"), "").unwrap();
        fs::write(root.join("maelstrom-container-tags.lock"), "").unwrap();
        fs::read_dir(root.join("src")).unwrap().count();
        fs::write(root.join("Cargo.toml"), "").unwrap();
        // Events come in order: when the manifest's is here, the others would be, too.
        watcher.changes.recv_timeout(LONG).unwrap();
        assert!(root.join("Cargo.toml").exists());
        let only = EventKind::Access(notify::event::AccessKind::Read);
        let (sender, receiver) = bounded(1);
        let (directories, _keep) = crossbeam_channel::unbounded();
        let ignored = Ignored {
            paths: vec![root.join("target")],
        };
        handle(
            Ok(Event::new(only).add_path(root.join("src/lib.rs"))),
            &ignored,
            &sender,
            &directories,
        );
        handle(
            Ok(Event::new(EventKind::Any).add_path(root.join("target/x"))),
            &ignored,
            &sender,
            &directories,
        );
        handle(
            Ok(Event::new(EventKind::Any).add_path(root.join("a/.git/x"))),
            &ignored,
            &sender,
            &directories,
        );
        assert!(receiver.is_empty());
        handle(
            Ok(Event::new(EventKind::Any).add_path(root.join("targets"))),
            &ignored,
            &sender,
            &directories,
        );
        assert!(!receiver.is_empty());
    }

    #[test]
    fn a_signal_ends_the_wait() {
        let (_temp, _root, watcher) = watched();
        let (sender, signals) = bounded(1);
        sender.send(2).unwrap();
        assert_eq!(watcher.wait(&signals), Woken::Signal(2));
    }
}
