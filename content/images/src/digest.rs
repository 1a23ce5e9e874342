//! Digests, and readers that hold what comes to them.

use ring::digest::{Algorithm, Context, SHA256, SHA512};
use std::{
    fmt,
    io::{self, Read},
    str::FromStr,
};

/// The digest of a manifest, a configuration or a layer: `sha256:HEX` or `sha512:HEX`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Box<str>);

impl Digest {
    /// The SHA-256 of bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(&SHA256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// `ALGORITHM:HEX`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A hasher of the same algorithm.
    pub(crate) fn hasher(&self) -> Hasher {
        Hasher::new(if self.0.starts_with("sha512:") {
            &SHA512
        } else {
            &SHA256
        })
    }

    /// The digest of bytes by the same algorithm.
    pub(crate) fn of_same_kind(&self, bytes: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digits after the algorithm, and the algorithm.
    pub(crate) fn parts(&self) -> (&str, &str) {
        self.0.split_once(':').unwrap_or(("", &self.0))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("{text:.100?} is no digest: {why}"));
        let Some((algorithm, hex)) = text.split_once(':') else {
            return wrong("it has no `:`");
        };
        let (is_sha512, length) = match algorithm {
            "sha256" => (false, 64),
            "sha512" => (true, 128),
            _ => return wrong("only sha256 and sha512 are known"),
        };
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() != length || !hex.bytes().all(is_digit) {
            return wrong(if is_sha512 {
                "after `sha512:` come 128 digits from 0 to f"
            } else {
                "after `sha256:` come 64 digits from 0 to f"
            });
        }
        Ok(Digest(text.into()))
    }
}

/// Computes a digest piece by piece.
pub(crate) struct Hasher {
    context: Context,
    is_sha512: bool,
}

impl Hasher {
    fn new(algorithm: &'static Algorithm) -> Hasher {
        Hasher {
            context: Context::new(algorithm),
            is_sha512: algorithm == &SHA512,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        let mut text = String::from(if self.is_sha512 { "sha512:" } else { "sha256:" });
        for byte in self.context.finish().as_ref() {
            text.push_str(&format!("{byte:02x}"));
        }
        Digest(text.into())
    }
}

/// Reads on until the end, where it fails if what it gave does not have the digest, and fails
/// as soon as it has given too much.
pub(crate) struct Verified<R> {
    inner: R,
    hasher: Option<Hasher>,
    expected: Digest,
    left_bytes: u64,
    limit_bytes: u64,
    /// What was found instead of what was expected.
    pub(crate) found: Option<Digest>,
}

impl<R: Read> Verified<R> {
    pub(crate) fn new(inner: R, expected: &Digest, limit_bytes: u64) -> Verified<R> {
        Verified {
            inner,
            hasher: Some(expected.hasher()),
            expected: expected.clone(),
            left_bytes: limit_bytes,
            limit_bytes,
            found: None,
        }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.inner.read(buffer)?;
        if read as u64 > self.left_bytes {
            return Err(io::Error::other(format!(
                "it is longer than {} bytes, which is more than it may be",
                self.limit_bytes
            )));
        }
        self.left_bytes -= read as u64;
        if read > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..read]);
            }
            return Ok(read);
        }
        if let Some(hasher) = self.hasher.take() {
            let found = hasher.finish();
            if found != self.expected {
                self.found = Some(found);
            }
        }
        match &self.found {
            None => Ok(0),
            Some(found) => Err(io::Error::other(format!(
                "its digest is {found}, but should be {}",
                self.expected
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests() {
        assert_eq!(Digest::of(b"").as_str(), EMPTY);
        let parsed: Digest = EMPTY.parse().unwrap();
        assert_eq!(parsed, Digest::of(b""));
        let long = format!("sha512:{}", "0a".repeat(64));
        let found = long.parse::<Digest>().unwrap().of_same_kind(b"abc");
        assert!(
            found
                .as_str()
                .starts_with("sha512:ddaf35a193617abacc417349ae204131")
        );
        for bad in [
            "",
            "sha256",
            "sha256:",
            "md5:00",
            &EMPTY.to_uppercase(),
            &EMPTY[..70],
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn readers_end_only_with_what_they_should_have_given() {
        let read = |bytes: &[u8], limit: u64| {
            let mut text = Vec::new();
            Verified::new(bytes, &Digest::of(b"abc"), limit)
                .read_to_end(&mut text)
                .map(|_| text)
                .map_err(|error| error.to_string())
        };
        assert_eq!(read(b"abc", 3), Ok(b"abc".to_vec()));
        assert!(
            read(b"abd", 3)
                .unwrap_err()
                .contains("should be sha256:ba78")
        );
        assert!(read(b"ab", 3).is_err());
        assert!(read(b"abc", 2).unwrap_err().contains("longer than 2 bytes"));
    }
}
