//! The numbers of members that were removed, which are never used again.
//!
//! Always holds: a removal is remembered in the state before the membership changes, so that no crash between the two
//! lets the member back in. Until the membership has changed it is still a member, and can be removed again.

use gantry_control_state::{Command, Outcome};
use gantry_model::enrolment::EnrolmentChange;

use super::members::ChangeError;
use super::{Consensus, ProposeError, VoterId};

impl Consensus {
    /// Remembers that a member is removed.
    pub(super) async fn remember_removed(&self, voter: VoterId) -> Result<(), ChangeError> {
        if self.feed().latest().state.cluster().is_none() {
            // Nobody has joined a cluster without facts.
            return Ok(());
        }
        let command = Command::ChangeEnrolment(EnrolmentChange::RemoveMember(voter.0));
        let committed = self.propose(command).await.map_err(|error| match error {
            ProposeError::Unknown { reason } => ChangeError::Unknown(reason),
            error => ChangeError::Refused(error.to_string()),
        })?;
        match committed.outcome {
            Outcome::Done(_) => Ok(()),
            Outcome::Refused(refusals) => {
                let words: Vec<_> = refusals.into_iter().map(|refusal| refusal.message).collect();
                Err(ChangeError::Refused(words.join("; ")))
            }
        }
    }

    /// Refuses a number that was removed, and one of which that is not known any more, unless a member has it.
    pub(super) async fn refuse_removed(&self, voter: VoterId) -> Result<(), ChangeError> {
        // A leader that was just elected may not have applied everything yet.
        self.catch_up().await.map_err(|error| ChangeError::Refused(error.to_string()))?;
        let state = self.feed().latest().state;
        let Some(enrolment) = state.cluster().map(|cluster| &cluster.enrolment) else { return Ok(()) };
        let is_member = self.membership().members.iter().any(|member| member.voter == voter);
        let is_forgotten = voter.0 < enrolment.removed_members_below && !is_member;
        if is_forgotten || enrolment.removed_members.contains(&voter.0) {
            return Err(ChangeError::Refused(format!(
                "member {voter} was removed, and its number is never used again; join anew from an empty directory: \
                 `gantry cluster token --role control-plane` here, then `gantry cluster join` there"
            )));
        }
        Ok(())
    }
}
