//! Which ranges of which blobs to ask from whom. No I/O, no clock.
