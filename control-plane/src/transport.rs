//! How other processes reach this one: without TLS on loopback, or with TLS and certificates on both sides.
//!
//! Always holds: with TLS this process shows a certificate of its own cluster. Once it has the cluster's state its keys
//! are in memory only, a new one for each certificate; it certifies itself, because every member can open the authority's
//! key, unless an organisation gives it certificates in files. What is revoked is refused, see `revoked.rs`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_control_state::State;
use gantry_model::Secret;
use gantry_model::identity::{MemberId, PeerName};
use gantry_node::membership::Membership;
use gantry_node::tls::{Certified, Incoming, Presenter, TlsError, Trust, TrustError, server_config};
use tokio::net::TcpListener;

use crate::ca::{Ca, CaError, CertifyError};
use crate::plane::Plane;
use crate::raft::VoterId;
use crate::vault::Vault;

/// How other processes reach a control plane.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Without TLS, on loopback only.
    Plain {
        /// What nodes prove themselves with; at least [`crate::TOKEN_BYTES_MIN`] bytes, and unlike the other tokens.
        node_token: Secret<String>,
    },
    /// With TLS 1.3; nodes prove themselves with certificates of the cluster.
    Tls,
}

/// How long to wait after this process could not certify itself; a tenth of a certificate's life where that is less.
const RETRY: Duration = Duration::from_secs(60);

/// What TLS needs.
#[derive(Debug, Clone)]
pub(crate) struct Secured {
    name: PeerName,
    presenter: Arc<Presenter>,
    pub(crate) trust: Arc<Trust>,
    /// How long each of its certificates counts.
    life: Duration,
    /// Where no organisation gives it certificates.
    certifies_itself: bool,
}

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecureError {
    /// No authority.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// No certificate.
    #[error(transparent)]
    Certify(#[from] CertifyError),
    /// The authority is not believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What it joined is not the cluster whose state it has.
    #[error("the certificate is that of {0}, and the state is that of another cluster")]
    OtherCluster(PeerName),
    /// A member's number is at least 1.
    #[error("{0} is no member's number")]
    Member(u64),
}

impl Secured {
    /// Certifies this process, for `life` at a time; in place of what it began with, where it is a member of several.
    pub(crate) fn new(
        vault: &Vault,
        state: &State,
        voter: VoterId,
        begun: Option<&Membership>,
        life: Duration,
    ) -> Result<Secured, SecureError> {
        let ca = Ca::open(vault, state)?.with_life(life);
        let member = MemberId::new(voter.0).ok_or(SecureError::Member(voter.0))?;
        let name = PeerName::control_plane(ca.cluster().clone(), member);
        let certified = ca.certify(&name, SystemTime::now())?;
        let authorities = [ca.certificate().clone()];
        let Some(begun) = begun else {
            let (presenter, trust) = (Presenter::new(certified), Trust::new(&authorities)?);
            return Ok(Secured { name, presenter, trust, life, certifies_itself: true });
        };
        if *begun.name() != name {
            return Err(SecureError::OtherCluster(begun.name().clone()));
        }
        begun.take(certified, &authorities)?;
        let (presenter, trust) = (begun.presenter().clone(), begun.trust().clone());
        Ok(Secured { name, presenter, trust, life, certifies_itself: !begun.shows_given() })
    }

    /// The connections of a listener.
    pub(crate) fn incoming(&self, listener: TcpListener) -> Result<Incoming, SecureError> {
        let cluster = self.name.cluster.clone();
        let config = server_config(self.presenter.clone(), self.trust.clone(), cluster)?;
        Ok(Incoming::new(listener, config, self.trust.clone()))
    }

    /// Certifies this process anew in time, where it does that; ends with the process.
    pub(crate) async fn renew(self, plane: Arc<Plane>) {
        if !self.certifies_itself {
            return;
        }
        let mut pause = self.life * 2 / 3;
        while plane.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            pause = match self.certify(&plane) {
                Ok(certified) => {
                    self.presenter.replace(certified);
                    self.life * 2 / 3
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "this process cannot certify itself; trying again");
                    RETRY.min(self.life / 10)
                }
            };
        }
    }

    fn certify(&self, plane: &Plane) -> Result<Certified, SecureError> {
        let state = plane.consensus.feed().latest().state;
        let ca = Ca::open(&plane.vault, &state)?.with_life(self.life);
        Ok(ca.certify(&self.name, SystemTime::now())?)
    }
}
