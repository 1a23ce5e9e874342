//! The two secrets: a node's own key, and the key that a mesh shares.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use libp2p::identity::Keypair;
use maelstrom_gossip::NodeId;

use crate::file::{self, KeyFileError, Readers};
use crate::text::{MESH_KEY, NODE_KEY, TextError};

/// A node's ed25519 secret. Its public half is the node's [`NodeId`].
#[derive(Clone)]
pub struct NodeKey {
    seed: [u8; 32],
    id: NodeId,
}

impl NodeKey {
    /// A new key from the operating system's randomness.
    pub fn generate() -> Self {
        Self::from_seed(rand::random())
    }

    /// Reads the key in a file; where there is none, makes one there, readable by its owner only.
    /// Of several processes that do this at once, all get the same key.
    ///
    /// # Errors
    ///
    /// Where the file can't be read or written, holds something else, or others may read it.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyFileError> {
        let make = || NODE_KEY.encode(&Self::generate().seed);
        let (text, _) = file::load_or_create(path, NODE_KEY.what, Readers::Owner, make)?;
        let bytes = NODE_KEY.decode(&text).and_then(exactly(&NODE_KEY));
        match bytes {
            Ok(seed) => Ok(Self::from_seed(seed)),
            Err(error) => Err(KeyFileError::not_a_key(path, NODE_KEY.what, error)),
        }
    }

    fn from_seed(seed: [u8; 32]) -> Self {
        let public = keypair(seed).public().try_into_ed25519();
        let public = public.expect("the key was made as an ed25519 key");
        Self {
            seed,
            id: NodeId::from_bytes(public.to_bytes()),
        }
    }

    /// The public key.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The secret of which other transports make the same identity.
    pub fn seed(&self) -> [u8; 32] {
        self.seed
    }

    pub(crate) fn keypair(&self) -> Keypair {
        keypair(self.seed)
    }
}

fn keypair(mut seed: [u8; 32]) -> Keypair {
    Keypair::ed25519_from_bytes(&mut seed).expect("every seed of 32 bytes is a key")
}

/// Shows the public half.
impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.id)
    }
}

/// The 32 secret bytes that all nodes of a mesh share. Whoever lacks them learns nothing and runs
/// nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct MeshKey([u8; 32]);

impl MeshKey {
    /// A new key from the operating system's randomness.
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// Reads the key in a file.
    ///
    /// # Errors
    ///
    /// Where the file can't be read or holds something else, where everybody may read it, or
    /// anybody but its owner may write it.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let text = file::load(path, MESH_KEY.what, Readers::Group)?;
        Self::of_file(path, &text)
    }

    /// Reads the key in a file; where there is none, makes one there, readable by its owner only.
    /// Of several processes that do this at once, all get the same key. The second value says
    /// whether this call made it.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and where the file can't be written.
    pub fn load_or_create(path: &Path) -> Result<(Self, bool), KeyFileError> {
        let make = || Self::generate().to_string();
        let (text, created) = file::load_or_create(path, MESH_KEY.what, Readers::Group, make)?;
        Ok((Self::of_file(path, &text)?, created))
    }

    fn of_file(path: &Path, text: &str) -> Result<Self, KeyFileError> {
        let key = text.parse();
        key.map_err(|error| KeyFileError::not_a_key(path, MESH_KEY.what, error))
    }

    /// Eight characters that differ between keys and reveal nothing of them, for people to
    /// compare.
    pub fn fingerprint(&self) -> String {
        let hash = blake3::derive_key("maelstrom mesh key fingerprint, version 1", &self.0);
        data_encoding::HEXLOWER.encode(&hash[..4])
    }

    /// What connections are wrapped in.
    pub(crate) fn of_connections(&self) -> [u8; 32] {
        blake3::derive_key("maelstrom mesh key for connections, version 1", &self.0)
    }

    /// What a connection for bulk data begins with on the port for control, so that it is told
    /// from others, and from whoever lacks the key. It is sent in clear and proves nothing more.
    pub fn opening_of_bulk(&self) -> [u8; 16] {
        let context = "maelstrom mesh key for openings of bulk connections, version 1";
        let derived = blake3::derive_key(context, &self.0);
        std::array::from_fn(|index| derived[index])
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn from_secret(secret: [u8; 32]) -> Self {
        Self(secret)
    }
}

/// The secret itself, as one word that starts with `maelstromkey1`.
impl fmt::Display for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&MESH_KEY.encode(&self.0))
    }
}

impl FromStr for MeshKey {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        MESH_KEY.decode(text).and_then(exactly(&MESH_KEY)).map(Self)
    }
}

/// Shows the fingerprint.
impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshKey({})", self.fingerprint())
    }
}

fn exactly(kind: &crate::text::Kind) -> impl Fn(Vec<u8>) -> Result<[u8; 32], TextError> {
    move |bytes| bytes.try_into().map_err(|_| TextError::Damaged(kind.what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_node_key_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/maelstrom/node.key");
        let key = NodeKey::load_or_create(&path).unwrap();
        let again = NodeKey::load_or_create(&path).unwrap();
        assert_eq!((key.id(), key.seed()), (again.id(), again.seed()));
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert!(!format!("{key:?}").contains(&data_encoding::HEXLOWER.encode(&key.seed())));
    }

    #[test]
    fn processes_that_start_together_get_one_mesh_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.key");
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| MeshKey::load_or_create(&path).unwrap()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(results.iter().all(|(key, _)| *key == results[0].0));
        assert_eq!(results.iter().filter(|(_, created)| *created).count(), 1);
        assert_eq!(MeshKey::load(&path).unwrap(), results[0].0);
        let files: Vec<_> = dir.path().read_dir().unwrap().collect();
        assert_eq!(files.len(), 1, "{files:?}");
    }

    #[test]
    fn a_key_file_with_comments_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.key");
        let key = MeshKey::generate();
        std::fs::write(&path, format!("# our team's\n\n{key}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert_eq!(MeshKey::load(&path).unwrap(), key);
    }

    #[test]
    fn errors_name_the_file_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let key = MeshKey::generate().to_string();
        let cases = [
            (
                key.clone(),
                0o604,
                "everybody on this machine may read it: chmod o-rwx",
            ),
            (
                key.clone(),
                0o622,
                "others than its owner may write it: chmod go-w",
            ),
            (
                String::new(),
                0o600,
                "a mesh key was expected, and there is nothing",
            ),
            (
                "hello".into(),
                0o600,
                "a mesh key starts with \"maelstromkey1\"",
            ),
            (format!("{key}\n{key}"), 0o600, "more than one line"),
        ];
        for (text, mode, expected) in cases {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = MeshKey::load(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(!error.contains(&key[20..40]), "{error}");
        }

        std::fs::write(&path, NODE_KEY.encode(&[1; 32])).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let error = NodeKey::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("chmod go-rwx"), "{error}");

        let error = MeshKey::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
        let error = MeshKey::load(&dir.path().join("none"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("No such file"), "{error}");
        std::fs::write(&path, vec![b'a'; 100_000]).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let error = MeshKey::load(&path).unwrap_err().to_string();
        assert!(error.contains("longer than"), "{error}");
        let error = MeshKey::load_or_create(&path.join("x"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("Not a directory"), "{error}");
    }

    #[test]
    fn fingerprints_differ_and_say_nothing() {
        let (a, b) = (MeshKey::generate(), MeshKey::generate());
        assert_eq!(a.fingerprint().len(), 8);
        assert_ne!(a.fingerprint(), b.fingerprint());
        assert!(!format!("{a:?}").contains(&a.to_string()[13..21]));
    }
}
