//! A node's place in the mesh, as it says itself.
//!
//! Always holds: the address is one that can be connected to and the fingerprint has the right length, so that every
//! node can read what it is told of the others. Whether the node is there is for its peers to find out.

use std::net::SocketAddr;

use gantry_wire::sync_v1::Mesh;

/// Longest incarnation in bytes; a node's has 16.
const INCARNATION_BYTES_MAX: usize = 64;
/// Bytes of a fingerprint: SHA-256.
const FINGERPRINT_BYTES: usize = 32;

/// Where peers find a node, and by what they know that it is the one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    incarnation: String,
    address: SocketAddr,
    fingerprint: [u8; FINGERPRINT_BYTES],
}

/// No peer could use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("a node's mesh address is an IP address and a port")]
    Address,
    #[error("the fingerprint of a node's certificate has {FINGERPRINT_BYTES} bytes")]
    Fingerprint,
    #[error("a node's incarnation has at most {INCARNATION_BYTES_MAX} bytes")]
    Incarnation,
}

impl Place {
    /// Reads what a node says of itself.
    pub(crate) fn read(incarnation: &str, mesh: &Mesh) -> Result<Place, PlaceError> {
        let address: SocketAddr = mesh.address.parse().map_err(|_| PlaceError::Address)?;
        if address.ip().is_unspecified() || address.port() == 0 {
            return Err(PlaceError::Address);
        }
        if incarnation.len() > INCARNATION_BYTES_MAX {
            return Err(PlaceError::Incarnation);
        }
        let fingerprint = mesh.certificate_fingerprint.as_slice().try_into();
        let fingerprint = fingerprint.map_err(|_| PlaceError::Fingerprint)?;
        Ok(Place { incarnation: incarnation.to_owned(), address, fingerprint })
    }

    /// Differs at each start of the node's process.
    pub(crate) fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// As others are told of it.
    pub(crate) fn to_wire(&self) -> Mesh {
        Mesh { address: self.address.to_string(), certificate_fingerprint: self.fingerprint.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_peers_can_use_is_a_place() {
        let mesh = |address: &str, bytes| Mesh {
            address: address.to_owned(),
            certificate_fingerprint: vec![7; bytes],
        };
        let good = mesh("192.0.2.1:7000", 32);
        assert_eq!(Place::read("one", &good).map(|place| place.to_wire()), Ok(good.clone()));
        for address in ["", "node.example:7000", "192.0.2.1", "192.0.2.1:0", "0.0.0.0:7000", "[::]:7000"] {
            assert_eq!(Place::read("one", &mesh(address, 32)), Err(PlaceError::Address), "{address}");
        }
        assert_eq!(Place::read("one", &mesh("192.0.2.1:7000", 31)), Err(PlaceError::Fingerprint));
        assert_eq!(Place::read(&"x".repeat(65), &good), Err(PlaceError::Incarnation));
    }
}
