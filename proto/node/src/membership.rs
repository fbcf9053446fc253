//! Being part of a cluster: joining it once, and staying in it.
//!
//! Always holds:
//! - a join token is given to nobody but a control plane of its cluster, known by the token itself;
//! - key, certificates and authorities are in one file, which only its owner can read and which is replaced as a whole:
//!   a crash leaves the old one or the new one;
//! - the next certificate has a key of its own, and is asked for after about two thirds of the life of the one before
//!   it, at times that differ from process to process; until it is there the old one is shown;
//! - what an organisation gives in files takes the place of these, as far as it goes.
//!
//! It does not decide who may join: the control plane does.

mod file;
mod join;
mod organisation;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use gantry_wire::enrol_v1::enrol_client::EnrolClient;
use gantry_wire::enrol_v1::{Certificates, RenewRequest};
use rustls::pki_types::CertificateDer;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::identity::{ClusterId, PeerName};
use crate::seal::SealError;
use crate::tls::{
    CertificateRequest, Certified, CertifiedError, Connector, Expected, Peer, Presenter, RequestError,
    TlsError, Trust, TrustError,
};

use file::Stored;
pub use file::{FileError, MEMBERSHIP_BYTES_MAX};
pub use join::{JoinError, JoinedMember};
use organisation::Given;

/// How long one call may take: a handshake, and a write on a majority of the control plane.
const CALL_DEADLINE: Duration = Duration::from_secs(20);
/// First pause after no control plane gave a certificate; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest pause: many attempts fit into the eight hours that are left of a certificate of a day.
const RETRY_MAX: Duration = Duration::from_secs(5 * 60);
/// Addresses of one control plane: an organisation's five members in a few notations.
pub const ADDRESSES_MAX: usize = 16;

/// A process that is part of a cluster. Clones are the same.
#[derive(Debug, Clone)]
pub struct Membership {
    name: PeerName,
    presenter: Arc<Presenter>,
    trust: Arc<Trust>,
    file: PathBuf,
    given: Option<Given>,
}

/// Why a control plane is not reached.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address is none, or nobody who is expected answers there.
    #[error("no connection: {}", causes(.0))]
    Connect(tonic::transport::Error),
}

/// What is wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// There are none.
    #[error("there is no certificate in the answer")]
    None,
    /// They do not fit the key, or name nobody.
    #[error(transparent)]
    Certified(#[from] CertifiedError),
    /// The authorities are none.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Somebody else's.
    #[error("it is that of {0}")]
    OtherName(PeerName),
    /// The authority of the token is not among those to be believed.
    #[error("its authority is not that of the join token")]
    OtherAuthority,
    /// The key file of the vault was sealed to somebody else, or damaged.
    #[error("the vault's key file that came with it cannot be opened")]
    KeyFile(#[from] SealError),
}

/// Why a founder's certificate is not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The authority is none.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why a certificate is not renewed.
#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error("the control plane refused: {}", .0.message())]
    Refused(Box<Status>),
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl Membership {
    /// What an earlier process left in `file`; `None` when there is no such file. Blocks.
    pub fn load(file: PathBuf) -> Result<Option<Membership>, FileError> {
        let Some(stored) = Stored::read(&file)? else { return Ok(None) };
        let Stored { certified, authorities } = stored;
        let name = certified.peer().name.clone();
        let trust = Trust::new(&authorities)
            .map_err(|source| FileError::Authorities { path: file.clone(), source })?;
        Ok(Some(Membership { name, presenter: Presenter::new(certified), trust, file, given: None }))
    }

    /// Keeps what the founder of a cluster certified itself with.
    pub async fn keep(
        request: &CertificateRequest,
        certified: Certified,
        authorities: &[CertificateDer<'static>],
        file: PathBuf,
    ) -> Result<Membership, KeepError> {
        let trust = Trust::new(authorities)?;
        file::write(&file, request, &certified, authorities).await?;
        let name = certified.peer().name.clone();
        Ok(Membership { name, presenter: Presenter::new(certified), trust, file, given: None })
    }

    /// Who this process is.
    pub fn name(&self) -> &PeerName {
        &self.name
    }

    /// The cluster that it is part of.
    pub fn cluster(&self) -> &ClusterId {
        &self.name.cluster
    }

    /// Until when its certificate counts, in milliseconds since 1970.
    pub fn expires_at_ms(&self) -> u64 {
        self.presenter.certified().map_or(0, |certified| certified.peer().expires_at_ms)
    }

    /// What it shows of itself.
    pub fn presenter(&self) -> &Arc<Presenter> {
        &self.presenter
    }

    /// Whom it believes.
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// What dials the control plane of the cluster, as who this process is.
    pub fn connector(&self) -> Result<Connector, TlsError> {
        let expected = Expected::ControlPlaneOf(self.name.cluster.clone());
        Connector::new(self.presenter.clone(), self.trust.clone(), expected)
    }

    /// Renews the certificate in time, through one of `addresses` (`HOST:PORT`; those beyond [`ADDRESSES_MAX`] are not
    /// asked), and follows what an organisation gives. Never ends; dropping the future is safe.
    pub async fn stay(&self, addresses: &[String]) -> Infallible {
        tokio::select! {
            never = self.follow() => never,
            never = self.renew_in_time(addresses), if !self.shows_given() => never,
        }
    }

    async fn renew_in_time(&self, addresses: &[String]) -> Infallible {
        let mut pause = RETRY_FIRST;
        loop {
            let Some(certified) = self.presenter.certified() else {
                // A membership has a certificate from its beginning.
                std::future::pending::<()>().await;
                continue;
            };
            tokio::time::sleep(until_renewal(certified.peer(), SystemTime::now(), share())).await;
            while !self.renewed(addresses).await {
                tokio::time::sleep(pause.mul_f64(0.5 + share())).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            pause = RETRY_FIRST;
        }
    }

    /// Asks one address after the other.
    async fn renewed(&self, addresses: &[String]) -> bool {
        for address in addresses.iter().take(ADDRESSES_MAX) {
            match self.renew(address).await {
                Ok(()) => {
                    tracing::info!(name = %self.name, "the certificate was renewed");
                    return true;
                }
                Err(error) => {
                    let (error, name): (&dyn std::error::Error, _) = (&error, &self.name);
                    tracing::warn!(error, %name, address, "the certificate was not renewed");
                }
            }
        }
        false
    }

    async fn renew(&self, address: &str) -> Result<(), RenewError> {
        let request = CertificateRequest::new()?;
        let channel = connect(address, self.connector().map_err(ReachError::Tls)?).await?;
        let renewal = RenewRequest { certificate_request: request.as_der().to_vec() };
        let renewed = EnrolClient::new(channel).renew(renewal).await;
        let renewed = renewed.map_err(|status| RenewError::Refused(Box::new(status)))?.into_inner();
        let (certified, authorities) = read(renewed.certificates, &request, |name| *name == self.name)?;
        // The old one is as good when the new one cannot be kept.
        file::write(&self.file, &request, &certified, &authorities).await?;
        self.take(certified, &authorities).map_err(AnswerError::from)?;
        Ok(())
    }
}

async fn connect(address: &str, connector: Connector) -> Result<Channel, ReachError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(ReachError::Connect)?;
    let endpoint = endpoint.timeout(CALL_DEADLINE);
    endpoint.connect_with_connector(connector).await.map_err(ReachError::Connect)
}

fn read(
    certificates: Option<Certificates>,
    request: &CertificateRequest,
    is_own: impl FnOnce(&PeerName) -> bool,
) -> Result<(Certified, Vec<CertificateDer<'static>>), AnswerError> {
    let certificates = certificates.ok_or(AnswerError::None)?;
    let chain = certificates.chain.into_iter().map(CertificateDer::from).collect();
    let authorities: Vec<_> = certificates.authorities.into_iter().map(CertificateDer::from).collect();
    let certified = request.complete(chain)?;
    if !is_own(&certified.peer().name) {
        return Err(AnswerError::OtherName(certified.peer().name.clone()));
    }
    // Before anything of it is kept.
    Trust::new(&authorities)?;
    Ok((certified, authorities))
}

/// From 0 to 1.
fn share() -> f64 {
    let mut byte = [0];
    // Without randomness all ask at the same time, which is no harm to whom asks.
    let _ = rand::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}

/// How long it is until a certificate should be renewed: after six to seven tenths of its life, as `share` says.
fn until_renewal(peer: &Peer, now: SystemTime, share: f64) -> Duration {
    let life = Duration::from_millis(peer.expires_at_ms.saturating_sub(peer.begins_at_ms));
    let renewal = Duration::from_millis(peer.begins_at_ms) + life.mul_f64(0.6 + share / 10.0);
    renewal.saturating_sub(now.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Why no connection came about: what `tonic` says hides it.
pub fn causes(error: &tonic::transport::Error) -> String {
    let mut causes = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        // Layers repeat what is below them.
        let text = error.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        source = error.source();
    }
    causes.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Serial;

    #[test]
    fn a_certificate_is_renewed_after_about_two_thirds_of_its_life() {
        let peer = Peer {
            name: "gantry://c/node/a".parse().expect("a name"),
            labels: Default::default(),
            token: None,
            serial: Serial::new(&[1]),
            begins_at_ms: 1_000_000,
            expires_at_ms: 2_000_000,
        };
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        assert_eq!(until_renewal(&peer, at(1_000_000), 0.0), Duration::from_secs(600));
        assert_eq!(until_renewal(&peer, at(1_100_000), 1.0), Duration::from_secs(600));
        assert_eq!(until_renewal(&peer, at(1_900_000), 1.0), Duration::ZERO);
    }
}
