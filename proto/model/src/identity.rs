//! Who a process is: the name that its certificate carries.
//!
//! Always holds: one certificate carries one name, `gantry://CLUSTER/control-plane/ID`, `gantry://CLUSTER/node/NAME`
//! or `gantry://CLUSTER/admin/NAME`; a text that parses prints as itself, so two names are the same where their
//! texts are. Addresses are no part of a name: a process may move.
//!
//! Whether a name is to be believed is decided where TLS is (`gantry_node::tls`).

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::Arc;

use crate::name::{Name, NameError};

const SCHEME: &str = "gantry://";

/// Which cluster. Random, made when the cluster is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(Name);

/// Which process of the control plane. Never used again once its owner is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(NonZeroU64);

/// What somebody is within a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// A process of the control plane.
    ControlPlane(MemberId),
    /// A node of the data plane.
    Node(Name),
    /// A person, or what acts for one.
    Admin(Name),
}

/// The name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName {
    /// Where it counts.
    pub cluster: ClusterId,
    /// What it names there.
    pub party: Party,
}

/// The number of a certificate, unique for its authority. Without leading zeros.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Arc<[u8]>);

/// Why a text is not the name of a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerNameError {
    /// It is something else.
    #[error("not of the form {SCHEME}CLUSTER/control-plane|node|admin/NAME")]
    Form,
    /// A part of it is no name.
    #[error("the {part} is no name")]
    Part {
        /// Which part.
        part: &'static str,
        /// Why.
        #[source]
        source: NameError,
    },
    /// The number of a member is a positive number without leading zeros.
    #[error("{0:?} is no member's number")]
    Member(String),
}

impl ClusterId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for ClusterId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<ClusterId, NameError> {
        text.parse().map(ClusterId)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl MemberId {
    /// `None` for 0, which is no member.
    pub fn new(number: u64) -> Option<MemberId> {
        NonZeroU64::new(number).map(MemberId)
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for MemberId {
    type Err = PeerNameError;

    fn from_str(text: &str) -> Result<MemberId, PeerNameError> {
        let number = text.parse().ok().map(MemberId);
        // `+1` and `01` are numbers too, and would be further spellings of one name.
        let spelled_so = number.filter(|number| number.to_string() == text);
        spelled_so.ok_or_else(|| PeerNameError::Member(text.to_owned()))
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Party {
    /// Whether it is a process of the control plane.
    pub fn is_control_plane(&self) -> bool {
        matches!(self, Party::ControlPlane(_))
    }
}

impl PeerName {
    /// Names a process of the control plane.
    pub fn control_plane(cluster: ClusterId, member: MemberId) -> PeerName {
        PeerName { cluster, party: Party::ControlPlane(member) }
    }

    /// Names a node.
    pub fn node(cluster: ClusterId, name: Name) -> PeerName {
        PeerName { cluster, party: Party::Node(name) }
    }

    /// Names an admin.
    pub fn admin(cluster: ClusterId, name: Name) -> PeerName {
        PeerName { cluster, party: Party::Admin(name) }
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cluster = &self.cluster;
        match &self.party {
            Party::ControlPlane(member) => write!(formatter, "{SCHEME}{cluster}/control-plane/{member}"),
            Party::Node(name) => write!(formatter, "{SCHEME}{cluster}/node/{name}"),
            Party::Admin(name) => write!(formatter, "{SCHEME}{cluster}/admin/{name}"),
        }
    }
}

impl FromStr for PeerName {
    type Err = PeerNameError;

    fn from_str(text: &str) -> Result<PeerName, PeerNameError> {
        let mut parts = text.strip_prefix(SCHEME).ok_or(PeerNameError::Form)?.splitn(3, '/');
        let mut part = || parts.next().ok_or(PeerNameError::Form);
        let (cluster, role, name) = (part()?, part()?, part()?);
        let cluster = cluster.parse().map_err(|source| PeerNameError::Part { part: "cluster", source })?;
        let named = |name: &str| name.parse().map_err(|source| PeerNameError::Part { part: "name", source });
        let party = match role {
            "control-plane" => Party::ControlPlane(name.parse()?),
            "node" => Party::Node(named(name)?),
            "admin" => Party::Admin(named(name)?),
            _ => return Err(PeerNameError::Form),
        };
        Ok(PeerName { cluster, party })
    }
}

impl Serial {
    /// Takes a number, most significant byte first.
    pub fn new(bytes: &[u8]) -> Serial {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Serial(Arc::from(&bytes[zeros..]))
    }

    /// The number, most significant byte first, without leading zeros.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Serial({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = Name> {
        "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?".prop_map(|text| text.parse().expect("a name"))
    }

    fn party() -> impl Strategy<Value = Party> {
        prop_oneof![
            (1..=u64::MAX).prop_map(|number| Party::ControlPlane(MemberId::new(number).expect("not 0"))),
            name().prop_map(Party::Node),
            name().prop_map(Party::Admin),
        ]
    }

    proptest! {
        #[test]
        fn a_name_is_read_as_it_was_printed(cluster in name(), party in party()) {
            let name = PeerName { cluster: ClusterId(cluster), party };
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }

        #[test]
        fn a_text_that_is_a_name_has_no_second_spelling(
            text in "(gantry://)?[a-z0-9+/ -]{0,12}/(node|admin|control-plane|Node)/[a-z0-9+/ -]{0,8}",
        ) {
            if let Ok(name) = text.parse::<PeerName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        let read = |text: &str| text.parse::<PeerName>().err();
        let member = |text: &str| Some(PeerNameError::Member(text.to_owned()));
        assert_eq!(read("gantry://c/control-plane/0"), member("0"));
        assert_eq!(read("gantry://c/control-plane/+1"), member("+1"));
        assert_eq!(read("gantry://c/control-plane/01"), member("01"));
        assert_eq!(read("gantry://c/control-plane/18446744073709551616"), member("18446744073709551616"));
        for text in ["", "gantry://c/node", "https://c/node/a", "gantry://c/voter/1", "Gantry://c/node/a"] {
            assert_eq!(read(text), Some(PeerNameError::Form), "{text}");
        }
        let part = |part, source| Some(PeerNameError::Part { part, source });
        assert_eq!(read("gantry:///node/a"), part("cluster", NameError::Empty));
        assert_eq!(read("gantry://c/node/a/b"), part("name", NameError::Character { character: '/' }));
        assert_eq!(read("gantry://c/admin/"), part("name", NameError::Empty));
    }
}
