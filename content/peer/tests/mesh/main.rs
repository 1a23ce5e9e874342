//! Whole nodes on loopback: endpoints, stores and files are real.

mod asking;
mod host;
mod pulling;
