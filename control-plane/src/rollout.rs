//! Staged rollouts: what nodes in a stage are served, and who decides when a stage is over.
//!
//! Always holds: what a node is served at a revision is a function of the state at it, of the node's name and of its
//! labels, so every member serves it alike and a node goes on from any of them; nobody but the leader decides, and what
//! it decides is refused when somebody decided before.

mod calls;
mod overlay;
mod watch;
mod watched;

pub(crate) use calls::Calls;
pub(crate) use overlay::{Laid, Overlays};
pub(crate) use watch::{holders, watch};
pub(crate) use watched::{Compared, Rollouts, TAKES_NOTHING};
