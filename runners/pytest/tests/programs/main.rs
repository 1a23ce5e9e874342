//! The built program on real projects.

mod isolation;
mod leaks;
mod support;
mod verdicts;
