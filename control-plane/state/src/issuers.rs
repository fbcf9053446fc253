//! Whose tokens prove admins: the rules of changing that, without the records.
//!
//! Always holds: a token says by its issuer's URL which one is meant; issuers and their rules stay within
//! [`ADMIN_ISSUERS_MAX`], [`ADMIN_RULES_MAX`] and [`ISSUER_BYTES_MAX`]; no rule gives a role in a tenant that is gone, nor in
//! the next one of its name.

use gantry_model::Name;
use gantry_model::admin_issuer::AdminIssuer;
use gantry_model::enrolment::Enrolment;
use gantry_model::name::TenantName;

/// Issuers at one time: an organisation has one, and those of organisations that it has merged with.
pub(crate) const ADMIN_ISSUERS_MAX: usize = 16;
/// Rules of an issuer: a few groups for each of some dozen tenants.
pub(crate) const ADMIN_RULES_MAX: usize = 256;
/// Bytes of an issuer: it stands in the record that is written as a whole with each change of it.
pub(crate) const ISSUER_BYTES_MAX: usize = 32 * 1024;

/// Why the issuers are not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IssuerRefusal {
    #[error("there are {ADMIN_ISSUERS_MAX} issuers already; delete one")]
    TooMany,
    #[error("an issuer has 1 to {ADMIN_RULES_MAX} rules, and {ISSUER_BYTES_MAX} bytes at most")]
    Size,
    #[error("issuer {0} has the same URL, so a token would not say which of them is meant")]
    Same(Name),
    #[error("there is no issuer {0}; `gantry admin issuer ls` lists them")]
    Unknown(Name),
}

/// Adds an issuer, or puts it in place of the one of its name.
pub(crate) fn put(issuers: &mut Vec<AdminIssuer>, issuer: &AdminIssuer) -> Result<(), IssuerRefusal> {
    let texts = issuer.audiences.iter().chain(&issuer.algorithms).chain([&issuer.issuer]);
    let rules = issuer.rules.iter().map(|rule| rule.claim.len() + rule.value.len());
    let bytes: usize =
        texts.map(String::len).chain(issuer.authorities.iter().map(Vec::len)).chain(rules).sum();
    if !(1..=ADMIN_RULES_MAX).contains(&issuer.rules.len()) || bytes > ISSUER_BYTES_MAX {
        return Err(IssuerRefusal::Size);
    }
    let same = issuers.iter().find(|known| known.issuer == issuer.issuer && known.name != issuer.name);
    if let Some(same) = same {
        return Err(IssuerRefusal::Same(same.name.clone()));
    }
    match issuers.binary_search_by(|known| known.name.cmp(&issuer.name)) {
        Ok(at) => issuers[at] = issuer.clone(),
        Err(_) if issuers.len() >= ADMIN_ISSUERS_MAX => return Err(IssuerRefusal::TooMany),
        Err(at) => issuers.insert(at, issuer.clone()),
    }
    Ok(())
}

/// Takes an issuer away.
pub(crate) fn delete(issuers: &mut Vec<AdminIssuer>, name: &Name) -> Result<(), IssuerRefusal> {
    let at = issuers.iter().position(|known| known.name == *name);
    issuers.remove(at.ok_or_else(|| IssuerRefusal::Unknown(name.clone()))?);
    Ok(())
}

/// An enrolment in which no issuer gives a role in a tenant that is gone; `None`: none did.
pub(crate) fn without(enrolment: &Enrolment, tenant: &TenantName) -> Option<Enrolment> {
    let mut changed = enrolment.clone();
    for issuer in &mut changed.admin_issuers {
        issuer.rules.retain(|rule| rule.role.tenant() != Some(tenant));
    }
    (changed != *enrolment).then_some(changed)
}

#[cfg(test)]
mod tests {
    use gantry_model::admin_issuer::AdminRule;
    use gantry_model::enrolment::EnrolmentChange;
    use gantry_model::record::Cluster;
    use gantry_model::{Resource, ResourceId, Revision, document};
    use serde_json::json;

    use super::*;
    use crate::{Command, Outcome, State};

    fn issuer(name: &str, url: &str, roles: &[&str]) -> AdminIssuer {
        let rule = |role: &&str| AdminRule {
            claim: "groups".to_owned(),
            value: "ops".to_owned(),
            role: role.parse().expect("a role"),
        };
        AdminIssuer {
            name: name.parse().expect("a name"),
            issuer: url.to_owned(),
            audiences: vec!["cli".to_owned()],
            algorithms: vec!["RS256".to_owned()],
            authorities: Vec::new(),
            is_plain_on_loopback: false,
            rules: roles.iter().map(rule).collect(),
        }
    }

    #[test]
    fn an_issuer_has_one_name_and_one_url_and_takes_the_place_of_the_one_before() {
        let (a, b) = (issuer("a", "https://a", &["auditor"]), issuer("b", "https://b", &["auditor"]));
        let mut issuers = Vec::new();
        for issuer in [&b, &a] {
            assert_eq!(put(&mut issuers, issuer), Ok(()));
        }
        assert_eq!(issuers, [a.clone(), b.clone()]);
        let next = issuer("b", "https://c", &["auditor", "read-only"]);
        assert_eq!(put(&mut issuers, &next), Ok(()));
        assert_eq!(issuers, [a.clone(), next.clone()]);
        let same = put(&mut issuers, &issuer("d", "https://a", &["auditor"]));
        assert_eq!(same, Err(IssuerRefusal::Same(a.name.clone())));
        assert_eq!(delete(&mut issuers, &a.name), Ok(()));
        assert_eq!(delete(&mut issuers, &a.name), Err(IssuerRefusal::Unknown(a.name)));
        assert_eq!(issuers, [next]);
    }

    #[test]
    fn there_are_no_more_issuers_and_rules_than_are_promised() {
        let mut issuers = Vec::new();
        for number in 0..ADMIN_ISSUERS_MAX {
            let one = issuer(&format!("i{number:02}"), &format!("https://{number}"), &["auditor"]);
            assert_eq!(put(&mut issuers, &one), Ok(()));
        }
        let one_more = issuer("more", "https://more", &["auditor"]);
        assert_eq!(put(&mut issuers, &one_more), Err(IssuerRefusal::TooMany));
        assert_eq!(put(&mut issuers, &issuer("i00", "https://0", &["read-only"])), Ok(()), "in place of one");

        let sized = |rules: usize| put(&mut Vec::new(), &issuer("a", "https://a", &vec!["auditor"; rules]));
        assert_eq!((sized(0), sized(ADMIN_RULES_MAX)), (Err(IssuerRefusal::Size), Ok(())));
        assert_eq!(sized(ADMIN_RULES_MAX + 1), Err(IssuerRefusal::Size));
        let large = AdminIssuer { authorities: vec![vec![0; ISSUER_BYTES_MAX]], ..one_more };
        assert_eq!(put(&mut Vec::new(), &large), Err(IssuerRefusal::Size));
    }

    #[test]
    fn a_rule_is_of_a_tenant_that_is_there_and_goes_with_it() {
        let mut state = State::default();
        let mut revision = 0;
        let mut apply = |state: &mut State, command: &Command| {
            revision += 1;
            state.apply(Revision(revision), command).outcome
        };
        let cluster = Cluster {
            id: "c1".to_owned(),
            kek_id: "k".to_owned(),
            root_nonce: [0; 12],
            root_wrapped: Vec::new(),
            node_keys_nonce: [0; 12],
            node_keys_wrapped: Vec::new(),
            node_keys_generation: 1,
            node_keys_rotated_at_ms: None,
            enrolment: Enrolment::default(),
        };
        apply(&mut state, &Command::Bootstrap(cluster));
        let bound = issuer("a", "https://a", &["auditor", "tenant-admin:acme"]);
        let put = Command::ChangeEnrolment(EnrolmentChange::PutAdminIssuer(bound.clone()));
        let Outcome::Refused(refusals) = apply(&mut state, &put) else { panic!("there is no acme yet") };
        assert_eq!(refusals[0].message, "there is no Tenant acme");

        let acme: Resource = document::parse(json!({"kind": "Tenant", "name": "acme"})).expect("a tenant");
        let id: ResourceId = acme.id();
        apply(&mut state, &Command::Apply(vec![acme.clone()]));
        assert!(matches!(apply(&mut state, &put), Outcome::Done(_)));
        let issuers = |state: &State| state.cluster().expect("a cluster").enrolment.admin_issuers.clone();
        assert_eq!(issuers(&state), [bound]);
        apply(&mut state, &Command::Delete(vec![id]));
        let freed = [issuer("a", "https://a", &["auditor"])];
        assert_eq!(issuers(&state), freed);
        apply(&mut state, &Command::Apply(vec![acme]));
        assert_eq!(issuers(&state), freed, "the next acme is another one");
    }
}
