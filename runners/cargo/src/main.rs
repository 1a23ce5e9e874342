//! cargo-maelstrom
fn main() {}
