//! What all test runners share: configuration, filters, directives, the test record, the UI, the client library.

pub mod client;
mod command_layer;
pub mod config;
pub mod files;
pub mod filter;
pub mod host;
pub mod images;
pub mod listing;
pub mod mesh;
pub mod metadata;
pub mod requirements;
pub mod results;
pub mod runner;
pub mod size;
pub mod ui;
