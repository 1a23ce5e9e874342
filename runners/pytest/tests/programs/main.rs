//! The built program on real projects.

mod crashes;
mod images;
mod isolation;
mod leaks;
mod support;
mod verdicts;
