//! Logging to standard error.
//!
//! It does not export traces or metrics; those are absent in this release.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The variable that sets what is logged, in the syntax of `tracing_subscriber::EnvFilter`.
pub const LOG_VARIABLE: &str = "GANTRY_LOG";

/// Warnings and worse. openraft warns of every message that crossed a vote or a change of members on its way, which is
/// how it is meant to work.
const DEFAULT_DIRECTIVES: &str = "warn,openraft=error";

/// Sends log lines to standard error: by [`LOG_VARIABLE`], else by `RUST_LOG`, else warnings and worse.
/// Without effect when logging was set up already, as in tests.
pub fn log_to_stderr() {
    let directives = std::env::var(LOG_VARIABLE).or_else(|_| std::env::var(EnvFilter::DEFAULT_ENV));
    // sled tells of its recovery at `info`; nothing below a warning of it concerns an operator.
    let filter = EnvFilter::new(directives.unwrap_or_else(|_| DEFAULT_DIRECTIVES.to_owned()));
    let stderr = std::io::stderr;
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(stderr().is_terminal());
    let _ = logger.with_writer(stderr).try_init();
}
