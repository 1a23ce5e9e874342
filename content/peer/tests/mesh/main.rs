//! Whole nodes on loopback: endpoints, stores and files are real.

mod host;
mod pulling;
