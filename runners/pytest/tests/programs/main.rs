//! The built program on real projects.

mod crashes;
mod images;
mod isolation;
mod leaks;
mod plugins;
mod support;
mod verdicts;
