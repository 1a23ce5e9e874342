//! Messages that were ignored, and why.

/// How often messages were ignored, by reason. None of these does harm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// They pass a bound.
    pub too_large: u64,
    /// They are about a bundle that this node neither pulls nor serves.
    pub unknown_bundle: u64,
    /// They come from a node that has sent bad data.
    pub banned: u64,
    /// They come from a node that is not linked.
    pub not_linked: u64,
    /// They answer what wasn't asked, or no longer.
    pub unasked: u64,
}
