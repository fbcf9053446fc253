//! What becomes of a reported catalog beside the recorded one, and what an admin's approval makes of it.
//!
//! Always holds: under [`Pin::Review`], what is in force was in the server's first catalog or was approved, by its
//! hash; a definition that differs from its approved form is withheld together with that form, because the server
//! would no longer do what was approved; it comes back by itself when the server offers the approved form again.
//! Nothing here depends on the order in which a server lists its definitions: a mere reordering changes nothing.
//!
//! It is pure, so the state machine, the control plane (to propose nothing needless) and nodes ask the same function.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{CATALOG_BYTES_MAX, Catalog, Definition, DefinitionKind, QuarantineReason, Quarantined};
use crate::nearest::nearest;
use crate::resource::Pin;

/// A quarantined definition as an admin saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// What sort of thing it defines.
    pub kind: DefinitionKind,
    /// Its name.
    pub name: Arc<str>,
    /// Its hash.
    pub hash: [u8; 32],
}

/// Why a definition is not approved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApproveError {
    /// Nothing is in quarantine under that name.
    #[error("no {kind} {name:?} is in quarantine")]
    NotQuarantined {
        /// What sort of thing was meant.
        kind: DefinitionKind,
        /// The name.
        name: Arc<str>,
        /// The nearest name in quarantine.
        nearest: Option<String>,
    },
    /// It is not what the admin saw.
    #[error("{kind} {name:?} changed again after it was looked at")]
    ChangedAgain {
        /// What sort of thing it is.
        kind: DefinitionKind,
        /// Its name.
        name: Arc<str>,
    },
}

impl Catalog {
    /// What is to be recorded when `reported` comes in while `stored` is recorded; `None`: it stays as it is.
    pub fn record(stored: Option<&Catalog>, reported: &Catalog, pin: Pin) -> Option<Catalog> {
        let Some(stored) = stored else { return Some(reported.clone()) };
        let next = match pin {
            Pin::Auto => reported.clone(),
            Pin::Review => stored.reviewed(reported),
        };
        (!stored.says_the_same(&next)).then_some(next)
    }

    /// The catalog with quarantined definitions in force. Refused as a whole when one is not as it was seen.
    pub fn approve(&self, approvals: &[Approval]) -> Result<Catalog, Vec<ApproveError>> {
        let errors: Vec<_> = approvals.iter().filter_map(|approval| self.cannot_approve(approval)).collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        let approved: HashSet<_> =
            approvals.iter().map(|approval| (approval.kind, &*approval.name)).collect();
        let mut next = Catalog { quarantined: Vec::new(), ..self.clone() };
        for held in &self.quarantined {
            if approved.contains(&(held.kind, &*held.definition.name)) {
                next.definitions_mut(held.kind).push(held.definition.clone());
            } else {
                next.quarantined.push(held.clone());
            }
        }
        Ok(next)
    }

    /// Whether something that is in force here is not in force there, or says something else.
    pub fn is_withdrawn_by(&self, next: &Catalog) -> bool {
        DefinitionKind::ALL.into_iter().any(|kind| {
            let next = by_name(next.definitions(kind).iter());
            let stays = |definition: &Definition| {
                next.get(&*definition.name).is_some_and(|next| next.hash == definition.hash)
            };
            !self.definitions(kind).iter().all(stays)
        })
    }

    fn cannot_approve(&self, approval: &Approval) -> Option<ApproveError> {
        let Approval { kind, name, hash } = approval;
        match self.quarantined(*kind, name) {
            Some(held) if held.definition.hash == *hash => None,
            Some(_) => Some(ApproveError::ChangedAgain { kind: *kind, name: name.clone() }),
            None => {
                let names = self.quarantined.iter().filter(|held| held.kind == *kind);
                let near = nearest(name, names.map(|held| &*held.definition.name)).map(str::to_owned);
                Some(ApproveError::NotQuarantined { kind: *kind, name: name.clone(), nearest: near })
            }
        }
    }

    /// `reported` under [`Pin::Review`]: what is approved stays in force, byte for byte; the rest is withheld.
    fn reviewed(&self, reported: &Catalog) -> Catalog {
        let mut next = Catalog { quarantined: Vec::new(), ..reported.clone() };
        let mut approved_bytes = 0;
        for kind in DefinitionKind::ALL {
            let in_force = by_name(self.definitions(kind).iter());
            let held: HashMap<&str, &Quarantined> = self
                .quarantined
                .iter()
                .filter(|held| held.kind == kind)
                .map(|held| (&*held.definition.name, held))
                .collect();
            let definitions = std::mem::take(next.definitions_mut(kind));
            for definition in definitions {
                let held = held.get(&*definition.name);
                let approved = in_force
                    .get(&*definition.name)
                    .copied()
                    .or_else(|| held.and_then(|held| held.approved()));
                if let Some(approved) = approved.filter(|approved| approved.hash == definition.hash) {
                    next.definitions_mut(kind).push(approved.clone());
                    continue;
                }
                // Withheld as it was first seen, so that what the hash leaves out cannot change after a look at it.
                let seen = held.map(|held| &held.definition).filter(|seen| seen.hash == definition.hash);
                let definition = seen.cloned().unwrap_or(definition);
                // Forgetting an approved form that does not fit makes the definition a new one: it is withheld still.
                let fits = |approved: &&Definition| approved_bytes + approved.bytes() <= CATALOG_BYTES_MAX;
                let reason = match approved.filter(fits) {
                    Some(approved) => QuarantineReason::Changed { approved: approved.clone() },
                    None => QuarantineReason::New,
                };
                let held = Quarantined { kind, definition, reason };
                approved_bytes += held.approved().map_or(0, Definition::bytes);
                next.quarantined.push(held);
            }
        }
        next
    }

    /// Whether two catalogs of a server are the same but for the order of their definitions.
    fn says_the_same(&self, other: &Catalog) -> bool {
        let same_kind = |kind| {
            let (mine, others) = (self.definitions(kind), other.definitions(kind));
            let mine_by_name = by_name(mine.iter());
            mine.len() == others.len()
                && others.iter().all(|definition| mine_by_name.get(&*definition.name) == Some(&definition))
        };
        let mine: HashMap<_, _> =
            self.quarantined.iter().map(|held| ((held.kind, &*held.definition.name), held)).collect();
        self.revisions == other.revisions
            && self.carrier == other.carrier
            && self.initialize_result == other.initialize_result
            && self.discover_result == other.discover_result
            && DefinitionKind::ALL.into_iter().all(same_kind)
            && self.quarantined.len() == other.quarantined.len()
            && other
                .quarantined
                .iter()
                .all(|held| mine.get(&(held.kind, &*held.definition.name)) == Some(&held))
    }
}

fn by_name<'d>(definitions: impl Iterator<Item = &'d Definition>) -> HashMap<&'d str, &'d Definition> {
    definitions.map(|definition| (&*definition.name, definition)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn tool(name: &str, description: &str) -> Definition {
        let json = json!({"name": name, "description": description});
        Definition::new(name, json.to_string())
    }

    fn catalog(tools: &[Definition]) -> Catalog {
        let mut catalog = Catalog::empty("acme".parse().expect("a name"), "files".parse().expect("a name"));
        catalog.tools = tools.to_vec();
        catalog
    }

    fn changed(definition: Definition, approved: Definition) -> Quarantined {
        let reason = QuarantineReason::Changed { approved };
        Quarantined { kind: DefinitionKind::Tool, definition, reason }
    }

    fn approval(definition: &Definition) -> Approval {
        let Definition { name, hash, .. } = definition.clone();
        Approval { kind: DefinitionKind::Tool, name, hash }
    }

    #[test]
    fn a_first_catalog_is_taken_as_it_is() {
        let first = catalog(&[tool("read", "a")]);
        for pin in [Pin::Auto, Pin::Review] {
            assert_eq!(Catalog::record(None, &first, pin), Some(first.clone()));
        }
    }

    #[test]
    fn under_review_a_changed_definition_is_withheld_until_it_is_approved() {
        let first = catalog(&[tool("read", "a"), tool("write", "a"), tool("gone", "a")]);
        let report = catalog(&[tool("new", "a"), tool("read", "evil"), tool("write", "a")]);
        let held = Catalog::record(Some(&first), &report, Pin::Review).expect("a change");
        let new = Quarantined {
            kind: DefinitionKind::Tool,
            definition: tool("new", "a"),
            reason: QuarantineReason::New,
        };
        let expected = Catalog {
            quarantined: vec![new, changed(tool("read", "evil"), tool("read", "a"))],
            ..catalog(&[tool("write", "a")])
        };
        assert_eq!(held, expected);
        assert_eq!(Catalog::record(Some(&held), &report, Pin::Review), None, "the same report again");
        assert!(first.is_withdrawn_by(&held) && !held.is_withdrawn_by(&first));

        let approved = held.approve(&[approval(&tool("read", "evil"))]).expect("as it was seen");
        assert_eq!(approved.tools, [tool("write", "a"), tool("read", "evil")]);
        assert_eq!(approved.quarantined, expected.quarantined[..1]);
        assert_eq!(Catalog::record(Some(&approved), &report, Pin::Review), None);
        assert_eq!(
            Catalog::record(Some(&approved), &report, Pin::Auto),
            Some(report),
            "auto releases the rest"
        );
    }

    #[test]
    fn a_definition_that_returns_to_its_approved_form_is_in_force_again() {
        let first = catalog(&[tool("read", "a")]);
        let held = Catalog::record(Some(&first), &catalog(&[tool("read", "b")]), Pin::Review).expect("held");
        let again = Catalog::record(Some(&held), &catalog(&[tool("read", "c")]), Pin::Review).expect("held");
        assert_eq!(again.quarantined, [changed(tool("read", "c"), tool("read", "a"))]);
        assert_eq!(Catalog::record(Some(&again), &first, Pin::Review), Some(first));
    }

    #[test]
    fn a_definition_that_left_is_new_when_it_returns() {
        let first = catalog(&[tool("read", "a")]);
        let empty = Catalog::record(Some(&first), &catalog(&[]), Pin::Review).expect("a change");
        let returned = Catalog::record(Some(&empty), &first, Pin::Review).expect("a change");
        assert_eq!(returned.tools, []);
        assert_eq!(returned.quarantined[0].reason, QuarantineReason::New);
    }

    #[test]
    fn what_an_admin_did_not_see_is_not_approved() {
        let first = catalog(&[tool("read", "a")]);
        let held = Catalog::record(Some(&first), &catalog(&[tool("read", "b")]), Pin::Review).expect("held");
        let (kind, read, raed) = (DefinitionKind::Tool, Arc::from("read"), Arc::from("raed"));
        assert_eq!(
            held.approve(&[approval(&tool("read", "c")), approval(&tool("raed", "b"))]),
            Err(vec![
                ApproveError::ChangedAgain { kind, name: read },
                ApproveError::NotQuarantined { kind, name: raed, nearest: Some("read".to_owned()) },
            ])
        );
    }

    #[test]
    fn what_the_hash_leaves_out_stays_as_approved_under_review_and_follows_the_server_otherwise() {
        let first = catalog(&[tool("read", "a")]);
        let with_meta = Definition::new("read", r#"{"name":"read","description":"a","_meta":{"x":1}}"#);
        let report = catalog(&[with_meta]);
        assert_eq!(Catalog::record(Some(&first), &report, Pin::Review), None);
        assert_eq!(Catalog::record(Some(&first), &report, Pin::Auto), Some(report));
    }

    #[test]
    fn approved_forms_that_do_not_fit_are_forgotten_and_their_definitions_stay_withheld() {
        let large = |name: &str, with: &str| tool(name, &with.repeat(CATALOG_BYTES_MAX / 2));
        let first = catalog(&[large("a", "x")]);
        let held = Catalog::record(Some(&first), &catalog(&[tool("a", ""), large("b", "x")]), Pin::Review);
        let held = held.expect("held");
        let both = held.approve(&[approval(&large("b", "x"))]).expect("approved");
        let next = Catalog::record(Some(&both), &catalog(&[tool("a", ""), tool("b", "")]), Pin::Review);
        let next = next.expect("held");
        assert_eq!(next.check(), Ok(()));
        let reasons: Vec<_> = next.quarantined.iter().map(|held| held.approved().is_some()).collect();
        assert_eq!((next.tools, reasons), (Vec::new(), vec![true, false]));
    }

    fn reports() -> impl Strategy<Value = Catalog> {
        let tool = ("[a-d]", "[xy]").prop_map(|(name, description)| tool(&name, &description));
        prop::collection::vec(tool, 0..6).prop_map(|mut tools| {
            let mut seen = HashSet::new();
            tools.retain(|tool| seen.insert(tool.name.clone()));
            catalog(&tools)
        })
    }

    proptest! {
        #[test]
        fn only_what_was_approved_is_ever_in_force_under_review(
            history in prop::collection::vec((reports(), any::<bool>()), 1..12)
        ) {
            let mut stored: Option<Catalog> = None;
            let mut approved: HashSet<[u8; 32]> = HashSet::new();
            for (report, approve) in history {
                if stored.is_none() {
                    approved.extend(report.tools.iter().map(|tool| tool.hash));
                }
                let next = Catalog::record(stored.as_ref(), &report, Pin::Review);
                let mut next = next.or(stored).expect("a first report is recorded");
                prop_assert_eq!(next.check(), Ok(()));
                prop_assert_eq!(Catalog::record(Some(&next), &report, Pin::Review), None);
                // Everything that is offered is accounted for: in force or withheld.
                prop_assert_eq!(next.tools.len() + next.quarantined.len(), report.tools.len());
                for tool in &report.tools {
                    let in_force = next.tools.iter().any(|known| known.hash == tool.hash);
                    let held = next.quarantined(DefinitionKind::Tool, &tool.name);
                    prop_assert!(in_force != held.is_some_and(|held| held.definition.hash == tool.hash));
                }
                if approve {
                    let seen: Vec<_> = next.quarantined.iter().map(|held| approval(&held.definition)).collect();
                    approved.extend(seen.iter().map(|seen| seen.hash));
                    next = next.approve(&seen).expect("as seen");
                    prop_assert!(next.quarantined.is_empty());
                }
                prop_assert!(next.tools.iter().all(|tool| approved.contains(&tool.hash)));
                stored = Some(next);
            }
        }
    }
}
