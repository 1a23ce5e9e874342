//! `cargo test`, every test in a container of its own.

mod artifact;
mod build;
mod cargo_config;
mod cargo_test;
mod environment;
mod harness;
mod host;
mod libtest;
mod options;
mod project;
mod round;
mod sysroot;
mod workspace;

fn main() {}
