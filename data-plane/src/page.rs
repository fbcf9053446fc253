//! Pages for people: where one is sent whose call waits for an approval.
//!
//! Always holds: a page says nothing that is not in its own address, so that it tells strangers nothing, and is the same whether
//! there is such an approval or not. It has no script and nothing from elsewhere, and nobody can approve on it: who may is
//! an admin, who does it by the CLI or the admin API.

use bytes::Bytes;
use gantry_model::{ApprovalId, TenantName};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response};

use crate::reply::Body;

/// The middle of an approval's path.
pub(crate) const APPROVALS: &str = "approvals";

/// Where the page of an approval is, on the tenant's own origin.
pub(crate) fn approval_path(tenant: &TenantName, id: ApprovalId) -> String {
    format!("/{tenant}/{APPROVALS}/{id}")
}

/// The page of an approval.
pub(crate) fn approval(tenant: &TenantName, id: ApprovalId) -> Response<Body> {
    // Both have letters, digits and dashes only.
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Approval {id}</title>\n<h1>This call waits for an approval</h1>\n\
         <p>An agent of <b>{tenant}</b> makes a call that has to be approved first. Whoever may approve it looks at it and decides:</p>\n\
         <pre>gantry approval show {id} --tenant {tenant}\ngantry approval approve {id} --tenant {tenant}\n\
         gantry approval deny {id} --tenant {tenant}</pre>\n\
         <p>Then go back to the agent and let it go on. The call is not made before.</p>\n</html>\n"
    );
    let mut response = Response::new(Body::full(Bytes::from(page)));
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
