//! The built program on real projects.

mod isolation;
mod support;
mod verdicts;
