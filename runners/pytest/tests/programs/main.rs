//! The built program on real projects.

mod images;
mod isolation;
mod leaks;
mod support;
mod verdicts;
