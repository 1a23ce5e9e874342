//! The `[env]` table of Cargo's configuration files.

use anyhow::{Context as _, Result, bail};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};
use toml::{Table, Value};

/// The variables that Cargo's configuration sets for the programs that Cargo runs, as seen from
/// `directory`: the files `.cargo/config.toml` in it and all directories above it, then the one in
/// Cargo's home, nearer files first. A variable that `is_set` keeps its value unless the
/// configuration forces its own.
pub(crate) fn environment(
    directory: &Path,
    cargo_home: Option<&Path>,
    is_set: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, String>> {
    let mut files: Vec<PathBuf> = directory
        .ancestors()
        .filter_map(|ancestor| config_file(&ancestor.join(".cargo")))
        .collect();
    if let Some(file) = cargo_home.and_then(config_file)
        && !files.contains(&file)
    {
        files.push(file);
    }
    let mut entries = BTreeMap::new();
    for file in files {
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("reading Cargo's configuration {}", file.display()));
            }
        };
        let table: Table = text.parse().with_context(|| {
            format!("Cargo's configuration {} is not valid TOML", file.display())
        })?;
        let Some(Value::Table(env)) = table.get("env") else {
            continue;
        };
        for (name, value) in env {
            if !entries.contains_key(name) {
                let entry = Entry::parse(value, &file).with_context(|| {
                    format!(
                        "the variable `env.{name}` in Cargo's configuration {}",
                        file.display()
                    )
                })?;
                entries.insert(name.clone(), entry);
            }
        }
    }
    Ok(entries
        .into_iter()
        .filter(|(name, entry)| entry.force || !is_set(name))
        .map(|(name, entry)| (name, entry.value))
        .collect())
}

/// Cargo's home directory: `CARGO_HOME`, else `.cargo` in `home`.
pub(crate) fn cargo_home(cargo_home: Option<OsString>, home: Option<&Path>) -> Option<PathBuf> {
    match cargo_home {
        Some(path) if !path.is_empty() => Some(path.into()),
        _ => home.map(|home| home.join(".cargo")),
    }
}

/// The configuration file in `directory`. As in Cargo, the name without extension wins.
fn config_file(directory: &Path) -> Option<PathBuf> {
    ["config", "config.toml"]
        .into_iter()
        .map(|name| directory.join(name))
        .find(|path| path.is_file())
}

struct Entry {
    value: String,
    force: bool,
}

impl Entry {
    fn parse(value: &Value, file: &Path) -> Result<Entry> {
        match value {
            Value::String(value) => Ok(Entry {
                value: value.clone(),
                force: false,
            }),
            Value::Table(table) => {
                let Some(Value::String(value)) = table.get("value") else {
                    bail!("has no string `value`")
                };
                let flag = |name| matches!(table.get(name), Some(Value::Boolean(true)));
                let value = if flag("relative") {
                    // Relative to the directory that holds `.cargo`.
                    let base = file
                        .parent()
                        .and_then(Path::parent)
                        .unwrap_or(Path::new("/"));
                    base.join(value).to_string_lossy().into_owned()
                } else {
                    value.clone()
                };
                Ok(Entry {
                    value,
                    force: flag("force"),
                })
            }
            _ => bail!("is neither a string nor a table with a `value`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn nearer_files_win_and_values_are_relative_to_their_file() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        write(
            &root.join(".cargo/config.toml"),
            "[env]\nA = 'outer'\nB = 'outer'\nR = { value = 'x/y', relative = true }\n",
        );
        write(
            &root.join("in/.cargo/config.toml"),
            "[env]\nA = 'inner'\nF = { value = 'forced', force = true }\nS = 'kept'\n",
        );
        write(
            &root.join("home/config.toml"),
            "[env]\nA = 'home'\nH = 'home'\n[build]\njobs = 1\n",
        );
        let set = |name: &str| matches!(name, "F" | "S");
        let environment = environment(&root.join("in"), Some(&root.join("home")), set).unwrap();
        let expected = [
            ("A", "inner".to_owned()),
            ("B", "outer".to_owned()),
            ("F", "forced".to_owned()),
            ("H", "home".to_owned()),
            ("R", root.join("x/y").display().to_string()),
        ];
        assert_eq!(
            environment,
            expected
                .map(|(name, value)| (name.to_owned(), value))
                .into()
        );
    }

    #[test]
    fn bad_files_are_named() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join(".cargo/config.toml");
        for (text, expected) in [
            ("[env", "not valid TOML"),
            ("[env]\nA = 1\n", "`env.A`"),
            ("[env]\nA = {}\n", "`env.A`"),
        ] {
            write(&file, text);
            let error = environment(temp.path(), None, |_| false).unwrap_err();
            let message = format!("{error:#}");
            assert!(
                message.contains(expected) && message.contains(&file.display().to_string()),
                "{message}"
            );
        }
    }

    #[test]
    fn homes() {
        let home = Path::new("/home/u");
        assert_eq!(cargo_home(None, Some(home)), Some("/home/u/.cargo".into()));
        assert_eq!(
            cargo_home(Some("".into()), Some(home)),
            Some("/home/u/.cargo".into())
        );
        assert_eq!(cargo_home(Some("/c".into()), None), Some("/c".into()));
        assert_eq!(cargo_home(None, None), None);
    }
}
