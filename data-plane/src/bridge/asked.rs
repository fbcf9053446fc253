//! Which node waits for a client's answer: the id of the question says it.
//!
//! Always holds: an answer goes to the node that asked, also while nodes do not agree on who is there, as they may
//! not for a moment after one of them started or went. The id tells a client nothing of the nodes: it holds a hash
//! under the session's nonce, which only nodes can read.

use std::time::Duration;

use http::Response;
use tokio::time::Instant;

use crate::bridge::handoff::{Unserved, hand_over};
use crate::mcp::object::quote;
use crate::mcp::session::Bridged;
use crate::mesh::Peer;
use crate::node::Node;
use crate::pipeline::Outgoing;
use crate::rejection::Rejection;
use crate::reply::Body;

/// How an id begins that a node of this product gave.
const PREFIX: &str = "gantry/";
/// Hexadecimal digits of a node's mark: 64 bits, so that no two of a thousand nodes share one.
const MARK_DIGITS: usize = 16;
/// How long an answer waits until this node hears of the one that asked. After a restart of the control plane nodes
/// are back on its stream within a second or two.
const HOLDER_WAIT: Duration = Duration::from_secs(5);
/// Between two tries to reach it.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What stands for a node in the ids of its questions to one session.
pub(crate) fn mark(nonce: &str, node: &str) -> String {
    blake3::hash(format!("{nonce}/asks/{node}").as_bytes()).to_hex().as_str()[..MARK_DIGITS].to_owned()
}

/// The id of a question, as JSON.
pub(crate) fn id(mark: &str, number: u64) -> String {
    quote(&format!("{PREFIX}{mark}/{number}"))
}

/// The mark in the id of an answer; `None` where it answers nothing that a node asked.
pub(super) fn mark_in(id: &[u8]) -> Option<&str> {
    let id = std::str::from_utf8(id).ok()?.trim_matches('"');
    let (mark, _) = id.strip_prefix(PREFIX)?.split_once('/')?;
    Some(mark)
}

/// Brings an answer to the node of a mark; `None` when that is this one.
///
/// # Errors
/// When that node is gone, and the question with it.
pub(super) async fn answer(
    node: &Node,
    bridged: &Bridged,
    asker: &str,
    outgoing: &Outgoing,
) -> Result<Option<Response<Body>>, Rejection> {
    if asker == mark(&bridged.nonce, node.mesh.me()) {
        return Ok(None);
    }
    let deadline = Instant::now() + HOLDER_WAIT;
    loop {
        if let Some(holder) = holder(&bridged.nonce, asker, node.mesh.members()) {
            match hand_over(node, &holder, outgoing).await {
                Ok(response) => return Ok(Some(response)),
                Err(Unserved::Failed(rejection)) => return Err(rejection),
                Err(Unserved::NotThere) => {}
            }
        }
        if Instant::now() + RETRY_PAUSE >= deadline {
            return Err(Rejection::NothingWaits);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

fn holder(nonce: &str, asker: &str, members: Vec<Peer>) -> Option<Peer> {
    members.into_iter().find(|member| mark(nonce, member) == asker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_for_the_node_that_asked() {
        let members: Vec<Peer> = vec!["a".into(), "b".into(), "c".into()];
        let asked = id(&mark("nonce", "b"), 7);
        let found = mark_in(asked.as_bytes()).and_then(|wanted| holder("nonce", wanted, members.clone()));
        assert_eq!(found.as_deref(), Some("b"));
        // Another session's answers lead nowhere, and no node can be told from the id.
        let of_another = mark_in(asked.as_bytes()).and_then(|wanted| holder("other", wanted, members));
        assert_eq!(of_another, None);
    }

    #[test]
    fn an_id_of_anyone_else_says_nothing() {
        for id in ["7", "\"7\"", "\"gantry/7\"", "\"other/0123456789abcdef/7\"", "null", "\"\u{fffd}\""] {
            assert_eq!(mark_in(id.as_bytes()), None, "{id}");
        }
    }
}
