//! What a control plane is started with.
//!
//! Always holds: options that pass [`Options::check`] do not offer the services to other machines without TLS, and do
//! not make a node an admin.

use std::net::SocketAddr;
use std::path::PathBuf;

use gantry_model::Secret;

use crate::access::TOKEN_BYTES_MIN;
use crate::raft::VoterId;
use crate::transport::Transport;

/// What a control plane is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything durable lies. Made, for its owner only, when it is not there.
    pub data_dir: PathBuf,
    /// Where the services listen: without TLS loopback only. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// How they are reached.
    pub transport: Transport,
    /// What admins prove themselves with; at least [`TOKEN_BYTES_MIN`] bytes.
    pub admin_token: Secret<String>,
    /// What nodes prove themselves with; at least [`TOKEN_BYTES_MIN`] bytes, and another one.
    pub node_token: Secret<String>,
    /// This process as one of several members; `None`: it is the only one there can be.
    pub member: Option<MemberOptions>,
}

/// A process as a member of a cluster of several.
#[derive(Debug, Clone)]
pub struct MemberOptions {
    /// Its id: never another process's, nor another directory's.
    pub voter: VoterId,
    /// Where the other members are heard: loopback only. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// What members prove themselves to each other with; at least [`TOKEN_BYTES_MIN`] bytes, and another one.
    pub token: Secret<String>,
    /// The address of a member of the cluster that it joins when its directory is new; `None`: it makes the cluster.
    pub join: Option<String>,
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
    /// Whoever has one could act as the other.
    #[error("two of the tokens of admins, nodes and members are the same")]
    SameTokens,
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        let mut tokens = vec![("admin", &self.admin_token), ("node", &self.node_token)];
        tokens.extend(self.member.as_ref().map(|member| ("peer", &member.token)));
        let member = self.member.as_ref().map(|member| member.listen);
        // The members of a cluster speak in the clear.
        let plain = (self.transport == Transport::Plain).then_some(self.listen).into_iter().chain(member);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_open_the_door_are_refused() {
        let options = |listen: &str, admin: &str, node: &str| Options {
            data_dir: PathBuf::new(),
            listen: listen.parse().expect("an address"),
            transport: Transport::Plain,
            admin_token: Secret::new(admin.to_owned()),
            node_token: Secret::new(node.to_owned()),
            member: None,
        };
        let (one, two) = ("1".repeat(32), "2".repeat(32));
        assert_eq!(options("127.0.0.1:0", &one, &two).check(), Ok(()));
        assert_eq!(options("[::1]:0", &one, &two).check(), Ok(()));
        let everywhere = options("0.0.0.0:8081", &one, &two).check();
        assert_eq!(everywhere, Err(OptionsError::NotLoopback(([0, 0, 0, 0], 8081).into())));
        let secured = Options { transport: Transport::Tls, ..options("0.0.0.0:8081", &one, &two) };
        assert_eq!(secured.check(), Ok(()));
        assert_eq!(options("127.0.0.1:0", &one, &one).check(), Err(OptionsError::SameTokens));
        let short = options("127.0.0.1:0", &one, "short").check();
        assert_eq!(short, Err(OptionsError::TokenTooShort { whose: "node", bytes: 5 }));
        let member = |listen: &str, token: &str| Options {
            member: Some(MemberOptions {
                voter: VoterId(1),
                listen: listen.parse().expect("an address"),
                token: Secret::new(token.to_owned()),
                join: None,
            }),
            ..options("127.0.0.1:0", &one, &two)
        };
        assert_eq!(member("127.0.0.1:0", &"3".repeat(32)).check(), Ok(()));
        assert_eq!(member("127.0.0.1:0", &two).check(), Err(OptionsError::SameTokens));
        let everywhere = member("0.0.0.0:8082", &"3".repeat(32)).check();
        assert_eq!(everywhere, Err(OptionsError::NotLoopback(([0, 0, 0, 0], 8082).into())));
        let spaced = options("127.0.0.1:0", &"a b".repeat(20), &two).check();
        assert_eq!(spaced, Err(OptionsError::TokenCharacters { whose: "admin" }));
    }
}
