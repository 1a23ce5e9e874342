//! maelstrom-run
fn main() {}
