//! Writes the file.

use super::{ListingError, Record, TestListing, VERSION};
use std::{
    fs::{self, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

impl TestListing {
    /// Replaces the file at `path` in one step, so that a reader and a crash find the old file or the
    /// new one. Its directory is made if need be.
    ///
    /// # Errors
    ///
    /// The file cannot be written; the old one stays.
    pub fn save(&self, path: &Path) -> Result<(), ListingError> {
        self.try_save(path).map_err(|source| ListingError::Save {
            path: path.to_owned(),
            source,
        })
    }

    fn try_save(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        // Not synced to disk first: that can wait for everything a build has just written, and
        // what is at stake is a record that the next run makes again.
        let mut file = tempfile::Builder::new()
            .prefix(".test-listing-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory)?;
        let mut writer = BufWriter::with_capacity(64 << 10, file.as_file_mut());
        self.write(&mut writer)?;
        writer.flush()?;
        drop(writer);
        file.persist(path)?;
        Ok(())
    }

    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "version = {VERSION}")?;
        for (package, artifacts) in &self.packages {
            if &**package == "version" {
                continue;
            }
            for (artifact, cases) in artifacts {
                for (case, record) in cases {
                    out.write_all(b"\n[")?;
                    write_key(out, package)?;
                    out.write_all(b".")?;
                    write_key(out, artifact)?;
                    out.write_all(b".")?;
                    write_key(out, case)?;
                    out.write_all(b"]\n")?;
                    write_record(out, record)?;
                }
            }
        }
        Ok(())
    }
}

fn write_record(out: &mut impl Write, record: &Record) -> io::Result<()> {
    out.write_all(b"timings = [")?;
    for (index, seconds) in record.timings().iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        // Microseconds are enough; `{:?}` always writes a float.
        let seconds = (f64::from(*seconds) * 1e6).round() / 1e6;
        write!(out, "{comma}{:?}", seconds as f32)?;
    }
    writeln!(out, "]\noutcome = \"{}\"", record.outcome.name())?;
    if let Some(metadata) = &record.metadata {
        out.write_all(b"node_id = ")?;
        write_string(out, &metadata.node_id)?;
        out.write_all(b"\nmarkers = [")?;
        for (index, marker) in metadata.markers.iter().enumerate() {
            if index > 0 {
                out.write_all(b", ")?;
            }
            write_string(out, marker)?;
        }
        out.write_all(b"]\n")?;
    }
    Ok(())
}

fn write_key(out: &mut impl Write, key: &str) -> io::Result<()> {
    let is_bare = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    match is_bare {
        true => out.write_all(key.as_bytes()),
        false => write_string(out, key),
    }
}

fn write_string(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(b"\"")?;
    let mut written = 0;
    for (at, c) in text.char_indices() {
        if c != '"' && c != '\\' && !c.is_ascii_control() {
            continue;
        }
        out.write_all(&text.as_bytes()[written..at])?;
        match c {
            '"' | '\\' => write!(out, "\\{c}")?,
            _ => write!(out, "\\u{:04X}", c as u32)?,
        }
        written = at + c.len_utf8();
    }
    out.write_all(&text.as_bytes()[written..])?;
    out.write_all(b"\"")
}
