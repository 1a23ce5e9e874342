//! How one job runs here: launcher, containers, outcomes.
