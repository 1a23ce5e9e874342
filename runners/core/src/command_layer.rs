//! Layers made by running a command on the layers below them.
//!
//! What the command changes in its root file system is the layer. The command runs in a container
//! like any job's, so everything that its result can depend on is known, and the layer is
//! remembered under the hash of all that: the same command on the same layers runs once in a
//! cache.

use crate::{
    client::{Client, JobRequest},
    files,
};
use maelstrom_content::{LayerBuilder, LayerId};
use maelstrom_node::Container;
use maelstrom_runtime::Root;
use maelstrom_spec::{JobError, JobOutcome, JobOutput};
use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Below the cache directory: files named by the hash of a command and its surroundings, each
/// with the id of the layer that came of it.
const DIRECTORY: &str = "command-layers-1";

/// The extended attribute that overlayfs gives to a directory that hides what is below it.
const OPAQUE: &str = "user.overlay.opaque";

/// Makes the layer of a command, or finds the one that was made before. `container` is what the
/// command runs in; its layers are those below.
pub(crate) fn build(
    client: &Client,
    program: &str,
    arguments: &[String],
    container: &Container,
) -> Result<LayerId, JobError> {
    let doing = |error: &dyn std::fmt::Display| {
        JobError::Remote(format!(
            "making the layer of the command `{program}`: {error}"
        ))
    };
    let directory = client.cache_dir().join(DIRECTORY);
    fs::create_dir_all(&directory).map_err(|error| doing(&error))?;
    let key = key(program, arguments, container);
    let lock = client.command_lock(key);
    let _held = lock.lock().unwrap_or_else(|e| e.into_inner());
    let memo = directory.join(key.to_string());
    if let Some(known) = remembered(client, &memo) {
        return Ok(known);
    }
    let changes = Changes::new(&directory).map_err(|error| doing(&error))?;
    let mut container = container.clone();
    container.root = Root::Capture {
        upper: changes.upper(),
        work: changes.work(),
    };
    let request = JobRequest::new(Arc::new(container), program, arguments.to_vec());
    succeeded(program, client.run_unnumbered(request)?)?;
    let id = collect(client, &changes.upper()).map_err(|error| doing(&error))?;
    files::write_whole(&memo, id.to_string().as_bytes()).map_err(|error| doing(&error))?;
    Ok(id)
}

/// The hash of everything that the result may depend on.
fn key(program: &str, arguments: &[String], container: &Container) -> blake3::Hash {
    // The debug form names every field, and tells apart whatever differs.
    let inputs = format!("{program:?} {arguments:?} {container:?}");
    blake3::hash(inputs.as_bytes())
}

fn remembered(client: &Client, memo: &Path) -> Option<LayerId> {
    let id = fs::read_to_string(memo).ok()?.trim().parse().ok()?;
    // It may have been evicted since.
    client.keep_layer(id).then_some(id)
}

/// A command that fails makes no layer.
fn succeeded(program: &str, outcome: JobOutcome) -> Result<(), JobError> {
    if outcome.status.is_success() {
        return Ok(());
    }
    let mut message = format!(
        "the command `{program}` of a layer did not succeed ({:?})",
        outcome.status
    );
    for (name, output) in [
        ("stdout", &outcome.effects.stdout),
        ("stderr", &outcome.effects.stderr),
    ] {
        if *output != JobOutput::None {
            let text = String::from_utf8_lossy(output.bytes());
            message.push_str(&format!("; its {name}:\n{}", last_lines(&text)));
        }
    }
    Err(JobError::Remote(message))
}

fn last_lines(text: &str) -> &str {
    let start = text
        .rmatch_indices('\n')
        .map(|(at, _)| at + 1)
        .nth(20)
        .unwrap_or(0);
    text[start..].trim_end()
}

/// Puts what overlayfs wrote to an upper directory into a layer.
fn collect(client: &Client, upper: &Path) -> Result<LayerId, String> {
    let mut layer = client.store().layer();
    collect_directory(&mut layer, upper, Path::new("/"))
        .map_err(|error| format!("reading what it changed: {error}"))?;
    layer.finish().map_err(|error| error.to_string())
}

fn collect_directory(layer: &mut LayerBuilder, from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let source = entry.path();
        let destination = to.join(entry.file_name());
        let metadata = fs::symlink_metadata(&source)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            let mode = metadata.permissions().mode() & 0o7777;
            // What the command closed to itself is open to us, whose files they are.
            fs::set_permissions(&source, fs::Permissions::from_mode(mode | 0o700))?;
            if is_opaque(&source) {
                layer.add_opaque_directory(&destination, mode);
            } else {
                layer.add_directory(&destination, mode);
            }
            collect_directory(layer, &source, &destination)?;
        } else if kind.is_char_device() && metadata.rdev() == 0 {
            layer.add_whiteout(&destination);
        } else if kind.is_socket() || kind.is_fifo() {
            // Nothing that could be at their other end outlives the command.
        } else {
            layer.add_path(&destination, &source);
        }
    }
    Ok(())
}

fn is_opaque(directory: &Path) -> bool {
    let mut value = [0; 8];
    rustix::fs::lgetxattr(directory, OPAQUE, &mut value)
        .is_ok_and(|length| &value[..length] == b"y")
}

/// The directories that receive a command's changes; removed when dropped.
struct Changes(PathBuf);

impl Changes {
    fn new(directory: &Path) -> io::Result<Self> {
        let path = tempfile::Builder::new()
            .prefix("changes-")
            .tempdir_in(directory)?
            .keep();
        let changes = Self(path);
        fs::create_dir(changes.upper())?;
        fs::create_dir(changes.work())?;
        Ok(changes)
    }

    fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }

    fn work(&self) -> PathBuf {
        self.0.join("work")
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        // Overlayfs leaves a directory without any permission in its scratch space.
        let inner = self.work().join("work");
        let _ = fs::set_permissions(inner, fs::Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_output_is_told() {
        assert_eq!(last_lines("a\nb\n"), "a\nb");
        let long: String = (0..100).map(|line| format!("{line}\n")).collect();
        assert_eq!(last_lines(&long).lines().next(), Some("80"));
        assert_eq!(last_lines(&long).lines().last(), Some("99"));
    }
}
