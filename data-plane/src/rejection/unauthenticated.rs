//! Why a caller is not known.
//!
//! Always holds: nothing of what was shown is repeated, and which providers a tenant has is told by the metadata of its
//! endpoints alone.

use http::StatusCode;
use http::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};

use crate::identity::certificate::CertificateError;
use crate::identity::provider::IdentifyError;

/// Why a caller is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unauthenticated {
    /// Nothing was presented.
    Missing,
    /// What was presented is not a key that is valid here and now.
    Invalid,
    /// The key is good, and the endpoint takes none.
    NoKeys,
    /// What says who calls stands in the query.
    InQuery,
    /// It stands twice.
    Twice,
    /// The token is of no provider whose tokens are taken here.
    Issuer,
    /// The token is not good.
    Token(IdentifyError),
    /// It is good, and no agent is its client.
    NoAgent,
    /// The certificate of the connection is not good.
    Certificate(CertificateError),
    /// It is not, and nobody here signed it: whoever has it is told what those are told who show nothing.
    Stranger(CertificateError),
    /// It is not, beside a key or token that is: another one of those is of no use.
    CertificateBeside(CertificateError),
    /// It is several agents'.
    SeveralAgents,
    /// The token counts only with another certificate than the connection has, if it has one.
    Bound,
    /// It is, and no agent is its client.
    NoCertifiedAgent,
    /// The certificate is one agent's, and what else was shown another's.
    Disagree,
    /// Nobody can tell now whether it is.
    Unverifiable,
}

impl Unauthenticated {
    /// What tells a client how to be known: our words, and those of the endpoint.
    pub(super) fn header(&self, challenge: &str) -> Option<(HeaderName, HeaderValue)> {
        header(&format!("{}{challenge}", self.challenge()?))
    }

    /// The words of the challenge (RFC 6750, 3); `None` where another try with something else is of no use.
    fn challenge(&self) -> Option<&'static str> {
        match self {
            Unauthenticated::Missing | Unauthenticated::Certificate(_) | Unauthenticated::Stranger(_) => {
                Some(r#"Bearer realm="gantry""#)
            }
            Unauthenticated::InQuery | Unauthenticated::Twice | Unauthenticated::Disagree => {
                Some(r#"Bearer realm="gantry", error="invalid_request""#)
            }
            Unauthenticated::Invalid
            | Unauthenticated::NoKeys
            | Unauthenticated::Issuer
            | Unauthenticated::Bound
            | Unauthenticated::Token(_) => Some(r#"Bearer realm="gantry", error="invalid_token""#),
            Unauthenticated::NoAgent
            | Unauthenticated::NoCertifiedAgent
            | Unauthenticated::CertificateBeside(_)
            | Unauthenticated::SeveralAgents
            | Unauthenticated::Unverifiable => None,
        }
    }

    /// Whether a change of the tenant may keep out whom it let in before. What a stranger can invent does not tell, but for
    /// tokens and certificates: nobody knows whose they are before a provider that is there says so.
    pub(crate) fn may_follow_from_a_change(&self) -> bool {
        match self {
            Unauthenticated::NoKeys
            | Unauthenticated::Issuer
            | Unauthenticated::Token(_)
            | Unauthenticated::NoAgent
            | Unauthenticated::Certificate(_)
            | Unauthenticated::Stranger(_)
            | Unauthenticated::CertificateBeside(_)
            | Unauthenticated::NoCertifiedAgent
            | Unauthenticated::SeveralAgents
            | Unauthenticated::Unverifiable => true,
            // The provider said so, and the client's connection.
            Unauthenticated::Bound
            | Unauthenticated::Missing
            | Unauthenticated::Invalid
            | Unauthenticated::InQuery
            | Unauthenticated::Twice
            | Unauthenticated::Disagree => false,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Unauthenticated::InQuery | Unauthenticated::Twice | Unauthenticated::Disagree => {
                StatusCode::BAD_REQUEST
            }
            Unauthenticated::Unverifiable => StatusCode::SERVICE_UNAVAILABLE,
            Unauthenticated::Missing
            | Unauthenticated::Invalid
            | Unauthenticated::NoKeys
            | Unauthenticated::Issuer
            | Unauthenticated::Token(_)
            | Unauthenticated::Bound
            | Unauthenticated::Stranger(_)
            | Unauthenticated::Certificate(_) => StatusCode::UNAUTHORIZED,
            // Another token of the same client would be as good, and clients would ask for it again and again.
            Unauthenticated::NoAgent
            | Unauthenticated::NoCertifiedAgent
            | Unauthenticated::CertificateBeside(_)
            | Unauthenticated::SeveralAgents => StatusCode::FORBIDDEN,
        }
    }

    /// What records tell, which is more than whoever asked is told.
    pub(super) fn recorded(&self) -> String {
        match self {
            Unauthenticated::Stranger(error) => error.to_string(),
            why => why.message(),
        }
    }

    pub(super) fn message(&self) -> String {
        let message = match self {
            Unauthenticated::Token(error) => return error.to_string(),
            Unauthenticated::Certificate(error) | Unauthenticated::CertificateBeside(error) => {
                return error.to_string();
            }
            Unauthenticated::Missing | Unauthenticated::Stranger(_) => {
                "an agent key is required: Authorization: Bearer KEY"
            }
            Unauthenticated::Invalid => "the agent key is not valid here",
            Unauthenticated::NoKeys => "this endpoint takes tokens of a provider, and no agent keys",
            Unauthenticated::InQuery => {
                "a key or token in the query is refused, for queries are logged; put it into Authorization: Bearer, and \
                 have this one revoked"
            }
            Unauthenticated::Twice => {
                "what says who calls stands twice (Authorization, X-API-Key); it has to stand once"
            }
            Unauthenticated::Issuer => "the token is of no provider whose tokens are taken here (`iss`)",
            Unauthenticated::NoAgent => {
                "no agent is the client of the token; an admin names it in an agent's `identities`"
            }
            Unauthenticated::NoCertifiedAgent => {
                "no agent is the client that the certificate names; an admin names it in an agent's `identities`"
            }
            Unauthenticated::SeveralAgents => {
                "the client's certificate is that of several agents by what several authorities say; an admin leaves it to one"
            }
            Unauthenticated::Bound => {
                "the token counts only on a connection with the client's certificate that it was issued to (`cnf`, RFC 8705)"
            }
            Unauthenticated::Disagree => {
                "the certificate of the connection is another agent's than what the request shows; one of them has to go"
            }
            Unauthenticated::Unverifiable => {
                "the keys of the token's provider cannot be had at this moment; try again"
            }
        };
        message.to_owned()
    }
}

/// What tells a client to come back with a token for more (RFC 6750, 3.1).
pub(super) fn step_up(challenge: &str) -> Option<(HeaderName, HeaderValue)> {
    header(&format!(r#"Bearer realm="gantry", error="insufficient_scope"{challenge}"#))
}

/// What stands in it was checked where it was written, so that it may stand in a header.
fn header(challenge: &str) -> Option<(HeaderName, HeaderValue)> {
    HeaderValue::from_str(challenge).ok().map(|value| (WWW_AUTHENTICATE, value))
}
