//! What ends an answer before its time.
//!
//! Always holds: the record of an answer that is cut says so, and why.

use std::pin::Pin;
use std::task::{Context, Poll};

use gantry_model::BanTarget;
use tokio_util::sync::CancellationToken;

use super::{Body, Source, Watch};
use crate::audit::entry::Outcome;
use crate::bans::Leash;
use crate::rejection::revoked;

/// Why what a caller showed counts no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lapse {
    /// Its time is over.
    #[error("what the caller showed has expired")]
    Ended,
    /// It would not let the same caller in.
    #[error("what the caller showed lets nobody in any more")]
    Withdrawn,
}

/// Ends an answer when it resolves.
pub(crate) struct Cut(Pin<Box<dyn Future<Output = CutBy> + Send + Sync>>);

/// What cut an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CutBy {
    /// Its tenant is no longer served here.
    #[error("the tenant's streams are ended")]
    Tenant,
    /// What its caller showed counts no more.
    #[error(transparent)]
    Lapse(#[from] Lapse),
    /// An admin stopped whoever it is for, or comes from.
    #[error("{}", revoked(.0))]
    Ban(BanTarget),
}

impl Cut {
    /// By a ban alone.
    pub(crate) fn by_ban(leash: Leash) -> Cut {
        Cut(Box::pin(async move { CutBy::Ban(leash.await) }))
    }

    /// By a ban, by the end of its tenant's streams, and when what its caller showed counts no more.
    pub(crate) fn of(
        streams: CancellationToken,
        lapse: impl Future<Output = Lapse> + Send + Sync + 'static,
        leash: Leash,
    ) -> Cut {
        Cut(Box::pin(async move {
            tokio::select! {
                target = leash => CutBy::Ban(target),
                () = streams.cancelled() => CutBy::Tenant,
                lapse = lapse => CutBy::Lapse(lapse),
            }
        }))
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<CutBy> {
        self.0.as_mut().poll(context)
    }
}

impl Body {
    /// Whether all of it is there.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self.source, Source::Pieces(_))
    }
}

impl Watch {
    /// Closes the entry of an answer that is cut.
    pub(super) fn cut(&mut self, by: &CutBy) {
        if let Some(entry) = &mut self.entry {
            entry.facts.reason = Some(by.to_string());
        }
        self.end(Some(match by {
            CutBy::Tenant | CutBy::Lapse(_) => Outcome::Broken,
            CutBy::Ban(_) => Outcome::Revoked,
        }));
    }
}
