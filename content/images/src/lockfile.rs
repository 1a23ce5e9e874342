//! The file in the project directory that pins tags to digests, meant to be committed.

use crate::{Problem, digest::Digest, files};
use maelstrom_spec::RegistryReference;
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use toml_edit::{DocumentMut, Item, Table, value};

/// The name of the file.
pub const LOCK_FILE_NAME: &str = "maelstrom-container-tags.lock";

/// The version that is read and written.
const VERSION: i64 = 1;

/// The longest file that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// The file that pins tags.
#[derive(Clone, Debug)]
pub(crate) struct LockFile {
    path: PathBuf,
}

impl LockFile {
    pub(crate) fn new(project_dir: &Path) -> LockFile {
        LockFile {
            path: project_dir.join(LOCK_FILE_NAME),
        }
    }

    /// The digest that a tag is pinned to.
    pub(crate) fn get(&self, reference: &RegistryReference) -> Result<Option<Digest>, Problem> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Problem::io("read", &self.path)(source)),
        };
        files::lock_shared(&file, &self.path)?;
        let text = self.read(&file)?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        match parse(&text) {
            Ok(document) => self.find(&text, &document, reference),
            Err(why) => {
                tracing::warn!(
                    "{}: {why}; none of its tags is pinned until it is put right",
                    self.path.display()
                );
                Ok(None)
            }
        }
    }

    /// Pins a tag, unless that has happened meanwhile. Returns what it is pinned to.
    pub(crate) fn pin(
        &self,
        reference: &RegistryReference,
        digest: &Digest,
    ) -> Result<Digest, Problem> {
        let mut file = files::lock(&self.path, || {})?;
        let text = self.read(&file)?;
        let mut document = match parse(&text) {
            Ok(document) => document,
            Err(_) if text.trim().is_empty() => DocumentMut::new(),
            Err(_) => {
                self.put_aside(&text)?;
                DocumentMut::new()
            }
        };
        if let Some(pinned) = self.find(&text, &document, reference)? {
            return Ok(pinned);
        }
        document["version"] = value(VERSION);
        let section = document
            .entry(&reference.familiar_name())
            .or_insert_with(|| Item::Table(Table::new()));
        if !section.is_table_like() {
            *section = Item::Table(Table::new());
        }
        section[reference.tag_or_latest()] = value(digest.as_str());
        // One call writes it all, so that a process that is killed leaves the old or the new.
        let text = document.to_string();
        file.write_all_at(text.as_bytes(), 0)
            .and_then(|()| file.set_len(text.len() as u64))
            .and_then(|()| file.flush())
            .map_err(Problem::io("write", &self.path))?;
        Ok(digest.clone())
    }

    fn read(&self, file: &File) -> Result<String, Problem> {
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(Problem::io("read", &self.path))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Problem::TooLong {
                what: self.path.display().to_string(),
                limit_bytes: MAX_BYTES,
                limit: "which is the most that such a file may have",
            });
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The format says that a malformed file is written anew. What a user has in it (after a
    /// merge with conflicts, for instance) is kept next to it.
    fn put_aside(&self, text: &str) -> Result<(), Problem> {
        let aside = self.path.with_extension("lock.malformed");
        tracing::warn!(
            "writing {} anew; what was in it is in {} now",
            self.path.display(),
            aside.display()
        );
        fs::write(&aside, text).map_err(Problem::io("write", &aside))
    }

    fn find(
        &self,
        text: &str,
        document: &DocumentMut,
        reference: &RegistryReference,
    ) -> Result<Option<Digest>, Problem> {
        let name = reference.familiar_name();
        let tag = reference.tag_or_latest();
        let found = document
            .get(&name)
            .and_then(Item::as_table_like)
            .and_then(|section| section.get(tag));
        let Some(found) = found else {
            return Ok(None);
        };
        let digest = match found.as_str() {
            Some(text) => text.parse(),
            None => Err("it is no string".into()),
        };
        digest.map(Some).map_err(|why| {
            // The parsed document no longer knows where things stand in the text.
            let is_it = |line: &str| {
                line.split_once('=')
                    .is_some_and(|(key, _)| key.trim().trim_matches(['"', '\'']) == tag)
            };
            let line = text.lines().enumerate().find(|(_, line)| is_it(line));
            let at = match line {
                Some((number, line)) => format!("line {}, `{}`", number + 1, line.trim()),
                None => format!("tag {tag:?} of {name:?}"),
            };
            Problem::Layout {
                path: self.path.clone(),
                problem: format!("{at}: {why}; delete the line to have the tag resolved anew"),
            }
        })
    }
}

fn parse(text: &str) -> Result<DocumentMut, String> {
    let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        // Its text has the line, the column and the line itself.
        error.to_string().trim_end().to_owned()
    })?;
    match document.get("version").and_then(Item::as_integer) {
        Some(VERSION) => Ok(document),
        Some(other) => Err(format!(
            "it is of version {other}, and only version {VERSION} is known"
        )),
        None => Err(format!("it has no `version = {VERSION}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maelstrom_spec::ImageUri;

    fn reference(text: &str) -> RegistryReference {
        match format!("docker://{text}").parse().unwrap() {
            ImageUri::Registry(reference) => reference,
            other => panic!("{other}"),
        }
    }

    fn digest(digit: char) -> Digest {
        format!("sha256:{}", digit.to_string().repeat(64))
            .parse()
            .unwrap()
    }

    #[test]
    fn tags_are_pinned_once() {
        let directory = tempfile::tempdir().unwrap();
        let lock = LockFile::new(directory.path());
        let python = reference("python:3.12-slim");
        let tool = reference("ghcr.io/acme/tool");
        assert_eq!(lock.get(&python).unwrap(), None);
        assert_eq!(lock.pin(&python, &digest('a')).unwrap(), digest('a'));
        assert_eq!(lock.pin(&python, &digest('c')).unwrap(), digest('a'));
        assert_eq!(lock.pin(&tool, &digest('b')).unwrap(), digest('b'));
        assert_eq!(lock.get(&tool).unwrap(), Some(digest('b')));
        assert_eq!(lock.get(&reference("python")).unwrap(), None);
        let (a, b) = (digest('a'), digest('b'));
        assert_eq!(
            fs::read_to_string(directory.path().join(LOCK_FILE_NAME)).unwrap(),
            format!(
                "version = 1\n\n[python]\n\"3.12-slim\" = \"{a}\"\n\n[\"ghcr.io/acme/tool\"]\nlatest = \"{b}\"\n"
            )
        );
    }

    #[test]
    fn what_others_wrote_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOCK_FILE_NAME);
        let old = format!(
            "version = 1\n\n# why\n[b]\nx = \"{}\" # pinned\n",
            digest('1')
        );
        fs::write(&path, &old).unwrap();
        let lock = LockFile::new(directory.path());
        lock.pin(&reference("a:1.0"), &digest('2')).unwrap();
        let new = fs::read_to_string(&path).unwrap();
        assert_eq!(new, format!("{old}\n[a]\n\"1.0\" = \"{}\"\n", digest('2')));
    }

    #[test]
    fn malformed_files_pin_nothing_and_are_kept_aside() {
        for old in [
            "<<<<<<< ours\nversion = 1\n",
            "version = 2\n[a]\nlatest = 'x'\n",
            "a = 1",
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(LOCK_FILE_NAME);
            fs::write(&path, old).unwrap();
            let lock = LockFile::new(directory.path());
            assert_eq!(lock.get(&reference("a")).unwrap(), None);
            assert_eq!(fs::read_to_string(&path).unwrap(), old);
            lock.pin(&reference("a"), &digest('2')).unwrap();
            assert_eq!(lock.get(&reference("a")).unwrap(), Some(digest('2')));
            let aside = directory
                .path()
                .join("maelstrom-container-tags.lock.malformed");
            assert_eq!(fs::read_to_string(aside).unwrap(), old);
        }
    }

    #[test]
    fn what_is_no_digest_is_pointed_at() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOCK_FILE_NAME);
        fs::write(&path, "version = 1\n[python]\n\"3.12\" = \"sha256:aaaa\"\n").unwrap();
        let error = LockFile::new(directory.path())
            .get(&reference("python:3.12"))
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with(
                "line 3, `\"3.12\" = \"sha256:aaaa\"`: \"sha256:aaaa\" is no digest: after \
                 `sha256:` come 64 digits from 0 to f; delete the line to have the tag resolved anew"
            ),
            "{error}"
        );
    }
}
