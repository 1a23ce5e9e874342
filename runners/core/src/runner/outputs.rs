//! Files that tests bring back to the project.

use maelstrom_spec::OutputFile;
use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

/// Writes a file that a container brought back, unless the project has it just so already. A path
/// in the project at its own place stays where it is; any other is taken as if the project were
/// the container's root.
///
/// Returns the path where it was written, or `None` if there was nothing to do.
///
/// # Errors
/// A message with the path and the reason.
pub fn bring_back(output: &OutputFile, project: &Path) -> Result<Option<PathBuf>, String> {
    let destination = destination(&output.path, project).ok_or_else(|| {
        format!(
            "could not bring back {}: it is not a plain path",
            output.path.display()
        )
    })?;
    let unchanged = fs::symlink_metadata(&destination).is_ok_and(|metadata| {
        metadata.is_file() && metadata.permissions().mode() & 0o7777 == output.mode & 0o7777
    }) && fs::read(&destination).is_ok_and(|contents| contents == output.contents);
    if unchanged {
        return Ok(None);
    }
    write(&destination, output)
        .map_err(|error| format!("could not bring back {}: {error}", destination.display()))?;
    Ok(Some(destination))
}

fn destination(path: &Path, project: &Path) -> Option<PathBuf> {
    let relative = path
        .strip_prefix(project)
        .or_else(|_| path.strip_prefix("/"))
        .ok()?;
    let plain = relative
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    (plain && relative.file_name().is_some()).then(|| project.join(relative))
}

/// Never through a link that stands in its place, and never half.
fn write(destination: &Path, output: &OutputFile) -> io::Result<()> {
    let directory = destination.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    io::Write::write_all(&mut file, &output.contents)?;
    // Nothing that a test made becomes set-user-id.
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(output.mode & 0o777))?;
    file.persist(destination)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(path: impl Into<PathBuf>, text: &str) -> OutputFile {
        OutputFile {
            path: path.into(),
            mode: 0o644,
            contents: text.into(),
        }
    }

    #[test]
    fn files_go_to_their_own_place_and_unchanged_ones_are_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let project = temp.path();
        let inside = project.join("snapshots/a.snap");
        assert_eq!(
            bring_back(&output(&inside, "1"), project),
            Ok(Some(inside.clone()))
        );
        assert_eq!(fs::read_to_string(&inside).unwrap(), "1");
        assert_eq!(bring_back(&output(&inside, "1"), project), Ok(None));
        assert_eq!(bring_back(&output(&inside, "2"), project), Ok(Some(inside)));
        let elsewhere = project.join("report/x.xml");
        assert_eq!(
            bring_back(&output("/report/x.xml", "x"), project),
            Ok(Some(elsewhere))
        );
    }

    #[test]
    fn nothing_leaves_the_project() {
        let temp = tempfile::tempdir().unwrap();
        let project = temp.path().join("project");
        fs::create_dir(&project).unwrap();
        for path in ["/../x", "relative", "/"] {
            assert!(bring_back(&output(path, "x"), &project).is_err(), "{path}");
        }
        assert!(bring_back(&output(project.join("../x"), "x"), &project).is_err());
        std::os::unix::fs::symlink("../x", project.join("link")).unwrap();
        bring_back(&output(project.join("link"), "x"), &project).unwrap();
        assert!(!temp.path().join("x").exists());
        assert!(
            fs::symlink_metadata(project.join("link"))
                .unwrap()
                .is_file()
        );
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("file"), "").unwrap();
        let message = bring_back(&output("/file/below", "x"), temp.path()).unwrap_err();
        assert!(message.contains("file/below"), "{message}");
    }
}
