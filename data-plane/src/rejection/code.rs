//! JSON-RPC error codes. Our own stand outside the range that JSON-RPC and MCP reserve.

pub(super) const PARSE: i32 = -32700;
pub(super) const INVALID_REQUEST: i32 = -32600;
pub(super) const METHOD_NOT_FOUND: i32 = -32601;
pub(super) const INVALID_PARAMS: i32 = -32602;
/// The legacy era's word for it; the modern one forbids it.
pub(super) const RESOURCE_NOT_FOUND: i32 = -32002;
pub(super) const HEADER_MISMATCH: i32 = -32020;
pub(super) const MISSING_CAPABILITY: i32 = -32021;
pub(super) const UNSUPPORTED_VERSION: i32 = -32022;
/// A legacy server's answer to a request outside a session.
pub(super) const SESSION: i32 = -32001;
// Our own, outside -32768..-32000, after the HTTP status that says the same.
pub(super) const UNAUTHENTICATED: i32 = -31401;
pub(super) const DENIED: i32 = -31403;
pub(super) const LIMITED: i32 = -31429;
/// As the status that says that something is required first.
pub(super) const APPROVAL: i32 = -31428;
pub(super) const UPSTREAM: i32 = -31502;
pub(super) const NOT_READY: i32 = -31503;
/// As the status that says that the request is understood, and not fit to be served.
pub(super) const INSPECTED: i32 = -31422;
/// Not after a status: what the node knows of the tenant is too old.
pub(super) const STALE: i32 = -31504;
/// Not after a status either: an admin stopped the caller, or the server.
pub(super) const REVOKED: i32 = -31410;
