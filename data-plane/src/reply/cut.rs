//! What ends an answer before its time.
//!
//! Always holds: the record of an answer that is cut says so, and why.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use gantry_model::BanTarget;
use tokio_util::sync::CancellationToken;

use super::{Body, Source, Watch};
use crate::audit::entry::Outcome;
use crate::bans::Leash;
use crate::rejection::revoked;

/// Ends an answer when it resolves.
pub(crate) struct Cut(Pin<Box<dyn Future<Output = CutBy> + Send + Sync>>);

/// What cut an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CutBy {
    /// Its tenant is no longer served here.
    #[error("the tenant's streams are ended")]
    Tenant,
    /// The token by which its caller is known has ended.
    #[error("the caller's token has expired")]
    Expired,
    /// An admin stopped whoever it is for, or comes from.
    #[error("{}", revoked(.0))]
    Ban(BanTarget),
}

impl Cut {
    /// By a ban, and where they are given by the end of its tenant's streams, and of its caller's token.
    pub(crate) fn of(streams: Option<CancellationToken>, ends_in: Option<Duration>, leash: Leash) -> Cut {
        let Some(streams) = streams else {
            return Cut(Box::pin(async move { CutBy::Ban(leash.await) }));
        };
        let Some(ends_in) = ends_in else {
            return Cut(Box::pin(async move {
                tokio::select! {
                    target = leash => CutBy::Ban(target),
                    () = streams.cancelled() => CutBy::Tenant,
                }
            }));
        };
        Cut(Box::pin(async move {
            tokio::select! {
                target = leash => CutBy::Ban(target),
                () = streams.cancelled() => CutBy::Tenant,
                () = tokio::time::sleep(ends_in) => CutBy::Expired,
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
            CutBy::Tenant | CutBy::Expired => Outcome::Broken,
            CutBy::Ban(_) => Outcome::Revoked,
        }));
    }
}
