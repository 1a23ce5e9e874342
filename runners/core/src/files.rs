//! Files that one run keeps for the next.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

/// Writes a file, and the directories that it lies in, so that whoever reads it sees all of it or
/// what was there before. A crash of the machine may lose it.
///
/// # Errors
///
/// What the kernel says; what was there before is there still.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}
