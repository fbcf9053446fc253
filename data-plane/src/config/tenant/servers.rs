//! Servers of a tenant, compiled, with what is sent to them and who is asked about them.

use std::collections::HashMap;
use std::sync::Arc;

use gantry_model::resource::{ExternalCheck, Transport};
use gantry_model::{ServerName, TenantName};
use http::Uri;

use super::{Parts, Secrets, Tenant, TenantError};
use crate::check::{Checker, Origin};
use crate::config::definitions::Offers;
use crate::config::inspection::Inspections;
use crate::config::server::{Credential, Server, digest_of};
use crate::upstream::health::Health;

/// All of a tenant.
pub(super) fn build(
    tenant: &TenantName,
    parts: &Parts,
    secrets: &Secrets,
    before: Option<&Tenant>,
) -> Result<HashMap<ServerName, Arc<Server>>, TenantError> {
    let mut servers = HashMap::with_capacity(parts.servers.len());
    let endpoints = parts.endpoints.iter().map(|(_, spec)| spec);
    let offers = Offers::compile(&parts.catalogs, endpoints, before.map(|before| &before.servers));
    for (name, spec) in &parts.servers {
        let kept = before.and_then(|before| before.servers.get(name));
        let health = kept.map(|server| &server.health).filter(|health| health.is_of(spec));
        let health = health.cloned().unwrap_or_else(|| Arc::new(Health::new(name, spec)));
        let oddities = offers.oddities(name, &parts.inspection, &spec.inspection);
        oddities.tell(tenant, name, kept.map(|kept| &kept.oddities));
        let credential = spec.credential.as_ref();
        let credential =
            credential.map(|name| Credential::build(name, &parts.credentials, secrets)).transpose()?;
        let uri = match &spec.transport {
            Transport::Http { url } => {
                Some(Uri::try_from(url.as_str()).map_err(|_| TenantError::Address(name.clone()))?)
            }
            Transport::Stdio { .. } => None,
        };
        let known = kept.and_then(|kept| kept.check.as_ref());
        let check = check(spec.check.as_ref(), Origin::Server, (parts, secrets), known)?;
        let server = Server {
            check,
            uri,
            tenant: tenant.clone(),
            name: name.clone(),
            spec: spec.clone(),
            spec_digest: digest_of(spec),
            offer: offers.of(name),
            credential,
            health,
            inspections: Inspections::compile(&parts.inspection, &spec.inspection)
                .map_err(|error| TenantError::Pattern(name.clone(), error))?,
            oddities,
        };
        servers.insert(name.clone(), Arc::new(server));
    }
    Ok(servers)
}

/// Who is asked about all calls of a tenant.
pub(super) fn check_of_tenant(
    parts: &Parts,
    secrets: &Secrets,
    before: Option<&Tenant>,
) -> Result<Option<Arc<Checker>>, TenantError> {
    let known = before.and_then(|before| before.check.as_ref());
    check(parts.check.as_ref(), Origin::Tenant, (parts, secrets), known)
}

/// Who is asked about calls, where somebody is; the one before where it is the same.
fn check(
    spec: Option<&ExternalCheck>,
    origin: Origin,
    (parts, secrets): (&Parts, &Secrets),
    before: Option<&Arc<Checker>>,
) -> Result<Option<Arc<Checker>>, TenantError> {
    let Some(spec) = spec else { return Ok(None) };
    let credential = spec.credential.as_ref();
    let credential =
        credential.map(|name| Credential::build(name, &parts.credentials, secrets)).transpose()?;
    let header = credential.and_then(|credential| credential.as_header());
    Ok(Some(Checker::of(origin, spec, header, before)))
}
