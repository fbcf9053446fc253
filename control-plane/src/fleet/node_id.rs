//! The name of a node.
//!
//! Always holds: it fits one cell of a table and one line of a log.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A node's id as it says itself: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(Arc<str>);

/// The text is no node's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a node's id has 1 to {} visible ASCII characters", NodeId::BYTES_MAX)]
pub(crate) struct NodeIdError;

impl NodeId {
    /// Longest id in bytes: a host name and what sets apart several nodes of a host.
    const BYTES_MAX: usize = 128;
}

impl NodeId {
    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<NodeId, NodeIdError> {
        let legal = !text.is_empty()
            && text.len() <= NodeId::BYTES_MAX
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if legal { Ok(NodeId(text.into())) } else { Err(NodeIdError) }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
