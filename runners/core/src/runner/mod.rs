//! What all test runners do alike: collecting tests and running them at the same time, in the right
//! order and as often as asked, stopping early, watching, and ending well.

mod exit;
mod framework;
mod layers;
mod lazy_client;
mod missing;
mod outputs;
mod round;
mod run;
mod signals;
mod sink;
mod tool;
mod watch;

pub use exit::Exit;
pub use framework::{
    Case, Collected, Framework, IgnoredTests, Narration, Places, Project, Surroundings,
    TemplateCommand, TestArtifact,
};
pub use lazy_client::LazyClient;
pub use outputs::bring_back;
pub use run::{Mode, Settings, run};
pub use signals::watch_signals;
pub use sink::Sink;
pub use tool::{Tool, Tools};
pub use watch::{Ignored, ProjectWatcher, SETTLE, WatchError, Woken};
