//! Digests of what nodes hold, whatever their scope.
//!
//! Always holds: each sum is over exactly the entries that nodes receive of its tenants; a tenant without entries has
//! none. An entry changes as many sums as its tenant has regions, and a digest is told from as many sums as a scope
//! names tenants: neither takes longer when there are more tenants. Cloning takes constant time.

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_model::digest::Digest;
use gantry_model::{RegionName, Scope, TenantName};
use rpds::RedBlackTreeMapSync;

/// Regions of a tenant; none: it may be everywhere.
type Regions = Arc<BTreeSet<RegionName>>;

/// The sums.
#[derive(Debug, Clone, Default)]
pub struct Digests {
    all: Digest,
    tenants: RedBlackTreeMapSync<TenantName, OfTenant>,
    /// Of all tenants without regions.
    anywhere: Digest,
    /// Of all tenants that may be in a region and have any.
    by_region: RedBlackTreeMapSync<RegionName, OfRegion>,
}

#[derive(Debug, Clone, Default)]
struct OfTenant {
    digest: Digest,
    entries: usize,
    regions: Regions,
}

#[derive(Debug, Clone, Default)]
struct OfRegion {
    digest: Digest,
    tenants: usize,
}

impl Digests {
    /// Of everything that nodes receive.
    pub fn all(&self) -> Digest {
        self.all
    }

    /// Of what a node of a scope holds.
    pub fn of(&self, scope: &Scope) -> Digest {
        let Scope::Of(labels) = scope else { return self.all };
        if labels.tenants.is_empty() {
            let mut sum = self.anywhere;
            let of_region = labels.region.as_ref().and_then(|region| self.by_region.get(region));
            sum.add_set(of_region.map(|of_region| of_region.digest).unwrap_or_default());
            return sum;
        }
        let mut sum = Digest::default();
        for tenant in labels.tenants.iter().filter(|tenant| self.has(scope, tenant)) {
            sum.add_set(self.tenants.get(tenant).map(|of| of.digest).unwrap_or_default());
        }
        sum
    }

    /// Whether a node of a scope holds what there is of a tenant.
    pub fn has(&self, scope: &Scope, tenant: &TenantName) -> bool {
        self.tenants.get(tenant).is_some_and(|of| scope.holds(tenant, &of.regions))
    }

    /// The tenants that a node of a scope holds something of.
    pub fn tenants<'a>(&'a self, scope: &'a Scope) -> impl Iterator<Item = &'a TenantName> {
        let named = match scope {
            Scope::Of(labels) if !labels.tenants.is_empty() => Some(&labels.tenants),
            Scope::Of(_) | Scope::Everything => None,
        };
        let all = named.is_none().then(|| self.tenants.keys());
        let tenants = named.into_iter().flatten().chain(all.into_iter().flatten());
        tenants.filter(|tenant| self.has(scope, tenant))
    }

    /// An entry of a tenant came, in place of another where there was one.
    pub(crate) fn put(&mut self, tenant: &TenantName, before: Option<Digest>, entry: Digest) {
        self.change(tenant, |of| {
            of.digest.add_set(entry);
            match before {
                Some(before) => of.digest.remove_set(before),
                None => of.entries += 1,
            }
        });
    }

    /// An entry of a tenant went.
    pub(crate) fn remove(&mut self, tenant: &TenantName, entry: Digest) {
        self.change(tenant, |of| {
            of.digest.remove_set(entry);
            of.entries -= 1;
        });
    }

    /// A tenant is to be in these regions only; everywhere when there are none.
    pub(crate) fn place(&mut self, tenant: &TenantName, regions: &BTreeSet<RegionName>) {
        let is_there = |of: &OfTenant| *of.regions == *regions;
        if !self.tenants.get(tenant).is_some_and(is_there) {
            self.change(tenant, |of| of.regions = Arc::new(regions.clone()));
        }
    }

    fn change(&mut self, tenant: &TenantName, change: impl FnOnce(&mut OfTenant)) {
        let before = self.tenants.get(tenant).cloned();
        let mut after = before.clone().unwrap_or_default();
        change(&mut after);
        if let Some(before) = &before {
            self.all.remove_set(before.digest);
            self.each_sum(&before.regions, |sum, tenants| {
                sum.remove_set(before.digest);
                *tenants -= 1;
            });
        }
        if after.entries == 0 {
            self.tenants.remove_mut(tenant);
            return;
        }
        self.all.add_set(after.digest);
        self.each_sum(&after.regions, |sum, tenants| {
            sum.add_set(after.digest);
            *tenants += 1;
        });
        self.tenants.insert_mut(tenant.clone(), after);
    }

    /// The sums that a tenant in these regions is part of.
    fn each_sum(&mut self, regions: &Regions, mut change: impl FnMut(&mut Digest, &mut usize)) {
        if regions.is_empty() {
            return change(&mut self.anywhere, &mut 1);
        }
        for region in regions.iter() {
            let mut of_region = self.by_region.get(region).cloned().unwrap_or_default();
            change(&mut of_region.digest, &mut of_region.tenants);
            match of_region.tenants {
                0 => drop(self.by_region.remove_mut(region)),
                _ => self.by_region.insert_mut(region.clone(), of_region),
            }
        }
    }
}

#[cfg(test)]
mod tests;
