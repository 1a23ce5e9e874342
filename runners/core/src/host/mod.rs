//! What of the client's own machine a test sees in a project without configuration: the project's
//! files at their own paths, system files, a base set of programs, the user. The same for all
//! languages; each adds what its tests need besides.

mod container;
mod environment;
mod files;
mod system;

pub use container::{
    ProjectPlaces, SharedLayers, base_container, built, keep_modes_of_parents, libraries,
    literal_environment, parentless,
};
pub use environment::{language, search_path};
pub use system::Identity;
