//! What of a cluster's configuration a node may hold: its scope.
//!
//! Always holds: a scope is decided when a node joins, by its join token, and stands in its certificate from then on, so a
//! node can claim no other and whoever steals its certificate gets no more; a tenant with regions is held by no node that
//! is in none of them. A text that parses prints as itself.
//!
//! Which tenants there are, and in which regions, is the state's.

use std::collections::BTreeSet;

use crate::name::{Name, RegionName, TenantName};

/// Most tenants that a scope names. They stand in the certificate, which each handshake carries; nodes for more of them
/// name none, and are kept apart by region.
pub const SCOPE_TENANTS_MAX: usize = 32;
/// Most free labels of a node. They stand in the certificate, too.
pub const SCOPE_LABELS_MAX: usize = 8;

/// Begins the text form, before the cluster.
const SCHEME: &str = "gantry://";
/// Follows the cluster in it.
const SEGMENT: &str = "/scope";

/// What a node may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything: of nodes that cannot be told apart, which is so without TLS.
    Everything,
    /// What its labels say.
    Of(Labels),
}

/// What a node was told that it is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels {
    /// The tenants that it serves, at most [`SCOPE_TENANTS_MAX`]; empty: each.
    pub tenants: BTreeSet<TenantName>,
    /// Where it is; `None`: nowhere in particular, so that it holds no tenant that has regions.
    pub region: Option<RegionName>,
    /// Free labels, such as `canary`, at most [`SCOPE_LABELS_MAX`]: they restrict nothing, and stages of rollouts name them.
    pub labels: BTreeSet<Name>,
}

/// Why a text is no labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not of the form {SCHEME}CLUSTER{SEGMENT}[/label=LABEL]...[/region=REGION][/tenant=TENANT]...")]
pub struct LabelsError;

impl Default for Scope {
    /// That of a certificate that says nothing.
    fn default() -> Scope {
        Scope::Of(Labels::default())
    }
}

impl Scope {
    /// Whether it has a tenant that is to be in these regions only; in all when there are none.
    pub fn holds(&self, tenant: &TenantName, regions: &BTreeSet<RegionName>) -> bool {
        match self {
            Scope::Everything => true,
            Scope::Of(labels) => labels.names(tenant) && labels.is_in(regions),
        }
    }

    /// Whether two nodes may have a tenant in common. Says yes where only the tenants' regions could tell.
    pub fn may_share(&self, other: &Scope) -> bool {
        match (self, other) {
            (Scope::Everything, _) | (_, Scope::Everything) => true,
            (Scope::Of(one), Scope::Of(other)) => {
                one.tenants.is_empty() || other.tenants.is_empty() || !one.tenants.is_disjoint(&other.tenants)
            }
        }
    }
}

impl Labels {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        *self == Labels::default()
    }

    /// Whether a tenant is among those that it serves.
    pub fn names(&self, tenant: &TenantName) -> bool {
        self.tenants.is_empty() || self.tenants.contains(tenant)
    }

    fn is_in(&self, regions: &BTreeSet<RegionName>) -> bool {
        regions.is_empty() || self.region.as_ref().is_some_and(|region| regions.contains(region))
    }

    /// The labels as they stand in a certificate of a cluster.
    pub fn to_uri(&self, cluster: &str) -> String {
        let free = self.labels.iter().map(|label| format!("/label={label}"));
        let region = self.region.iter().map(|region| format!("/region={region}"));
        let tenants = self.tenants.iter().map(|tenant| format!("/tenant={tenant}"));
        let labels: String = free.chain(region).chain(tenants).collect();
        format!("{SCHEME}{cluster}{SEGMENT}{labels}")
    }

    /// Whether a text in a certificate is about labels at all, readable or not.
    pub fn is_uri(text: &str) -> bool {
        let rest = text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/'));
        rest.is_some_and(|(_, rest)| rest == &SEGMENT[1..] || rest.starts_with("scope/"))
    }

    /// Reads what [`Labels::to_uri`] wrote for a cluster.
    pub fn from_uri(text: &str, cluster: &str) -> Result<Labels, LabelsError> {
        let begin = Labels::default().to_uri(cluster);
        let rest = text.strip_prefix(&begin).ok_or(LabelsError)?;
        let mut labels = Labels::default();
        for part in rest.split('/').skip(1) {
            match part.split_once('=').ok_or(LabelsError)? {
                ("label", label) => {
                    labels.labels.insert(label.parse().map_err(|_| LabelsError)?);
                }
                ("region", region) => labels.region = Some(region.parse().map_err(|_| LabelsError)?),
                ("tenant", tenant) => {
                    labels.tenants.insert(tenant.parse().map_err(|_| LabelsError)?);
                }
                // A label of a newer build restricts more than is understood here.
                _ => return Err(LabelsError),
            }
        }
        // Any other order, or a label that stands twice, would be a second spelling.
        let are_few = labels.tenants.len() <= SCOPE_TENANTS_MAX && labels.labels.len() <= SCOPE_LABELS_MAX;
        let is_spelled_so = are_few && labels.to_uri(cluster) == text;
        is_spelled_so.then_some(labels).ok_or(LabelsError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(tenants: &[&str], region: Option<&str>) -> Labels {
        let tenants = tenants.iter().map(|tenant| tenant.parse().expect("a name")).collect();
        let region = region.map(|region| region.parse().expect("a name"));
        Labels { tenants, region, labels: BTreeSet::new() }
    }

    fn free(names: &[&str], labels: Labels) -> Labels {
        Labels { labels: names.iter().map(|name| name.parse().expect("a name")).collect(), ..labels }
    }

    fn of(tenants: &[&str], region: Option<&str>) -> Scope {
        Scope::Of(labels(tenants, region))
    }

    #[test]
    fn a_tenant_is_held_where_it_is_named_and_in_its_regions_only() {
        let holds = |scope: &Scope, tenant: &str, regions: &[&str]| {
            let regions = regions.iter().map(|region| region.parse().expect("a name")).collect();
            scope.holds(&tenant.parse().expect("a name"), &regions)
        };
        let (anybody, of_acme) = (Scope::default(), of(&["acme", "birch"], None));
        let (eu, acme_eu) = (of(&[], Some("eu")), of(&["acme"], Some("eu")));
        assert!(holds(&anybody, "acme", &[]) && !holds(&anybody, "acme", &["eu"]));
        assert!(holds(&of_acme, "acme", &[]) && !holds(&of_acme, "cedar", &[]));
        assert!(!holds(&of_acme, "acme", &["eu"]));
        assert!(holds(&eu, "acme", &[]) && holds(&eu, "acme", &["eu", "us"]));
        assert!(!holds(&eu, "acme", &["us"]));
        assert!(holds(&acme_eu, "acme", &["eu"]) && !holds(&acme_eu, "birch", &["eu"]));
        assert!(holds(&Scope::Everything, "acme", &["us"]));
    }

    #[test]
    fn nodes_share_what_both_may_hold() {
        let (acme, both, every) = (of(&["acme"], None), of(&["acme", "birch"], Some("eu")), of(&[], None));
        let birch = of(&["birch"], None);
        assert!(acme.may_share(&both) && both.may_share(&birch) && !acme.may_share(&birch));
        assert!(every.may_share(&acme) && acme.may_share(&Scope::Everything));
    }

    #[test]
    fn labels_are_read_as_they_were_printed_and_in_no_second_spelling() {
        for labels in [
            Labels::default(),
            labels(&[], Some("eu")),
            labels(&["acme"], None),
            labels(&["acme", "birch"], Some("eu-west-1")),
            free(&["canary"], labels(&["acme"], Some("eu"))),
            free(&["canary", "large"], Labels::default()),
        ] {
            let text = labels.to_uri("c1");
            assert!(Labels::is_uri(&text), "{text}");
            assert_eq!(Labels::from_uri(&text, "c1"), Ok(labels), "{text}");
        }
        for text in [
            "gantry://c1/scope/tenant=birch/tenant=acme",
            "gantry://c1/scope/tenant=acme/tenant=acme",
            "gantry://c1/scope/tenant=acme/region=eu",
            "gantry://c1/scope/region=eu/region=eu",
            "gantry://c1/scope/zone=a",
            "gantry://c1/scope/region=eu/label=canary",
            "gantry://c1/scope/label=b/label=a",
            "gantry://c1/scope/label=A",
            "gantry://c1/scope/",
            "gantry://c1/scope/tenant=",
            "gantry://c2/scope",
        ] {
            assert_eq!(Labels::from_uri(text, "c1"), Err(LabelsError), "{text}");
            assert!(Labels::is_uri(text), "{text}");
        }
        assert!(!Labels::is_uri("gantry://c1/node/scope") && !Labels::is_uri("gantry://c1/scopes"));
        let many: Vec<_> = (0..=SCOPE_TENANTS_MAX).map(|number| format!("t{number:02}")).collect();
        let many = labels(&many.iter().map(String::as_str).collect::<Vec<_>>(), None);
        assert_eq!(Labels::from_uri(&many.to_uri("c1"), "c1"), Err(LabelsError));
        let many: Vec<_> = (0..=SCOPE_LABELS_MAX).map(|number| format!("l{number}")).collect();
        let many = free(&many.iter().map(String::as_str).collect::<Vec<_>>(), Labels::default());
        assert_eq!(Labels::from_uri(&many.to_uri("c1"), "c1"), Err(LabelsError));
    }
}
