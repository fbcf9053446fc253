//! The protocol: messages, headers, sealed sessions and events of MCP, as a gateway needs to see them.
//!
//! Always holds: a message is kept as the bytes that came; only the fields that route it are read. What a peer sent
//! is never trusted to be well formed and never panics. Policy, limits and upstreams are not known here.

pub(crate) mod batch;
pub(crate) mod canonical;
pub(crate) mod headers;
pub(crate) mod json;
pub(crate) mod message;
pub(crate) mod object;
pub(crate) mod seal;
pub(crate) mod session;
pub(crate) mod sse;

/// The current protocol version, without sessions.
pub(crate) const VERSION_MODERN: &str = "2026-07-28";
/// The newest protocol version with `initialize` and sessions.
pub(crate) const VERSION_LEGACY: &str = "2025-11-25";
/// Versions of the legacy era, the oldest first.
pub(crate) const VERSIONS_LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", VERSION_LEGACY];

/// How a hop speaks. It belongs to the hop: a client's era says nothing about a server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Era {
    /// `initialize`, sessions, requests from the server: 2025-11-25 and earlier.
    Legacy,
    /// Every request stands by itself: 2026-07-28.
    Modern,
}

impl Era {
    /// As it stands in records.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Era::Legacy => "legacy",
            Era::Modern => "modern",
        }
    }

    /// The era of a protocol version; dates order as text.
    pub(crate) fn of_version(version: &str) -> Era {
        if version >= VERSION_MODERN { Era::Modern } else { Era::Legacy }
    }
}
