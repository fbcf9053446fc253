//! Bundles of authorities in a change, of agents' certificates and of services that check: whether nodes will be able to
//! believe anybody by them.
//!
//! Always holds: a bundle that is new or changed and that nodes could not read is refused before it is proposed. It is not
//! judged in the state machine, as policies are not: readers of two builds may differ.

use gantry_control_state::ChangeKind;
use gantry_model::Spec;
use gantry_model::resource::ProviderSpec;
use gantry_node::tls::ClientAuthorities;
use gantry_wire::admin_v1::Problem;

use super::policy::Applied;
use super::rejection::index;

/// What is wrong with the bundles of these documents.
pub(super) fn problems(documents: &[Applied]) -> Vec<Problem> {
    let read = |(at, (document, change)): (usize, &Applied)| {
        let (path, bundle) = bundle(&document.spec).filter(|_| *change != ChangeKind::Unchanged)?;
        let error = ClientAuthorities::parse(bundle).err()?;
        let (path, nearest) = (path.to_owned(), String::new());
        Some(Problem { index: index(at), path, message: error.to_string(), nearest })
    };
    documents.iter().enumerate().filter_map(read).collect()
}

/// The bundle of a document, and where it stands in it.
fn bundle(spec: &Spec) -> Option<(&'static str, &str)> {
    match spec {
        Spec::Provider(ProviderSpec::Authority(spec)) => {
            Some(("spec.client_authorities", &spec.client_authorities))
        }
        Spec::Tenant(spec) => Some(("spec.check.authorities", spec.check.as_ref()?.authorities.as_deref()?)),
        Spec::Server(spec) => Some(("spec.check.authorities", spec.check.as_ref()?.authorities.as_deref()?)),
        _ => None,
    }
}
