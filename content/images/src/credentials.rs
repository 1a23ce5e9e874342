//! Credentials for registries, from where `docker login` keeps them: `config.json` in
//! `$DOCKER_CONFIG` or `~/.docker`, and the helper programs that it names.

use crate::{Problem, files};
use base64::{Engine, alphabet, engine::DecodePaddingMode, engine::GeneralPurpose};
use serde::Deserialize;
use std::{
    collections::HashMap,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// The longest configuration and the longest answer of a helper that are read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// How long a helper may take; it may ask the user.
const HELPER_TIMEOUT: Duration = Duration::from_secs(120);

/// Under which Docker keeps the credentials for its own registry.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What proves to a registry who asks.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// Something that the token server takes instead.
    IdentityToken(String),
}

/// The configuration file, so far as it is about credentials.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: HashMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Where the configuration is.
pub(crate) fn config_file() -> Option<PathBuf> {
    let directory = match std::env::var_os("DOCKER_CONFIG") {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory),
        _ => Path::new(&std::env::var_os("HOME")?).join(".docker"),
    };
    Some(directory.join("config.json"))
}

/// The credentials for a registry, if there are any. May run a helper program.
pub(crate) fn find(config: &Path, host: &str) -> Result<Option<Credentials>, Problem> {
    let bad = |problem: String| Problem::Credentials {
        path: config.to_owned(),
        problem,
    };
    let Some(bytes) = files::read_bounded(config, MAX_BYTES)? else {
        return Ok(None);
    };
    // The message has the line and the column. The line itself may hold a password.
    let parsed: Config = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    let is_hub = host == maelstrom_spec::RegistryReference::DOCKER_HUB;
    let key = if is_hub { DOCKER_HUB_KEY } else { host };
    if let Some(helper) = parsed
        .cred_helpers
        .get(key)
        .or(parsed.cred_helpers.get(host))
    {
        return ask_helper(helper, key).map_err(bad);
    }
    if let Some(helper) = parsed.creds_store.as_ref().filter(|name| !name.is_empty())
        && let Some(found) = ask_helper(helper, key).map_err(bad)?
    {
        return Ok(Some(found));
    }
    let entry = parsed.auths.get(key).or_else(|| {
        let is_it = |(written, _): &(&String, &Entry)| host_of(written) == host;
        parsed.auths.iter().find(is_it).map(|(_, entry)| entry)
    });
    match entry {
        None => Ok(None),
        Some(entry) => from_entry(entry)
            .map_err(|problem| bad(format!("the entry for {host} of its `auths` {problem}"))),
    }
}

/// The host that a key of `auths` is about; older tools write URLs.
fn host_of(key: &str) -> &str {
    let rest = key
        .strip_prefix("https://")
        .or(key.strip_prefix("http://"))
        .unwrap_or(key);
    match rest.split('/').next().unwrap_or(rest) {
        "index.docker.io" | "registry-1.docker.io" => maelstrom_spec::RegistryReference::DOCKER_HUB,
        host => host,
    }
}

fn from_entry(entry: &Entry) -> Result<Option<Credentials>, String> {
    if let Some(token) = entry
        .identitytoken
        .as_ref()
        .filter(|token| !token.is_empty())
    {
        return Ok(Some(Credentials::IdentityToken(token.clone())));
    }
    if let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) {
        let lenient = base64::engine::GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let decoded = GeneralPurpose::new(&alphabet::STANDARD, lenient)
            .decode(auth.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or("has an `auth` that is not base64 of text")?;
        let (user, password) = decoded
            .split_once(':')
            .ok_or("has an `auth` without a `:` between user and password")?;
        return Ok(Some(Credentials::Password {
            user: user.to_owned(),
            // Docker pads it with zero bytes in places.
            password: password.trim_end_matches('\0').to_owned(),
        }));
    }
    Ok(match (&entry.username, &entry.password) {
        (Some(user), Some(password)) => Some(Credentials::Password {
            user: user.clone(),
            password: password.clone(),
        }),
        // What `docker login` leaves there when a helper has the rest.
        _ => None,
    })
}

/// Asks `docker-credential-NAME`, by the protocol of Docker's credential helpers.
fn ask_helper(name: &str, key: &str) -> Result<Option<Credentials>, String> {
    let program = format!("docker-credential-{name}");
    if name.contains('/') {
        return Err(format!("the helper {name:?} is a path, not a name"));
    }
    let failed = |why: String| format!("the credential helper `{program}` {why}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read has its reasons, and will say them.
        let _ = stdin.write_all(key.as_bytes());
    }
    let (send, receive) = mpsc::channel();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let errors = thread::spawn(move || read(stderr));
    thread::spawn(move || {
        let _ = send.send(read(stdout));
    });
    let Ok(output) = receive.recv_timeout(HELPER_TIMEOUT) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed(format!(
            "did not answer within {} seconds",
            HELPER_TIMEOUT.as_secs()
        )));
    };
    let status = child
        .wait()
        .map_err(|error| failed(format!("was lost: {error}")))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&output).trim().to_owned();
        if said.contains("credentials not found") {
            return Ok(None);
        }
        let errors = errors.join().unwrap_or_default();
        let errors = String::from_utf8_lossy(&errors);
        let said = format!("{said} {}", errors.trim());
        return Err(failed(format!("failed ({status}): {:.1000}", said.trim())));
    }
    let answer: Answer = serde_json::from_slice(&output)
        .map_err(|error| failed(format!("gave a malformed answer: {error}")))?;
    Ok(Some(if answer.username == "<token>" {
        Credentials::IdentityToken(answer.secret)
    } else {
        Credentials::Password {
            user: answer.username,
            password: answer.secret,
        }
    }))
}

fn read(stream: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let _ = stream.take(MAX_BYTES).read_to_end(&mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn look(config: &str, host: &str) -> Result<Option<Credentials>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, config).unwrap();
        find(&path, host).map_err(|error| {
            error
                .to_string()
                .replace(&path.display().to_string(), "config.json")
        })
    }

    fn password(user: &str, password: &str) -> Result<Option<Credentials>, String> {
        Ok(Some(Credentials::Password {
            user: user.into(),
            password: password.into(),
        }))
    }

    impl std::fmt::Debug for Credentials {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            match self {
                Credentials::Password { user, password } => write!(f, "{user}:{password}"),
                Credentials::IdentityToken(token) => f.write_str(token),
            }
        }
    }

    #[test]
    fn entries_of_the_file() {
        let config = r#"{"auths": {
            "a.example": {"auth": "dXNlcjpwYXNzOndvcmQ="},
            "https://b.example/v2/": {"auth": "dTpw"},
            "https://index.docker.io/v1/": {"username": "me", "password": "secret"},
            "c.example": {"identitytoken": "t", "auth": "dTo="},
            "d.example": {},
            "e.example": {"auth": "%"},
            "f.example": {"auth": "YWJj"}
        }, "other": [1]}"#;
        assert_eq!(look(config, "a.example"), password("user", "pass:word"));
        assert_eq!(look(config, "b.example"), password("u", "p"));
        assert_eq!(look(config, "docker.io"), password("me", "secret"));
        assert_eq!(
            look(config, "c.example"),
            Ok(Some(Credentials::IdentityToken("t".into())))
        );
        assert_eq!(look(config, "d.example"), Ok(None));
        assert_eq!(look(config, "z.example"), Ok(None));
        assert_eq!(
            look(config, "e.example").unwrap_err(),
            "config.json: the entry for e.example of its `auths` has an `auth` that is not base64 of text"
        );
        assert!(look(config, "f.example").is_err());
        assert_eq!(
            look("{\n\"auths\": [}", "a").unwrap_err(),
            "config.json: invalid type: sequence, expected a map at line 2 column 9"
        );
    }

    #[test]
    fn no_file_is_no_credentials() {
        assert_eq!(
            find(Path::new("/nowhere/config.json"), "a").ok(),
            Some(None)
        );
    }

    #[test]
    fn helpers_that_are_not_there_are_told() {
        let error = look(
            r#"{"credHelpers": {"a.example": "none-of-this-name"}}"#,
            "a.example",
        );
        assert_eq!(
            error.unwrap_err(),
            "config.json: the credential helper `docker-credential-none-of-this-name` cannot be \
             started: No such file or directory (os error 2)"
        );
        let config = r#"{"credHelpers": {"a.example": "../evil"}}"#;
        assert!(look(config, "a.example").unwrap_err().contains("is a path"));
        assert_eq!(look(config, "b.example"), Ok(None));
    }
}
