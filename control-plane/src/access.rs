//! Who may call, and what: the tokens of nodes and other members, the certificates of nodes, and the admins.
//!
//! Always holds: every call of a service behind a [`TokenCheck`] carries the right token; how long the comparison
//! takes tells nothing of the token. Where there is TLS every node has a name of its own; without, one token for all of
//! them. Admins come through [`gate`], which knows each of them by [`identity`] and asks [`rules`] before anything of a
//! call is read.

pub(crate) mod federation;
pub(crate) mod gate;
pub(crate) mod identity;
pub(crate) mod rules;
mod seats;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{self, SHA256, SHA256_OUTPUT_LEN};
use gantry_model::identity::{MemberId, Party};
use gantry_model::{Labels, Name, Secret};
use gantry_node::tls::Caller;
use tonic::codegen::http::HeaderMap;
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// Shortest token in bytes: 128 random bits in hexadecimal.
pub const TOKEN_BYTES_MIN: usize = 32;

/// Compares the `authorization` of each call with one token.
#[derive(Debug, Clone)]
pub(crate) struct TokenCheck {
    whose: Whose,
    /// Compared instead of the token, so that its length does not show.
    digest: Secret<[u8; SHA256_OUTPUT_LEN]>,
}

/// Whose token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Admin,
    Node,
    Peer,
}

impl TokenCheck {
    pub(crate) fn new(whose: Whose, token: &Secret<String>) -> TokenCheck {
        TokenCheck { whose, digest: Secret::new(sha256(token.expose().as_bytes())) }
    }

    fn refused(&self, what: &str) -> Status {
        let next = match self.whose {
            Whose::Admin => {
                "the context file that `gantry dev` leaves has the right one, or name it with --token-file"
            }
            Whose::Node => "give the data plane the node token of this control plane",
            Whose::Peer => "start every member of the cluster with the same peer token",
        };
        Status::unauthenticated(format!("{what}; {next}"))
    }
}

impl TokenCheck {
    /// The token that a call shows.
    fn shown<'h>(&self, headers: &'h HeaderMap) -> Result<&'h str, Status> {
        let mut values = headers.get_all("authorization").iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(self.refused("the call carries no token"));
        };
        let token = value.to_str().ok().and_then(bearer_token);
        token.ok_or_else(|| self.refused("the call's authorization is not `Bearer TOKEN`"))
    }

    fn check(&self, token: &str) -> Result<(), Status> {
        verify_slices_are_equal(&sha256(token.as_bytes()), self.digest.expose()).map_err(|_| self.wrong())
    }

    fn wrong(&self) -> Status {
        self.refused("the call's token is not the right one")
    }
}

impl Interceptor for TokenCheck {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.check(self.shown(request.metadata().as_ref())?)?;
        Ok(request)
    }
}

/// How a node proves itself.
#[derive(Debug, Clone)]
pub(crate) enum NodeCheck {
    /// With the token that all nodes share; there is no TLS.
    Token(TokenCheck),
    /// With its certificate.
    Certificate,
}

/// The name and the labels that the certificate of a node gives it; there are none where nodes have tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertifiedNode(pub(crate) Name, pub(crate) Labels);

impl Interceptor for NodeCheck {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let NodeCheck::Token(token) = self {
            return token.call(request);
        }
        let peer = request.extensions().get::<Caller>().and_then(|caller| caller.peer.as_ref());
        let node = match peer.map(|peer| (&peer.name.party, &peer.labels)) {
            Some((Party::Node(name), labels)) => CertifiedNode(name.clone(), labels.clone()),
            Some((Party::ControlPlane(_) | Party::Admin(_), _)) => {
                return Err(Status::permission_denied("only nodes follow this stream, and this is none"));
            }
            None => {
                return Err(Status::unauthenticated(
                    "a node shows its certificate; give it a join token of `gantry cluster token --role node`",
                ));
            }
        };
        request.extensions_mut().insert(node);
        Ok(request)
    }
}

/// How a member proves itself to another.
#[derive(Debug, Clone)]
pub(crate) enum MemberCheck {
    /// With the token that all members share; there is no TLS.
    Token(TokenCheck),
    /// With its certificate, without which its handshake was refused.
    Certificate,
}

/// The number that the certificate of a member gives it; there is none where members have a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CertifiedMember(pub(crate) MemberId);

impl Interceptor for MemberCheck {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let MemberCheck::Token(token) = self {
            return token.call(request);
        }
        let peer = request.extensions().get::<Caller>().and_then(|caller| caller.peer.as_ref());
        let Some(Party::ControlPlane(member)) = peer.map(|peer| &peer.name.party) else {
            return Err(Status::unauthenticated("only members of the control plane are heard here"));
        };
        let member = CertifiedMember(*member);
        request.extensions_mut().insert(member);
        Ok(request)
    }
}

fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

/// What is stored of a token.
pub(crate) fn sha256(secret: &[u8]) -> [u8; SHA256_OUTPUT_LEN] {
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(digest::digest(&SHA256, secret).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn call(authorization: &[&str]) -> Result<(), (Code, String)> {
        let mut check = TokenCheck::new(Whose::Admin, &Secret::new("right".to_owned()));
        let mut request = Request::new(());
        for value in authorization {
            request.metadata_mut().append("authorization", value.parse().expect("ascii"));
        }
        check.call(request).map(|_| ()).map_err(|status| (status.code(), status.message().to_owned()))
    }

    #[test]
    fn a_call_with_the_token_passes_and_every_other_is_refused() {
        assert_eq!(call(&["Bearer right"]), Ok(()));
        assert_eq!(call(&["bearer right"]), Ok(()));
        let refused = |what: &str| {
            let next =
                "the context file that `gantry dev` leaves has the right one, or name it with --token-file";
            Err((Code::Unauthenticated, format!("{what}; {next}")))
        };
        assert_eq!(call(&[]), refused("the call carries no token"));
        assert_eq!(call(&["Bearer right", "Bearer right"]), refused("the call carries no token"));
        assert_eq!(call(&["right"]), refused("the call's authorization is not `Bearer TOKEN`"));
        assert_eq!(call(&["Basic right"]), refused("the call's authorization is not `Bearer TOKEN`"));
        for wrong in ["Bearer wrong", "Bearer righ", "Bearer rightt", "Bearer "] {
            assert_eq!(call(&[wrong]), refused("the call's token is not the right one"), "{wrong}");
        }
    }
}
