//! Who calls by the certificate that a connection began with: the authorities of a tenant, and what they make of it.
//!
//! Always holds: the handshake proved that the client has the key; who vouches for the certificate is asked for each tenant
//! by itself, and again after [`ASKED_AGAIN_SECONDS`], so that one that has ended, and authorities that changed, count at
//! once on connections that live. A certificate has one name that counts. Only that of the connection itself is looked at:
//! headers by which a balancer says what it saw (`X-Forwarded-Client-Cert`) are anybody's to write.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_model::ProviderName;
use gantry_model::resource::{AuthoritySpec, ClientName, ProviderSpec, SUBJECT_BYTES_MAX};
use gantry_node::tls::{ClientAuthorities, ClientCertificateError, ClientNames};
use gantry_token::Thumbprint;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::Identity;

/// How long it is known what an authority makes of a connection's certificate, in seconds.
const ASKED_AGAIN_SECONDS: u64 = 10;
/// Authorities whose word on one connection is remembered: those of one tenant.
const KNOWN_MAX: usize = gantry_model::resource::PROVIDERS_MAX;

/// A provider of certificates, ready for connections.
pub(crate) struct Authority {
    pub(crate) name: ProviderName,
    spec: AuthoritySpec,
    /// `None`: nobody can be believed, which the log says.
    authorities: Option<ClientAuthorities>,
}

/// The certificates that a client showed, its own first. Everything asked of them is remembered for a while.
pub(crate) struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    thumbprint: OnceLock<Thumbprint>,
    known: Mutex<Vec<Known>>,
}

struct Known {
    authority: Weak<Authority>,
    made: Result<Arc<Identity>, CertificateError>,
    /// In seconds since 1970.
    until: u64,
}

/// Why a certificate does not say who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CertificateError {
    /// Nobody vouches for it.
    #[error(transparent)]
    Unverified(#[from] ClientCertificateError),
    /// It is nobody's, or several clients'.
    #[error(
        "the client's certificate has not just one name of the kind that counts here (`client_name`), in at most {SUBJECT_BYTES_MAX} bytes"
    )]
    Name,
    /// It is of somebody else's workloads.
    #[error("the client's certificate is not of the trust domain that counts here")]
    TrustDomain,
}

impl CertificateError {
    /// Whether it is said of certificates that an authority of the endpoint signed, and of no others.
    pub(crate) fn is_of_known(&self) -> bool {
        match self {
            CertificateError::Unverified(error) => error.is_of_known(),
            CertificateError::Name | CertificateError::TrustDomain => true,
        }
    }
}

impl Authority {
    fn compile(name: &ProviderName, spec: &AuthoritySpec) -> Authority {
        let authorities = ClientAuthorities::parse(&spec.client_authorities).map_err(|error| {
            tracing::error!(provider = %name, %error, "no certificate of a provider can be taken");
        });
        Authority { name: name.clone(), spec: spec.clone(), authorities: authorities.ok() }
    }

    /// Those of a tenant, by name; the ones that did not change are taken over.
    pub(crate) fn all(
        specs: &[(ProviderName, ProviderSpec)],
        before: &[Arc<Authority>],
    ) -> Vec<Arc<Authority>> {
        let build = |(name, spec): &(ProviderName, ProviderSpec)| {
            let ProviderSpec::Authority(spec) = spec else { return None };
            let kept = before.iter().find(|kept| kept.name == *name && kept.spec == *spec).cloned();
            Some(kept.unwrap_or_else(|| Arc::new(Authority::compile(name, spec))))
        };
        let mut all: Vec<_> = specs.iter().filter_map(build).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    fn identify(&self, chain: &[CertificateDer<'_>], now: u64) -> Result<Identity, CertificateError> {
        let authorities = self.authorities.as_ref().ok_or(ClientCertificateError::UnknownIssuer)?;
        authorities.verify(chain, UnixTime::since_unix_epoch(Duration::from_secs(now)))?;
        let leaf = chain.first().ok_or(ClientCertificateError::Unreadable)?;
        let names = ClientNames::read(leaf)?;
        let of_kind = match self.spec.client_name {
            ClientName::Uri => &names.uris[..],
            ClientName::Dns => &names.dns[..],
            ClientName::Email => &names.emails[..],
            ClientName::Subject => names.subject.as_slice(),
        };
        let [client] = of_kind else { return Err(CertificateError::Name) };
        if !(1..=SUBJECT_BYTES_MAX).contains(&client.len()) || client.chars().any(char::is_control) {
            return Err(CertificateError::Name);
        }
        if !self.spec.is_of_trust_domain(client) {
            return Err(CertificateError::TrustDomain);
        }
        Ok(Identity {
            provider: self.name.clone(),
            client: client.clone(),
            user: None,
            actors: Vec::new(),
            groups: Default::default(),
            scopes: Default::default(),
            tags: Default::default(),
            ends_at: names.ends_at.saturating_add(1),
            bound_to: None,
            told: Default::default(),
        })
    }
}

impl ClientCertificate {
    /// What a handshake ended with; `None`: the client has none.
    pub(crate) fn of(shown: Option<&[CertificateDer<'static>]>) -> Option<Arc<ClientCertificate>> {
        let chain = shown.filter(|chain| !chain.is_empty())?.to_vec();
        Some(Arc::new(ClientCertificate { chain, thumbprint: OnceLock::new(), known: Mutex::default() }))
    }

    /// As another node is told it.
    pub(crate) fn to_text(&self) -> String {
        let encoded: Vec<String> = self.chain.iter().map(|der| STANDARD.encode(der)).collect();
        encoded.join(",")
    }

    /// As another node told it, which saw the handshake.
    pub(crate) fn of_text(text: &str) -> Option<Arc<ClientCertificate>> {
        let decode = |part: &str| STANDARD.decode(part).ok().map(CertificateDer::from);
        let chain: Option<Vec<CertificateDer<'static>>> = text.split(',').map(decode).collect();
        ClientCertificate::of(chain.as_deref())
    }

    /// What each of these authorities that vouches for it says at `now`, in seconds since 1970. Where none does: why,
    /// in the words of one that knows more of it than that it is another's.
    pub(crate) fn identify(
        &self,
        authorities: &[Arc<Authority>],
        now: u64,
    ) -> Result<Vec<Arc<Identity>>, CertificateError> {
        let unknown = CertificateError::Unverified(ClientCertificateError::UnknownIssuer);
        let (mut identities, mut told) = (Vec::with_capacity(1), unknown);
        for authority in authorities {
            match self.asked(authority, now) {
                Ok(identity) => identities.push(identity),
                Err(error) if told == unknown => told = error,
                Err(_) => {}
            }
        }
        if identities.is_empty() { Err(told) } else { Ok(identities) }
    }

    /// What tokens name it by that are bound to it (RFC 8705, 3.1).
    pub(crate) fn thumbprint(&self) -> &Thumbprint {
        self.thumbprint.get_or_init(|| Thumbprint::of(self.chain.first().map_or(&[], |leaf| leaf.as_ref())))
    }

    fn asked(&self, authority: &Arc<Authority>, now: u64) -> Result<Arc<Identity>, CertificateError> {
        let is_it = |known: &Known| std::ptr::eq(known.authority.as_ptr(), Arc::as_ptr(authority));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.iter().find(|known| is_it(known) && now < known.until) {
            return known.made.clone();
        }
        // Under the lock: it takes less than a millisecond, and requests of one connection would find out the same.
        let made = authority.identify(&self.chain, now).map(Arc::new);
        let ends_at = made.as_ref().map_or(u64::MAX, |identity| identity.ends_at);
        let until = ends_at.min(now + ASKED_AGAIN_SECONDS);
        known.retain(|known| !is_it(known) && known.authority.strong_count() > 0);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.push(Known { authority: Arc::downgrade(authority), made: made.clone(), until });
        made
    }
}
