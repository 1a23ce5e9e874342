//! What a job needs: manifests, layer builders, the store, unpacked trees, eviction.
