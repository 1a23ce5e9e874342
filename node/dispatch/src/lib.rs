//! Which job runs where and when. No I/O, no clock.
//!
//! Start at [`Dispatcher`], which says how to drive it, and at [`Body`], which tells the protocol.
//! The standalone node uses the [`Queue`] alone.

mod action;
mod config;
mod context;
mod deadlines;
mod dispatcher;
mod executor;
mod id;
mod ignored;
pub mod job;
pub mod message;
mod origin;
pub mod queue;
mod view;

pub use action::Action;
pub use config::{Config, Lending};
pub use dispatcher::{Counts, Dispatcher, Offer};
pub use id::{Held, Incarnation, JobId, LeaseId, NodeId};
pub use ignored::{Ignored, IgnoredCounts};
pub use job::{
    Attempt, Capabilities, Failure, Job, JobFailed, JobRefused, Layer, LayerId, Requirements,
};
pub use message::{Body, Load, Message, Progress};
pub use queue::{Queue, Rank};
pub use view::{Alone, Member, MeshSlots, View};
