//! Joining a cluster with a token.
//!
//! Always holds: the token is given to nobody but a control plane of its cluster; a member's key file opens with a key
//! that lives as long as the call.

use std::path::PathBuf;
use std::sync::Arc;

use gantry_model::Secret;
use gantry_model::name::Name;
use gantry_wire::enrol_v1::enrol_client::EnrolClient;
use gantry_wire::enrol_v1::join_request::Joiner;
use gantry_wire::enrol_v1::{JoinRequest, JoinResponse, JoiningMember};
use rustls::pki_types::CertificateDer;
use tonic::{Code, Status};

use super::{AnswerError, FileError, Membership, ReachError, connect, file, read};
use crate::identity::PeerName;
use crate::seal::{NodeSealKey, Purpose, SealError, Sealed};
use crate::tls::{
    CertificateRequest, Certified, Connector, Expected, Fingerprint, Presenter, RequestError, Trust,
};
use crate::token::JoinToken;

/// A process of the control plane that has joined.
#[derive(Debug)]
pub struct JoinedMember {
    /// Its certificate, which it keeps.
    pub membership: Membership,
    /// The key file of the vault; `None`: the key is kept elsewhere.
    pub key_file: Option<Secret<Vec<u8>>>,
    /// Where the members hear each other, as `HOST:PORT`.
    pub members: Vec<String>,
}

/// Why a process does not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No key.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The control plane was not reached, or is not that of the token.
    #[error("the control plane at {address} cannot be asked")]
    Reach {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: ReachError,
    },
    /// It said no.
    #[error("the control plane refused: {}", .0.message())]
    Refused(Box<Status>),
    /// It answered what cannot be used.
    #[error("the control plane gave a certificate that cannot be used")]
    Answer(#[from] AnswerError),
    /// No key for the vault's key file.
    #[error("no key can be made to which the vault's key file could be sealed")]
    SealKey(#[source] SealError),
    /// The certificate cannot be kept.
    #[error(transparent)]
    File(#[from] FileError),
}

impl JoinError {
    /// Whether another member may say otherwise: this one was not reached, or could not say.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            JoinError::Reach { .. } => true,
            JoinError::Refused(status) => matches!(
                status.code(),
                Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::ResourceExhausted
            ),
            JoinError::Request(_) | JoinError::Answer(_) | JoinError::SealKey(_) | JoinError::File(_) => {
                false
            }
        }
    }
}

impl Membership {
    /// Joins as a node with a token, through the control plane at `address` (`HOST:PORT`), and keeps the certificate
    /// in `file`. When the future is dropped, or fails late, the token may have been used up.
    pub async fn join_as_node(
        token: &JoinToken,
        name: &Name,
        address: &str,
        file: PathBuf,
    ) -> Result<Membership, JoinError> {
        let request = CertificateRequest::new()?;
        let trust = Trust::pinned(token.authority);
        let joined = ask(token, Joiner::Node(name.to_string()), (address, trust), &request).await?;
        let name = PeerName::node(token.cluster.clone(), name.clone());
        keep(token, joined, &request, |given| *given == name, file).await
    }

    /// Joins as a process of the control plane with a token, through the member at `address` (`HOST:PORT`), which gives
    /// it a number, and keeps the certificate in `file`. When the future is dropped, or fails late, the token may have
    /// been used up. `trust`: whom to believe in place of the authority that the token names.
    pub async fn join_as_member(
        token: &JoinToken,
        address: &str,
        file: PathBuf,
        trust: Option<Arc<Trust>>,
    ) -> Result<JoinedMember, JoinError> {
        let request = CertificateRequest::new()?;
        let seal_key = NodeSealKey::generate().map_err(JoinError::SealKey)?;
        let seal_public_key = seal_key.public_key().as_bytes().to_vec();
        let joiner = Joiner::Member(JoiningMember { seal_public_key });
        let trust = trust.unwrap_or_else(|| Trust::pinned(token.authority));
        let mut joined = ask(token, joiner, (address, trust), &request).await?;
        let members = std::mem::take(&mut joined.members);
        let sealed = joined.key_file.take().map(|sealed| Sealed {
            encapsulated_key: sealed.encapsulated_key,
            ciphertext: sealed.ciphertext,
        });
        let is_own = |given: &PeerName| given.cluster == token.cluster && given.party.is_control_plane();
        let membership = keep(token, joined, &request, is_own, file).await?;
        let purpose = Purpose::KeyFile { member: membership.name.clone() };
        let key_file = sealed.map(|sealed| seal_key.open(&purpose, &sealed)).transpose();
        Ok(JoinedMember { membership, key_file: key_file.map_err(AnswerError::from)?, members })
    }
}

async fn ask(
    token: &JoinToken,
    joiner: Joiner,
    (address, trust): (&str, Arc<Trust>),
    request: &CertificateRequest,
) -> Result<JoinResponse, JoinError> {
    let expected = Expected::ControlPlaneOf(token.cluster.clone());
    let connector = Connector::new(Presenter::empty(), trust, expected);
    let reached = async { connect(address, connector.map_err(ReachError::Tls)?).await }.await;
    let reach = |source| JoinError::Reach { address: address.to_owned(), source };
    let joining = JoinRequest {
        token_id: token.id.0.to_vec(),
        token_secret: token.secret.expose().to_vec(),
        certificate_request: request.as_der().to_vec(),
        joiner: Some(joiner),
    };
    let joined = EnrolClient::new(reached.map_err(reach)?).join(joining).await;
    Ok(joined.map_err(|status| JoinError::Refused(Box::new(status)))?.into_inner())
}

async fn keep(
    token: &JoinToken,
    joined: JoinResponse,
    request: &CertificateRequest,
    is_own: impl FnOnce(&PeerName) -> bool,
    file: PathBuf,
) -> Result<Membership, JoinError> {
    let (certified, authorities): (Certified, Vec<CertificateDer<'static>>) =
        read(joined.certificates, request, is_own)?;
    if !authorities.iter().any(|authority| Fingerprint::of(authority) == token.authority) {
        return Err(AnswerError::OtherAuthority.into());
    }
    let trust = Trust::new(&authorities).map_err(AnswerError::from)?;
    file::write(&file, request, &certified, &authorities).await?;
    let name = certified.peer().name.clone();
    Ok(Membership { name, presenter: Presenter::new(certified), trust, file, given: None })
}
