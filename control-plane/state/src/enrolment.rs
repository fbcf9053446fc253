//! Changing who may be part of the cluster: the rules, without the records.
//!
//! Always holds: a token is used at most once, and by whom it was made for; a member's number is given once; tokens
//! and revocations stay within [`JOIN_TOKENS_MAX`] and [`REVOCATIONS_MAX`], and only what is past is forgotten; a removed
//! member's number stays removed. The clock is the proposer's.

use gantry_model::enrolment::{
    Enrolment, EnrolmentChange, JoinRole, JoinToken, JoinTokenId, Joiner, Revocation,
};

use crate::issuers::{self, IssuerRefusal};

/// Join tokens at one time that are good: each is for one process that joins within the hour, and an autoscaler makes
/// them singly. Those that were used are kept while there is room, so that it can be said of them.
pub const JOIN_TOKENS_MAX: usize = 256;
/// Revocations at one time. Each lasts for the day that a certificate does; the record that holds them is written as a
/// whole with each, and so has to stay small.
pub const REVOCATIONS_MAX: usize = 1_024;

/// Removed members that are remembered one by one; beyond, the lowest is forgotten and every number up to it counts as
/// removed. A cluster that replaces a member a week fills it in five years; each costs three bytes of the record.
pub(crate) const REMOVED_MEMBERS_MAX: usize = 256;

/// Why who may be part of the cluster is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnrolmentRefusal {
    #[error("the cluster has an authority already")]
    AuthorityExists,
    #[error("there are {JOIN_TOKENS_MAX} join tokens already; wait until some were used or have expired")]
    TooManyTokens,
    #[error("a join token of this id exists already")]
    TokenExists,
    #[error("the join token is not known")]
    UnknownToken,
    #[error("the secret of the join token is not the right one")]
    WrongSecret,
    #[error("the join token was used already")]
    UsedToken,
    #[error("the join token has expired")]
    ExpiredToken,
    #[error("the join token is for {}", made_for(.0))]
    OtherRole(JoinRole),
    #[error("another member was added meanwhile; try again")]
    MemberTaken,
    #[error("there are {REVOCATIONS_MAX} revocations already; wait until some of them have passed")]
    TooManyRevocations,
    #[error(transparent)]
    Issuer(#[from] IssuerRefusal),
}

/// What becomes of an enrolment.
pub(crate) fn change(enrolment: &Enrolment, change: &EnrolmentChange) -> Result<Enrolment, EnrolmentRefusal> {
    let mut changed = enrolment.clone();
    match change {
        EnrolmentChange::FoundAuthority(authority) => {
            if changed.authority.is_some() {
                return Err(EnrolmentRefusal::AuthorityExists);
            }
            changed.authority = Some(authority.clone());
        }
        EnrolmentChange::PutJoinToken { token, now_ms } => put_token(&mut changed, token, *now_ms)?,
        EnrolmentChange::UseJoinToken { id, hash, joiner, now_ms } => {
            usable_token(&mut changed.tokens, *id, hash, joiner, *now_ms)?.is_used = true;
            if let Joiner::ControlPlane(member) = joiner {
                if changed.last_member.checked_add(1) != Some(*member) {
                    return Err(EnrolmentRefusal::MemberTaken);
                }
                changed.last_member = *member;
            }
        }
        EnrolmentChange::Revoke { revocation, now_ms } => revoke(&mut changed, revocation, *now_ms)?,
        EnrolmentChange::RemoveMember(member) => remove_member(&mut changed, *member),
        EnrolmentChange::PutAdminIssuer(issuer) => issuers::put(&mut changed.admin_issuers, issuer)?,
        EnrolmentChange::DeleteAdminIssuer(name) => issuers::delete(&mut changed.admin_issuers, name)?,
    }
    Ok(changed)
}

fn put_token(enrolment: &mut Enrolment, token: &JoinToken, now_ms: u64) -> Result<(), EnrolmentRefusal> {
    enrolment.tokens.retain(|token| token.expires_at_ms > now_ms);
    if enrolment.tokens.iter().any(|known| known.id == token.id) {
        return Err(EnrolmentRefusal::TokenExists);
    }
    if enrolment.tokens.len() >= JOIN_TOKENS_MAX {
        let oldest_used = enrolment.tokens.iter().position(|token| token.is_used);
        enrolment.tokens.remove(oldest_used.ok_or(EnrolmentRefusal::TooManyTokens)?);
    }
    enrolment.tokens.push(token.clone());
    Ok(())
}

fn usable_token<'a>(
    tokens: &'a mut [JoinToken],
    id: JoinTokenId,
    hash: &[u8; 32],
    joiner: &Joiner,
    now_ms: u64,
) -> Result<&'a mut JoinToken, EnrolmentRefusal> {
    let token = tokens.iter_mut().find(|token| token.id == id).ok_or(EnrolmentRefusal::UnknownToken)?;
    // Before anything else is told of it. These are hashes: how long it takes to compare them tells nothing.
    if token.hash != *hash {
        return Err(EnrolmentRefusal::WrongSecret);
    }
    if token.is_used {
        return Err(EnrolmentRefusal::UsedToken);
    }
    if token.expires_at_ms <= now_ms {
        return Err(EnrolmentRefusal::ExpiredToken);
    }
    let is_meant = match (&token.role, joiner) {
        (JoinRole::ControlPlane, Joiner::ControlPlane(_))
        | (JoinRole::Node { name: None, .. }, Joiner::Node(_)) => true,
        (JoinRole::Node { name: Some(name), .. }, Joiner::Node(node)) => name == node,
        (JoinRole::ControlPlane, Joiner::Node(_)) | (JoinRole::Node { .. }, Joiner::ControlPlane(_)) => false,
    };
    if !is_meant {
        return Err(EnrolmentRefusal::OtherRole(token.role.clone()));
    }
    Ok(token)
}

fn revoke(enrolment: &mut Enrolment, revocation: &Revocation, now_ms: u64) -> Result<(), EnrolmentRefusal> {
    enrolment.revocations.retain(|known| known.until_ms > now_ms && known.subject != revocation.subject);
    if enrolment.revocations.len() >= REVOCATIONS_MAX {
        return Err(EnrolmentRefusal::TooManyRevocations);
    }
    enrolment.revocations.push(revocation.clone());
    Ok(())
}

/// Remembers a number in order, once.
fn remove_member(enrolment: &mut Enrolment, member: u64) {
    let removed = &mut enrolment.removed_members;
    if let Err(place) = removed.binary_search(&member) {
        removed.insert(place, member);
    }
    if removed.len() > REMOVED_MEMBERS_MAX {
        let lowest = removed.remove(0);
        enrolment.removed_members_below = enrolment.removed_members_below.max(lowest.saturating_add(1));
    }
}

fn made_for(role: &JoinRole) -> String {
    match role {
        JoinRole::ControlPlane => "a process of the control plane".to_owned(),
        JoinRole::Node { name: None, .. } => "a node".to_owned(),
        JoinRole::Node { name: Some(name), .. } => format!("the node {name}"),
    }
}

#[cfg(test)]
mod tests;
