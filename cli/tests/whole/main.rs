//! The whole command line, as a user meets it: the program as a process, its standard output, its standard error
//! and its exit code.
//!
//! Always holds: a test sees nothing of the user's own Gantry, listens on free ports of loopback only, and ends what
//! it started.

mod admins;
mod demo;
mod documents;
mod own_servers;
mod policy;
mod program;
mod usage;
