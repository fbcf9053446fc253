//! A link: what is known of one process of a peer, and the connection to it.
//!
//! Always holds: at most one connection goes out to it; a retired link has none and gets none any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use quinn::{Connection, VarInt};
use tokio_util::sync::CancellationToken;

use super::member::Member;

/// With what a connection to, or from, a former member is closed.
pub(super) const NOT_MEMBER: VarInt = VarInt::from_u32(1);
/// With what a node that goes down closes its connections.
pub(super) const GOING_DOWN: VarInt = VarInt::from_u32(2);

/// One process of a peer.
pub(super) struct Link {
    pub(super) member: Member,
    /// Cancelled when it is no member any more.
    pub(super) retired: CancellationToken,
    /// Held by who makes the connection.
    pub(super) gate: tokio::sync::Mutex<()>,
    connection: Mutex<Option<Connection>>,
    is_suspect: AtomicBool,
    is_dialled: AtomicBool,
}

impl Link {
    pub(super) fn new(member: Member) -> Link {
        Link {
            member,
            retired: CancellationToken::new(),
            gate: tokio::sync::Mutex::new(()),
            connection: Mutex::new(None),
            is_suspect: AtomicBool::new(false),
            is_dialled: AtomicBool::new(false),
        }
    }

    /// The connection, if there is a living one.
    pub(super) fn connection(&self) -> Option<Connection> {
        self.lock().as_ref().filter(|connection| connection.close_reason().is_none()).cloned()
    }

    /// Keeps a new connection, or closes it when the link was retired meanwhile. Says which.
    pub(super) fn keep(&self, connection: &Connection) -> bool {
        let mut kept = self.lock();
        if self.retired.is_cancelled() {
            connection.close(NOT_MEMBER, b"");
            return false;
        }
        *kept = Some(connection.clone());
        true
    }

    /// Lets go of a connection that ended.
    pub(super) fn forget(&self, ended: &Connection) {
        let mut kept = self.lock();
        if kept.as_ref().is_some_and(|kept| kept.stable_id() == ended.stable_id()) {
            *kept = None;
        }
    }

    /// The peer is no member any more.
    pub(super) fn retire(&self) {
        let mut kept = self.lock();
        self.retired.cancel();
        if let Some(connection) = kept.take() {
            connection.close(NOT_MEMBER, b"");
        }
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Acquire)
    }

    /// Says whether that changed anything.
    pub(super) fn suspect(&self, is_suspect: bool) -> bool {
        self.is_suspect.swap(is_suspect, Ordering::AcqRel) != is_suspect
    }

    /// Whether somebody makes a connection for datagrams already; marks that it is so.
    pub(super) fn begin_dialling(&self) -> bool {
        !self.is_dialled.swap(true, Ordering::AcqRel)
    }

    pub(super) fn end_dialling(&self) {
        self.is_dialled.store(false, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
