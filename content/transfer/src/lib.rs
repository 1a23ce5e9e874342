//! Layers as blobs that peers may ask for: the transfer store, on iroh-blobs.
