//! What a process writes to its standard error, in the node's log.
//!
//! Always holds: it is read as fast as it comes, so that no process waits for it; a line is cut at
//! [`LINE_BYTES_MAX`], and of each [`WINDOW`] at most [`LINES_MAX`] lines are logged. How many were left out is
//! logged, too.

use std::time::Duration;

use gantry_model::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::ChildStderr;
use tokio::time::Instant;

/// Longest line that is logged as one.
const LINE_BYTES_MAX: u64 = 8 * 1024;
/// Lines of one process that are logged within a window: a stack trace fits, a flood does not.
const LINES_MAX: u64 = 200;
/// What [`LINES_MAX`] is counted over.
const WINDOW: Duration = Duration::from_secs(10);

/// Counts the lines of a window.
struct Gate {
    since: Instant,
    lines: u64,
}

/// What to do with a line.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    admitted: bool,
    /// Lines that the window before left out; told once.
    left_out: u64,
}

impl Gate {
    fn new(now: Instant) -> Gate {
        Gate { since: now, lines: 0 }
    }

    fn line(&mut self, now: Instant) -> Verdict {
        let mut left_out = 0;
        if now.duration_since(self.since) >= WINDOW {
            left_out = self.lines.saturating_sub(LINES_MAX);
            *self = Gate::new(now);
        }
        self.lines += 1;
        Verdict { admitted: self.lines <= LINES_MAX, left_out }
    }
}

/// Logs until the process closes its standard error.
pub(super) async fn log_lines(server: ServerName, errors: ChildStderr) {
    let mut errors = BufReader::new(errors);
    let mut line = Vec::new();
    let mut gate = Gate::new(Instant::now());
    while let Ok(1..) = (&mut errors).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
        let Verdict { admitted, left_out } = gate.line(Instant::now());
        if left_out > 0 {
            tracing::warn!(%server, lines = left_out, "server wrote more to its standard error than is logged");
        }
        if admitted {
            // Debug form: what a server writes must not steer the terminal of who reads the log.
            let line = String::from_utf8_lossy(line.trim_ascii_end());
            tracing::info!(%server, ?line, "server's standard error");
        }
        line.clear();
    }
    let left_out = gate.lines.saturating_sub(LINES_MAX);
    if left_out > 0 {
        tracing::warn!(%server, lines = left_out, "server wrote more to its standard error than is logged");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_what_was_left_out_is_told_once() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        let admitted = (0..1_000).filter(|_| gate.line(now).admitted).count();
        assert_eq!(admitted as u64, LINES_MAX);
        let later = now + WINDOW;
        assert_eq!(gate.line(later), Verdict { admitted: true, left_out: 800 });
        assert_eq!(gate.line(later), Verdict { admitted: true, left_out: 0 });
    }
}
