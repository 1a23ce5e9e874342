//! Equal profiles held once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::{advert::Version, id::Tag, view::VersionedProfile};

/// Holds equal profiles once for several memberships of one process.
///
/// A simulation of 10,000 nodes would otherwise hold 100 million profiles.
#[derive(Debug, Default)]
pub struct ProfilePool {
    profiles: Mutex<HashMap<(Tag, Version), Weak<VersionedProfile>>>,
}

impl ProfilePool {
    /// The profile of this version; read anew if the pool doesn't hold it or holds another.
    pub(crate) fn get(
        &self,
        tag: Tag,
        version: Version,
        encoded: &[u8],
        read: impl FnOnce() -> Option<VersionedProfile>,
    ) -> Option<Arc<VersionedProfile>> {
        let mut profiles = self.profiles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = profiles.get(&(tag, version)).and_then(Weak::upgrade)
            && *held.encoded == *encoded
        {
            return Some(held);
        }
        let profile = Arc::new(read()?);
        profiles.insert((tag, version), Arc::downgrade(&profile));
        if profiles.len().is_power_of_two() {
            profiles.retain(|_, profile| profile.strong_count() > 0);
        }
        Some(profile)
    }
}
