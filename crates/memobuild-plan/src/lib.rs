//! From a parsed Dockerfile to a graph of steps.
//!
//! In: a [`Dockerfile`], what the command line asks for ([`model::Options`]), and someone who knows base images
//! ([`model::BaseResolver`]). Out: a [`model::Plan`], pruned to the targets, with everything expanded, and what the
//! checks found. Called by the engine's front door and by `check` and `graph`. It follows the published behaviour of
//! BuildKit's Dockerfile frontend. It never reads a file, an environment variable or a clock, runs nothing, and never
//! asks for a base image that no target needs.
//!
//! The way of a file: `stages` reads all FROMs and finds who reads whom, `bases` has the base images found and
//! puts their ONBUILD triggers in place, `dispatch` walks through the instructions, and `steps` keeps the graph.
#![forbid(unsafe_code)]

mod args;
mod bases;
mod chmod;
mod contexts;
mod dispatch;
mod error;
mod git;
mod hints;
mod history;
mod image;
mod inputs;
mod label;
mod lint;
pub mod model;
mod pass;
mod path;
mod plan;
mod reference;
pub mod render;
mod stages;
mod state;
mod steps;

pub use error::{PlanError, PlanErrorKind};
pub use git::GitRef;
pub use memobuild_dockerfile::Dockerfile;
pub use plan::{Hooks, Planned, plan};
