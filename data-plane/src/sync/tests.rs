//! A node's end of the stream with control planes of the tests' own, which serve one state as members of a cluster do.

mod asking;
mod control_plane;
mod cost;
mod denied;
mod follower;
mod last_known_good;
mod members;
mod revoked;
mod staleness;
