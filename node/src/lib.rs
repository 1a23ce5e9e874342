//! The node: dispatch over the machine's slots, and the session that clients talk to.
