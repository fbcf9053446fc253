//! Bundles of authorities in a change: whether nodes will be able to believe anybody by them.
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

/// Where a bundle stands in its document.
const PATH: &str = "spec.client_authorities";

/// What is wrong with the bundles of these documents.
pub(super) fn problems(documents: &[Applied]) -> Vec<Problem> {
    let read = |(at, (document, change)): (usize, &Applied)| match &document.spec {
        Spec::Provider(ProviderSpec::Authority(spec)) if *change != ChangeKind::Unchanged => {
            let error = ClientAuthorities::parse(&spec.client_authorities).err()?;
            let (path, nearest) = (PATH.to_owned(), String::new());
            Some(Problem { index: index(at), path, message: error.to_string(), nearest })
        }
        _ => None,
    };
    documents.iter().enumerate().filter_map(read).collect()
}
