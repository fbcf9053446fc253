//! Paths that the agents' listener serves.

use gantry_model::{ApprovalId, TenantName};

use crate::config::access::METADATA_PATH;
use crate::page::APPROVALS;

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `/{tenant}/{endpoint}/mcp`
    Endpoint(EndpointPath<'a>),
    /// `/{tenant}/{endpoint}/sse`: the stream of HTTP+SSE (2024-11-05).
    Stream(EndpointPath<'a>),
    /// `/{tenant}/{endpoint}/message`: what its client says.
    Posted(EndpointPath<'a>),
    /// `/.well-known/oauth-protected-resource/{tenant}/{endpoint}/mcp`: where to get a token for an endpoint.
    Metadata(EndpointPath<'a>),
    /// `/{tenant}/approvals/{id}`: for people.
    Approval(TenantName, ApprovalId),
    /// `/healthz`: the process runs.
    Health,
    /// `/readyz`: it has a configuration.
    Ready,
    /// Anything else.
    Nowhere,
}

/// The tenant and endpoint that a path names; not known to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndpointPath<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) endpoint: &'a str,
}

impl<'a> Route<'a> {
    /// Reads a path. Names have no characters that need escaping, so an escaped path names nothing.
    pub(crate) fn of(path: &'a str) -> Route<'a> {
        if let Some(resource) = path.strip_prefix(METADATA_PATH) {
            return match Route::of(resource) {
                Route::Endpoint(path) => Route::Metadata(path),
                _ => Route::Nowhere,
            };
        }
        let mut parts = path.split('/').skip(1);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("healthz"), None, None, None) => Route::Health,
            (Some("readyz"), None, None, None) => Route::Ready,
            (Some(tenant), Some(endpoint), Some(last), None) => {
                let path = EndpointPath { tenant, endpoint };
                match last {
                    "mcp" => Route::Endpoint(path),
                    "sse" => Route::Stream(path),
                    "message" => Route::Posted(path),
                    id if endpoint == APPROVALS => match (tenant.parse(), id.parse()) {
                        (Ok(tenant), Ok(id)) => Route::Approval(tenant, id),
                        _ => Route::Nowhere,
                    },
                    _ => Route::Nowhere,
                }
            }
            _ => Route::Nowhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_path_names_an_endpoint() {
        let main = Route::Endpoint(EndpointPath { tenant: "acme", endpoint: "main" });
        assert_eq!(Route::of("/acme/main/mcp"), main);
        for path in ["/", "/acme", "/acme/main", "/acme/main/mcp/", "/acme/main/mcp/x", "//main/mcp/"] {
            assert_eq!(Route::of(path), Route::Nowhere, "{path}");
        }
        let main = EndpointPath { tenant: "acme", endpoint: "main" };
        assert_eq!(Route::of("/acme/main/sse"), Route::Stream(main));
        assert_eq!(Route::of("/acme/main/message"), Route::Posted(main));
        let page = Route::Approval("acme".parse().expect("a name"), ApprovalId([0xab; 8]));
        assert_eq!(Route::of(&format!("/acme/approvals/{}", ApprovalId([0xab; 8]))), page);
        for path in ["/acme/approvals/", "/acme/approvals/zz", "/ACME/approvals/<b>"] {
            assert_eq!(Route::of(path), Route::Nowhere, "{path}");
        }
        assert_eq!(Route::of("/healthz"), Route::Health);
        let metadata = |rest: &str| format!("/.well-known/oauth-protected-resource{rest}");
        assert_eq!(Route::of(&metadata("/acme/main/mcp")), Route::Metadata(main));
        for rest in ["", "/", "/acme/main/sse", "/healthz", &metadata("/acme/main/mcp")] {
            assert_eq!(Route::of(&metadata(rest)), Route::Nowhere, "{rest}");
        }
    }
}
