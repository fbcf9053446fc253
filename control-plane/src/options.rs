//! What a control plane is started with.
//!
//! Always holds: options that pass [`Options::check`] do not offer the services to other machines without TLS, and do
//! not make a node an admin.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use gantry_model::Secret;
use gantry_model::identity::{MemberId, Party, PeerName};
use gantry_node::membership::Membership;

use crate::access::TOKEN_BYTES_MIN;
use crate::ca::LEAF_LIFE;
use crate::raft::VoterId;
use crate::transport::Transport;

/// How long a certificate of the built-in authority counts, unless it is told otherwise.
pub const CERTIFICATE_LIFE_MAX: Duration = LEAF_LIFE;
/// Shortest life of a certificate: what is left of it when it is due to be renewed has to outlast an election and a
/// second try.
pub const CERTIFICATE_LIFE_MIN: Duration = Duration::from_secs(30);

/// What a control plane is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything durable lies. Made, for its owner only, when it is not there.
    pub data_dir: PathBuf,
    /// Where the services listen: without TLS loopback only. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// How they are reached, and how nodes prove themselves.
    pub transport: Transport,
    /// What admins prove themselves with; at least [`TOKEN_BYTES_MIN`] bytes.
    pub admin_token: Secret<String>,
    /// How long the certificates count that it signs, its own among them: from [`CERTIFICATE_LIFE_MIN`] to
    /// [`CERTIFICATE_LIFE_MAX`]. Clocks of the cluster must not be apart by more than a tenth of it, or five minutes.
    pub certificate_life: Duration,
    /// This process as one of several members; `None`: it is the only one there can be.
    pub member: Option<MemberOptions>,
}

/// A process as a member of a cluster of several.
#[derive(Debug, Clone)]
pub struct MemberOptions {
    /// Its id: never another process's, nor another directory's.
    pub voter: VoterId,
    /// Where the other members are heard: without certificates loopback only. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// `HOST:PORT` at which they reach it, where port 0 stands for the port that it listens on; `None`: where it
    /// listens.
    pub advertise: Option<String>,
    /// How members prove themselves to each other.
    pub proof: MemberProof,
    /// Addresses of members of the cluster that it joins when its directory is new. Without any, and without a
    /// certificate, it makes the cluster.
    pub join: Vec<String>,
}

/// How members prove themselves to each other.
#[derive(Debug, Clone)]
pub enum MemberProof {
    /// With a token of at least [`TOKEN_BYTES_MIN`] bytes, unlike the other tokens, in the clear.
    Token(Secret<String>),
    /// With certificates of the cluster, over TLS.
    Certificate(Membership),
}

/// Options that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// The address can be reached from other machines.
    #[error(
        "{0} can be reached from other machines, and this control plane runs without TLS; listen on 127.0.0.1"
    )]
    NotLoopback(SocketAddr),
    /// A token can be guessed.
    #[error("the {whose} token has {bytes} bytes; it needs at least {TOKEN_BYTES_MIN}")]
    TokenTooShort {
        /// `admin`, `node` or `peer`.
        whose: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A token has characters that cannot be sent.
    #[error("the {whose} token has characters other than visible ASCII")]
    TokenCharacters {
        /// `admin`, `node` or `peer`.
        whose: &'static str,
    },
    /// Nodes would be heard in the clear and members by TLS, or the other way round.
    #[error(
        "members prove themselves with certificates where there is TLS, and with a token where there is none"
    )]
    MixedProof,
    /// Certificates would count for too short or too long.
    #[error(
        "certificates can count for {} s to {} s, not for {} s",
        CERTIFICATE_LIFE_MIN.as_secs(),
        CERTIFICATE_LIFE_MAX.as_secs(),
        .0.as_secs()
    )]
    CertificateLife(Duration),
    /// The certificate is another member's.
    #[error("the certificate is that of {0}, not of this member")]
    OtherCertificate(PeerName),
    /// Whoever has one could act as the other.
    #[error("two of the tokens of admins, nodes and members are the same")]
    SameTokens,
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        if !(CERTIFICATE_LIFE_MIN..=CERTIFICATE_LIFE_MAX).contains(&self.certificate_life) {
            return Err(OptionsError::CertificateLife(self.certificate_life));
        }
        let mut tokens = vec![("admin", &self.admin_token)];
        let mut plain = Vec::new();
        if let Transport::Plain { node_token } = &self.transport {
            tokens.push(("node", node_token));
            plain.push(self.listen);
        }
        match (&self.transport, self.member.as_ref().map(|member| (member, &member.proof))) {
            (Transport::Plain { .. }, Some((member, MemberProof::Token(token)))) => {
                tokens.push(("peer", token));
                plain.push(member.listen);
            }
            (Transport::Tls, Some((member, MemberProof::Certificate(own)))) => {
                let number = MemberId::new(member.voter.0).map(Party::ControlPlane);
                if number.as_ref() != Some(&own.name().party) {
                    return Err(OptionsError::OtherCertificate(own.name().clone()));
                }
            }
            (_, None) => {}
            (_, Some(_)) => return Err(OptionsError::MixedProof),
        }
        if let Some(open) = plain.into_iter().find(|listen| !listen.ip().is_loopback()) {
            return Err(OptionsError::NotLoopback(open));
        }
        for (index, (whose, token)) in tokens.iter().enumerate() {
            let token = token.expose();
            if token.len() < TOKEN_BYTES_MIN {
                return Err(OptionsError::TokenTooShort { whose, bytes: token.len() });
            }
            if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(OptionsError::TokenCharacters { whose });
            }
            if tokens[..index].iter().any(|(_, other)| other.expose() == token) {
                return Err(OptionsError::SameTokens);
            }
        }
        Ok(())
    }
}

impl MemberOptions {
    /// What it began with, where members have certificates.
    pub(crate) fn certificate(&self) -> Option<&Membership> {
        match &self.proof {
            MemberProof::Token(_) => None,
            MemberProof::Certificate(own) => Some(own),
        }
    }

    /// Whether it makes the cluster when its directory is new. One with a certificate is of a cluster already.
    pub(crate) fn is_founder(&self) -> bool {
        matches!(self.proof, MemberProof::Token(_)) && self.join.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_open_the_door_are_refused() {
        let options = |listen: &str, admin: &str, node: &str| Options {
            data_dir: PathBuf::new(),
            listen: listen.parse().expect("an address"),
            transport: Transport::Plain { node_token: Secret::new(node.to_owned()) },
            admin_token: Secret::new(admin.to_owned()),
            certificate_life: CERTIFICATE_LIFE_MAX,
            member: None,
        };
        let (one, two) = ("1".repeat(32), "2".repeat(32));
        assert_eq!(options("127.0.0.1:0", &one, &two).check(), Ok(()));
        assert_eq!(options("[::1]:0", &one, &two).check(), Ok(()));
        let everywhere = options("0.0.0.0:8081", &one, &two).check();
        assert_eq!(everywhere, Err(OptionsError::NotLoopback(([0, 0, 0, 0], 8081).into())));
        let secured = Options { transport: Transport::Tls, ..options("0.0.0.0:8081", &one, &two) };
        assert_eq!(secured.check(), Ok(()));
        for seconds in [29, 86_401] {
            let life = Duration::from_secs(seconds);
            let refused = Options { certificate_life: life, ..secured.clone() }.check();
            assert_eq!(refused, Err(OptionsError::CertificateLife(life)));
        }
        assert_eq!(options("127.0.0.1:0", &one, &one).check(), Err(OptionsError::SameTokens));
        let short = options("127.0.0.1:0", &one, "short").check();
        assert_eq!(short, Err(OptionsError::TokenTooShort { whose: "node", bytes: 5 }));
        let member = |listen: &str, token: &str| Options {
            member: Some(MemberOptions {
                voter: VoterId(1),
                listen: listen.parse().expect("an address"),
                advertise: None,
                proof: MemberProof::Token(Secret::new(token.to_owned())),
                join: Vec::new(),
            }),
            ..options("127.0.0.1:0", &one, &two)
        };
        let mixed = Options { transport: Transport::Tls, ..member("127.0.0.1:0", &"3".repeat(32)) };
        assert_eq!(mixed.check(), Err(OptionsError::MixedProof));
        assert_eq!(member("127.0.0.1:0", &"3".repeat(32)).check(), Ok(()));
        assert_eq!(member("127.0.0.1:0", &two).check(), Err(OptionsError::SameTokens));
        let everywhere = member("0.0.0.0:8082", &"3".repeat(32)).check();
        assert_eq!(everywhere, Err(OptionsError::NotLoopback(([0, 0, 0, 0], 8082).into())));
        let spaced = options("127.0.0.1:0", &"a b".repeat(20), &two).check();
        assert_eq!(spaced, Err(OptionsError::TokenCharacters { whose: "admin" }));
    }
}
