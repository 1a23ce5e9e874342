//! Which job runs where and when. No I/O, no clock.
