//! How a process takes part in Gantry: its name, TLS, sealing to a node, logging.
//!
//! Always holds: what is here is the same for both planes and knows neither of them. Resources, policies and the
//! protocol do not belong here.

pub mod bearer;
pub mod membership;
pub mod owner_only;
pub mod records;
pub mod seal;
pub mod telemetry;
pub mod tls;
pub mod token;

pub use gantry_model::identity;
