//! A call that may be answered: what its caller may see, and the way to change it.
//!
//! Always holds: a [`Call`] is made of what the gate admitted and of nothing else, and every answer is worked out from
//! one; what it shows of the state is what is within its caller's reach, so that to him nothing else exists; what he may
//! do is asked again once this member has caught up.

use std::sync::Arc;

use gantry_control_state::{Command, Outcome};
use gantry_model::{ResourceId, Revision, TenantName};
use tonic::{Request, Status};

use super::rejection::not_committed;
use super::subject::Asked;
use crate::access::gate::{Admitted, denied};
use crate::access::identity::Identity;
use crate::access::rules::{self, Permission, Reach};
use crate::feed::View;
use crate::plane::{Plane, now_ms};
use crate::raft::Committed;

/// A call that may be answered.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) plane: Arc<Plane>,
    pub(super) reach: Reach,
    admitted: Admitted,
    expected: Option<Revision>,
}

impl Call {
    /// Lets a call in, with its request.
    pub(super) fn enter<Q: Asked>(plane: &Arc<Plane>, request: Request<Q>) -> Result<(Call, Q), Status> {
        // Nobody comes here but through the gate.
        let admitted = request.extensions().get::<Admitted>().cloned();
        let admitted = admitted.ok_or_else(|| Status::permission_denied("nobody has let this call in"))?;
        let state = plane.consensus.feed().latest().state;
        let roles = admitted.doorkeeper.roles(&admitted.identity, &state, now_ms())?;
        let reach = rules::reach(&roles, admitted.rule.permission);
        let reach = reach.ok_or_else(|| denied(&admitted.identity, admitted.rule))?;
        let request = request.into_inner();
        let subject = request.subject();
        admitted.notes.subject(&subject, tenant(&subject.tenants, &reach));
        let expected = subject.expected.map(Revision);
        Ok((Call { plane: plane.clone(), reach, admitted, expected }, request))
    }

    /// Waits until this member has applied whatever was acknowledged before, here or elsewhere.
    pub(super) async fn catch_up(&self) -> Result<(), Status> {
        caught_up(&self.plane).await
    }

    /// Whether the call needs no more than this member knows: it changes nothing.
    pub(super) fn may_be_behind(&self) -> bool {
        !self.admitted.rule.permission.is_to_change()
    }

    /// The newest state, as far as the caller may see it.
    pub(super) fn view(&self) -> View {
        self.reach.narrow(self.plane.consensus.feed().latest())
    }

    /// Who calls.
    pub(super) fn identity(&self) -> &Identity {
        &self.admitted.identity
    }

    /// Refuses what only some may whom the rule of the call lets in.
    pub(super) fn require(&self, permission: Permission) -> Result<(), Status> {
        let state = self.plane.consensus.feed().latest().state;
        let roles = self.admitted.doorkeeper.roles(&self.admitted.identity, &state, now_ms())?;
        let may = rules::reach(&roles, permission).is_some();
        if may { Ok(()) } else { Err(denied(&self.admitted.identity, self.admitted.rule)) }
    }

    /// Refuses to go on with a call that takes long when its caller may not any more, or not as far.
    pub(super) fn is_still_let_in(&self) -> Result<(), Status> {
        let (identity, rule) = (&self.admitted.identity, self.admitted.rule);
        let state = self.plane.consensus.feed().latest().state;
        let roles = self.admitted.doorkeeper.roles(identity, &state, now_ms())?;
        let is_same = rules::reach(&roles, rule.permission).is_some_and(|reach| reach == self.reach);
        if is_same { Ok(()) } else { Err(denied(identity, rule)) }
    }

    /// The command that says what the caller expects, where he does.
    pub(super) fn guarded(&self, command: Command) -> Command {
        match self.expected {
            None => command,
            Some(revision) => Command::Expecting { revision, command: Box::new(command) },
        }
    }

    /// Whether the caller expects a revision.
    pub(super) fn expects(&self) -> bool {
        self.expected.is_some()
    }

    /// Proposes a command that [`Call::guarded`] has made; an error tells what is known of it.
    pub(super) async fn propose(&self, command: Command) -> Result<Committed, Status> {
        let committed = self.plane.consensus.propose(command).await.map_err(not_committed)?;
        match &committed.outcome {
            Outcome::Done(_) => {
                // An attempt before this one may have been refused.
                self.admitted.notes.problems(0);
                self.admitted.notes.revision(committed.revision);
            }
            Outcome::Refused(refusals) => self.admitted.notes.problems(refusals.len()),
        }
        Ok(committed)
    }

    /// Notes that the call is answered with problems and changes nothing.
    pub(super) fn note_problems(&self, count: usize) {
        self.admitted.notes.problems(count);
    }

    /// Refuses to make or end tenants to whoever is bound to some; also one that he could not see.
    pub(super) fn may_touch_tenants<'i>(
        &self,
        act: &str,
        mut ids: impl Iterator<Item = &'i ResourceId>,
    ) -> Result<(), Status> {
        match ids.next().filter(|_| !self.reach.is_everything()) {
            None => Ok(()),
            Some(id) => Err(Status::permission_denied(format!(
                "{} may not {act} {id}; ask a cluster-admin",
                self.admitted.identity.name
            ))),
        }
    }
}

/// Waits until a member has applied whatever was acknowledged before, there or elsewhere.
pub(super) async fn caught_up(plane: &Plane) -> Result<(), Status> {
    plane.consensus.catch_up().await.map_err(|error| {
        Status::unavailable(format!(
            "{error}; nothing was changed; `gantry cluster status` shows the members as this one sees them"
        ))
    })
}

/// Whose a call is, for those who read audit records: a tenant that its caller may know of, or the one that he is bound
/// to. A caller who names another's tenant is not told of to that tenant, which need not know that he exists.
fn tenant(named: &[String], reach: &Reach) -> Option<String> {
    let named: Vec<Option<TenantName>> = named.iter().map(|name| name.parse().ok()).collect();
    let first = named.first().cloned().flatten();
    let one = first.filter(|first| named.iter().all(|other| other.as_ref() == Some(first)));
    let tenant = match reach {
        Reach::Everything => one,
        Reach::Tenants(tenants) if tenants.len() == 1 => tenants.first().cloned(),
        Reach::Tenants(tenants) => one.filter(|one| tenants.contains(one)),
    };
    tenant.map(|tenant| tenant.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_its_tenants_as_far_as_its_caller_may_know_of_it() {
        let of = |named: &[&str], reach: &Reach| {
            tenant(&named.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), reach)
        };
        let bound =
            |names: &[&str]| Reach::Tenants(names.iter().map(|name| name.parse().expect("a name")).collect());
        let acme = Some("acme".to_owned());
        assert_eq!(of(&["acme", "acme"], &Reach::Everything), acme);
        assert_eq!(of(&["acme", "globex"], &Reach::Everything), None);
        assert_eq!(of(&[], &Reach::Everything), None);
        assert_eq!(of(&["Not a name"], &Reach::Everything), None);
        assert_eq!(of(&["globex"], &bound(&["acme"])), acme, "globex is not told who asked");
        assert_eq!(of(&[], &bound(&["acme"])), acme);
        assert_eq!(of(&["globex"], &bound(&["acme", "initech"])), None);
        assert_eq!(of(&["acme"], &bound(&["acme", "initech"])), acme);
        assert_eq!(of(&["acme", "initech"], &bound(&["acme", "initech"])), None);
    }
}
