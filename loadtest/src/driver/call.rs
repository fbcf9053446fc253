//! What is called, and what the answer has to be: the request made beforehand, and its proof.
//!
//! What always holds: a request lacks only its id, which has a fixed width, so that filling it in
//! moves nothing. It does not send.

use hyper::{
    HeaderMap, Uri,
    body::Bytes,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
        InvalidHeaderValue,
    },
};
use serde_json::{Value, json};

/// Ids have this many digits, so that they can be written in place.
pub(super) const ID_DIGITS: usize = 10;
/// The lowest id of this width; also the mark for "put the id here".
pub(super) const ID_MIN: u64 = 1_000_000_000;

/// The legacy revision that the driver speaks.
pub const LEGACY_VERSION: &str = "2025-11-25";
/// The modern revision that the driver speaks.
pub const MODERN_VERSION: &str = "2026-07-28";

pub(super) const VERSION_HEADER: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub(super) const SESSION_HEADER: HeaderName = HeaderName::from_static("mcp-session-id");
const METHOD_HEADER: HeaderName = HeaderName::from_static("mcp-method");
const NAME_HEADER: HeaderName = HeaderName::from_static("mcp-name");

/// Which of the two protocols a call speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// `initialize` once per connection, and its session id if there is one.
    Legacy,
    /// Every request stands for itself.
    Modern,
}

/// Where calls go, and the key they carry.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `HOST:PORT`, a numeric address.
    pub authority: String,
    /// The path of the endpoint.
    pub path: Uri,
    /// `Bearer KEY`; never printed.
    authorization: Option<HeaderValue>,
}

/// Why an endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// It is not `http://HOST:PORT/PATH`.
    #[error("the endpoint {url} is not of the form http://HOST:PORT/PATH")]
    Url {
        /// What was given.
        url: String,
    },
    /// The key holds bytes that a header cannot carry.
    #[error("the agent key cannot be sent as a header")]
    Key(#[source] InvalidHeaderValue),
}

/// What the answer has to hold.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A tool result with exactly this text, after this many progress notifications.
    Text {
        /// The text.
        text: String,
        /// Progress notifications before it.
        progress_count: usize,
    },
    /// A list of exactly these tools, in any order.
    Tools {
        /// Their names, sorted.
        names: Vec<String>,
    },
    /// Any result.
    Anything,
}

/// A request ready to be sent any number of times.
#[derive(Clone, Debug)]
pub struct Call {
    /// The era that it speaks.
    pub era: Era,
    pub(super) headers: HeaderMap,
    pub(super) path: Uri,
    pub(super) body: Bytes,
    pub(super) id_offsets: Vec<usize>,
    pub(super) proof: Proof,
    /// Whether the answer has to be in gzip.
    pub(super) is_packed: bool,
}

impl Endpoint {
    /// An endpoint from its URL, with the key of an agent where one is needed.
    ///
    /// # Errors
    /// When the URL or the key cannot be used.
    pub fn parse(url: &str, agent_key: Option<&str>) -> Result<Self, EndpointError> {
        let unusable = || EndpointError::Url { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| unusable())?;
        let authority = uri.authority().filter(|authority| authority.port().is_some());
        let (Some("http"), Some(authority)) = (uri.scheme_str(), authority) else {
            return Err(unusable());
        };
        let authorization = agent_key
            .map(|key| HeaderValue::from_str(&format!("Bearer {key}")))
            .transpose()
            .map_err(EndpointError::Key)?
            .map(|mut value| {
                value.set_sensitive(true);
                value
            });
        let path = uri.path().parse().map_err(|_| unusable())?;
        Ok(Self { authority: authority.to_string(), path, authorization })
    }

    /// A call of a tool, as `name` is known at this endpoint.
    #[must_use]
    pub fn call_tool(&self, era: Era, name: &str, proof: Proof) -> Call {
        let arguments = json!({ "text": "a load of bricks", "count": 3, "unit": "metric" });
        self.call_tool_with(era, name, arguments, proof)
    }

    /// A call of a tool whose arguments are others each time, as those of an agent that gets on with its work.
    #[must_use]
    pub fn call_tool_anew(&self, era: Era, name: &str, proof: Proof) -> Call {
        let arguments = json!({ "text": format!("load {ID_MIN} of bricks"), "count": 3, "unit": "metric" });
        self.call_tool_with(era, name, arguments, proof)
    }

    fn call_tool_with(&self, era: Era, name: &str, arguments: Value, proof: Proof) -> Call {
        let mut params = json!({ "name": name, "arguments": arguments });
        if matches!(proof, Proof::Text { progress_count: 1.., .. }) {
            params["_meta"] = json!({ "progressToken": ID_MIN });
        }
        self.call(era, "tools/call", params, proof)
    }

    /// A call of `tools/list`.
    #[must_use]
    pub fn list_tools(&self, era: Era, proof: Proof) -> Call {
        self.call(era, "tools/list", json!({}), proof)
    }

    /// A call of `subscriptions/listen`, for changes of the list of tools.
    #[must_use]
    pub fn listen(&self) -> Call {
        let params = json!({ "notifications": { "toolsListChanged": true } });
        self.call(Era::Modern, "subscriptions/listen", params, Proof::Anything)
    }

    pub(super) fn initialize(&self) -> Call {
        let client = json!({ "name": "gantry-loadtest", "version": env!("CARGO_PKG_VERSION") });
        let params = json!({
            "protocolVersion": LEGACY_VERSION, "capabilities": {}, "clientInfo": client,
        });
        let mut call = self.call(Era::Legacy, "initialize", params, Proof::Anything);
        call.headers.remove(VERSION_HEADER);
        call
    }

    /// The notification that ends the handshake; it has no id and no result.
    pub(super) fn initialized(&self) -> Call {
        let mut call = self.call(Era::Legacy, "", json!({}), Proof::Anything);
        let message = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        call.body = Bytes::from(message.to_string());
        call.id_offsets.clear();
        call
    }

    fn call(&self, era: Era, method: &str, mut params: Value, proof: Proof) -> Call {
        let mut headers = self.headers();
        if era == Era::Modern {
            if let Ok(method) = HeaderValue::from_str(method) {
                headers.insert(METHOD_HEADER, method);
            }
            if let Some(Ok(name)) = params["name"].as_str().map(HeaderValue::from_str) {
                headers.insert(NAME_HEADER, name);
            }
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN_VERSION);
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        }
        let version = match era {
            Era::Legacy => LEGACY_VERSION,
            Era::Modern => MODERN_VERSION,
        };
        headers.insert(VERSION_HEADER, HeaderValue::from_static(version));
        let message = json!({ "jsonrpc": "2.0", "id": ID_MIN, "method": method, "params": params });
        let body = message.to_string();
        let mark = ID_MIN.to_string();
        let id_offsets = body.match_indices(&mark).map(|(offset, _)| offset).collect();
        Call { era, headers, path: self.path.clone(), body: body.into(), id_offsets, proof, is_packed: false }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Ok(host) = HeaderValue::from_str(&self.authority) {
            headers.insert(HOST, host);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let accept = HeaderValue::from_static("application/json, text/event-stream");
        headers.insert(ACCEPT, accept);
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        headers
    }
}

impl Call {
    /// The same call, as common clients make it: gzip is accepted. An answer without it is wrong.
    #[must_use]
    pub fn in_gzip(mut self) -> Self {
        self.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
        self.is_packed = true;
        self
    }

    /// The body with `id` filled in.
    pub(super) fn body_with_id(&self, id: u64) -> Bytes {
        if self.id_offsets.is_empty() {
            return self.body.clone();
        }
        let digits = id_digits(id);
        let mut body = self.body.to_vec();
        for offset in &self.id_offsets {
            body[*offset..*offset + ID_DIGITS].copy_from_slice(&digits);
        }
        Bytes::from(body)
    }
}

/// The digits of an id of the fixed width.
pub(super) fn id_digits(id: u64) -> [u8; ID_DIGITS] {
    let mut digits = [b'0'; ID_DIGITS];
    let mut rest = id;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_written_in_every_place_that_names_it() {
        let endpoint = Endpoint::parse("http://127.0.0.1:80/mcp", Some("k")).expect("the test is right");
        let proof = Proof::Text { text: String::new(), progress_count: 3 };
        let call = endpoint.call_tool(Era::Modern, "events", proof);
        let body: Value =
            serde_json::from_slice(&call.body_with_id(1_234_567_890)).expect("the test is right");
        let expected = json!({
            "jsonrpc": "2.0", "id": 1_234_567_890, "method": "tools/call",
            "params": {
                "name": "events",
                "arguments": { "text": "a load of bricks", "count": 3, "unit": "metric" },
                "_meta": {
                    "progressToken": 1_234_567_890,
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientCapabilities": {},
                },
            },
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn the_agent_key_is_not_printable() {
        let endpoint =
            Endpoint::parse("http://127.0.0.1:80/mcp", Some("secret-key")).expect("the test is right");
        let call = endpoint.list_tools(Era::Legacy, Proof::Anything);
        assert!(!format!("{endpoint:?} {call:?}").contains("secret-key"));
    }

    #[test]
    fn an_endpoint_is_a_plain_url_with_a_port() {
        for url in ["https://127.0.0.1:1/mcp", "http://127.0.0.1/mcp", "127.0.0.1:1", ""] {
            assert!(Endpoint::parse(url, None).is_err(), "{url}");
        }
    }
}
