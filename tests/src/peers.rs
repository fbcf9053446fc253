//! Clients and servers that others wrote, at exact versions, installed when a test first needs them.
//!
//! They come from npm and PyPI by their package names and land in `target/peers`; nothing outside the
//! clone is written. Two tests, or two processes, never install at the same time.
//! Where Python or Node is not on the machine a test is skipped, and says so: see [`or_skip`].

mod client;
mod everything;
mod install;
mod issuer;
mod scripted;

pub use client::{Call, Client, ClientError, Outcome, Target};
pub use everything::{Everything, Speech};
pub use install::{InstallError, Node, Python, folder};
pub use issuer::Issuer;
pub use scripted::Scripted;

/// Set to `1` where everything has to be there, as in continuous integration.
const REQUIRE_VARIABLE: &str = "GANTRY_REQUIRE_PEERS";

/// An error that may only say that a runtime is not on this machine.
pub trait MayBeMissing: std::error::Error + 'static {
    /// The program that is missing, if that is all that is wrong.
    fn missing(&self) -> Option<&str>;

    /// The same as a sentence.
    fn reason(&self) -> Option<String> {
        self.missing().map(|program| format!("{program} is not installed"))
    }
}

/// Returns what a test needs, or `None` after printing `skipped: ...` where a runtime is missing.
///
/// # Panics
/// On every other error, and where `GANTRY_REQUIRE_PEERS` is `1`.
pub fn or_skip<T, E: MayBeMissing>(result: Result<T, E>) -> Option<T> {
    let error = match result {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    let required = std::env::var_os(REQUIRE_VARIABLE).is_some_and(|value| value == "1");
    match error.reason() {
        Some(reason) if !required => {
            println!("skipped: {reason}");
            None
        }
        _ => panic!("{}", chain(&error)),
    }
}

/// An error with all its causes, one per line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str("\n  because: ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
