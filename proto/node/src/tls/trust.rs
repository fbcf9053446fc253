//! Whom a process believes: the authorities, and what they took back.
//!
//! Always holds: both can be replaced while the process runs, and count from the next handshake on; what is revoked
//! ends on live connections too, see [`super::Guarded`].

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use gantry_model::enrolment::{Revocation, Revoked};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;

use super::peer::Peer;
use crate::identity::{PeerName, Serial};

/// Authorities in a bundle: the one in use, the next, and the like of a few merged organisations.
pub const AUTHORITIES_MAX: usize = 16;

/// Whom a process believes.
#[derive(Debug)]
pub struct Trust {
    anchors: ArcSwap<Anchors>,
    revoked: watch::Sender<Arc<Revocations>>,
}

/// SHA-256 of an authority's certificate: what a joiner knows of it before it has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// What is revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    /// No certificate of this name counts that ends at or before this time, in milliseconds since 1970: those were
    /// issued before the revocation. So a name can be enrolled anew.
    pub names: HashMap<PeerName, u64>,
    /// These certificates do not count. The time is when they have ended anyway.
    pub serials: HashMap<Serial, u64>,
}

/// Why authorities cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Nobody would be believed.
    #[error("there is no authority in the bundle")]
    Empty,
    /// Too many to go through at each handshake.
    #[error("there are {0} authorities in the bundle, {AUTHORITIES_MAX} are the most")]
    TooMany(usize),
    /// One of them is no certificate of an authority.
    #[error("an authority's certificate cannot be used")]
    Unusable(#[source] rustls::Error),
    /// They make no verifier.
    #[error("the authorities cannot be used")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

#[derive(Debug)]
pub(super) enum Anchors {
    Known { roots: Arc<RootCertStore>, clients: Arc<dyn ClientCertVerifier> },
    Pinned(Fingerprint),
}

impl Trust {
    /// Believes what these authorities sign.
    pub fn new(authorities: &[CertificateDer<'_>]) -> Result<Arc<Trust>, TrustError> {
        Ok(Trust::of(known(authorities)?))
    }

    /// Believes a server that shows the certificate of the authority with this fingerprint, signed by that; believes
    /// no client. This is how a joiner sees its cluster for the first time.
    pub fn pinned(fingerprint: Fingerprint) -> Arc<Trust> {
        Trust::of(Anchors::Pinned(fingerprint))
    }

    fn of(anchors: Anchors) -> Arc<Trust> {
        Arc::new(Trust { anchors: ArcSwap::from_pointee(anchors), revoked: watch::Sender::default() })
    }

    /// Believes these authorities instead, from the next handshake on.
    pub fn replace_authorities(&self, authorities: &[CertificateDer<'_>]) -> Result<(), TrustError> {
        self.anchors.store(Arc::new(known(authorities)?));
        Ok(())
    }

    /// Believes nothing of this from now on, on live connections neither; and again what is not in it any more.
    pub fn replace_revocations(&self, revoked: Revocations) {
        self.revoked.send_replace(Arc::new(revoked));
    }

    /// What is revoked now, and each time that it is replaced.
    pub fn revocations(&self) -> watch::Receiver<Arc<Revocations>> {
        self.revoked.subscribe()
    }

    /// Whether this certificate was taken back.
    pub fn has_revoked(&self, peer: &Peer) -> bool {
        self.revoked.borrow().cover(peer)
    }

    /// Waits until a certificate is taken back. Dropping the future is safe.
    pub async fn revokes(&self, peer: &Peer) {
        let mut revoked = self.revoked.subscribe();
        // The sender lives as long as `self`.
        let _ = revoked.wait_for(|revoked| revoked.cover(peer)).await;
    }

    pub(super) fn anchors(&self) -> Arc<Anchors> {
        self.anchors.load_full()
    }
}

impl Revocations {
    /// Whether this certificate is among them.
    pub fn cover(&self, peer: &Peer) -> bool {
        self.serials.contains_key(&peer.serial)
            || self.names.get(&peer.name).is_some_and(|until_ms| peer.expires_at_ms <= *until_ms)
    }

    /// Adds more. Of two for one name or certificate the longer counts.
    pub fn extend(&mut self, more: impl IntoIterator<Item = Revocation>) {
        for Revocation { subject, until_ms } in more {
            let until = match subject {
                Revoked::Name(name) => self.names.entry(name).or_default(),
                Revoked::Serial(serial) => self.serials.entry(serial).or_default(),
            };
            *until = until_ms.max(*until);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.names.len() + self.serials.len()
    }

    /// Whether all that this one means is among them.
    pub fn have(&self, revocation: &Revocation) -> bool {
        let until_ms = match &revocation.subject {
            Revoked::Name(name) => self.names.get(name),
            Revoked::Serial(serial) => self.serials.get(serial),
        };
        until_ms.is_some_and(|until_ms| *until_ms >= revocation.until_ms)
    }

    /// Forgets what is past: every certificate that it meant has ended.
    pub fn forget(&mut self, now_ms: u64) {
        self.names.retain(|_, until_ms| *until_ms > now_ms);
        self.serials.retain(|_, until_ms| *until_ms > now_ms);
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = Revocation> {
        let names = self.names.iter().map(|(name, until_ms)| (Revoked::Name(name.clone()), *until_ms));
        let serials = self.serials.iter().map(|(serial, until)| (Revoked::Serial(serial.clone()), *until));
        names.chain(serials).map(|(subject, until_ms)| Revocation { subject, until_ms })
    }
}

impl Fingerprint {
    /// That of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
        Fingerprint(bytes)
    }
}

fn known(authorities: &[CertificateDer<'_>]) -> Result<Anchors, TrustError> {
    match authorities.len() {
        0 => return Err(TrustError::Empty),
        1..=AUTHORITIES_MAX => {}
        count => return Err(TrustError::TooMany(count)),
    }
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone().into_owned()).map_err(TrustError::Unusable)?;
    }
    let roots = Arc::new(roots);
    let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), super::provider())
        .build()
        .map_err(TrustError::Verifier)?;
    Ok(Anchors::Known { roots, clients })
}
