//! An authority for tests, and what it signs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_model::Secret;
use gantry_node::identity::{ClusterId, MemberId, PeerName};
use gantry_node::tls::{Certified, Presenter, Trust};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::CertificateDer;

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// When a certificate counts, in seconds from now.
pub(crate) struct Life(pub(crate) i64, pub(crate) i64);

pub(crate) const DAY: Life = Life(-60, 86_400);

impl Authority {
    pub(crate) fn new() -> Authority {
        Authority::named("ours")
    }

    pub(crate) fn named(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA"))
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn trust(&self) -> Arc<Trust> {
        Trust::new(&[self.certificate()]).expect("an authority")
    }

    /// A certificate with its key, as PEM, even where [`Certified`] takes neither.
    pub(crate) fn sign(&self, names: &[String], life: &Life) -> (String, Secret<Vec<u8>>) {
        let params = leaf(names, life);
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.0).expect("a certificate");
        (leaf.pem(), Secret::new(key.serialize_pem().into_bytes()))
    }

    /// A certificate for who asks.
    pub(crate) fn sign_request(
        &self,
        request: &[u8],
        name: &PeerName,
        life: &Life,
    ) -> CertificateDer<'static> {
        let request = CertificateSigningRequestParams::from_der(&request.into()).expect("a request");
        let leaf = leaf(&[name.to_string()], life).signed_by(&request.public_key, &self.0);
        leaf.expect("a certificate").der().clone()
    }

    pub(crate) fn certify(&self, names: &[String], life: &Life) -> Certified {
        self.certify_beside(self, names, life)
    }

    /// The chain shows `shown` as the authority.
    pub(crate) fn certify_beside(&self, shown: &Authority, names: &[String], life: &Life) -> Certified {
        let (leaf, key) = self.sign(names, life);
        Certified::from_pem((leaf + &shown.0.pem()).as_bytes(), &key).expect("a pair")
    }

    pub(crate) fn presenter(&self, name: &PeerName) -> Arc<Presenter> {
        Presenter::new(self.certify(&[name.to_string()], &DAY))
    }
}

fn leaf(names: &[String], life: &Life) -> CertificateParams {
    let at = |seconds: i64| {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        let now = SystemTime::now();
        if seconds < 0 { now - distance } else { now + distance }
    };
    let uri = |name: &String| SanType::URI(name.as_str().try_into().expect("ASCII"));
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.iter().map(uri).collect();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (at(life.0).into(), at(life.1).into());
    params
}

pub(crate) fn cluster(name: &str) -> ClusterId {
    name.parse().expect("a name")
}

pub(crate) fn member(number: u64) -> PeerName {
    PeerName::control_plane(cluster("here"), MemberId::new(number).expect("not 0"))
}

pub(crate) fn node(name: &str) -> PeerName {
    PeerName::node(cluster("here"), name.parse().expect("a name"))
}
