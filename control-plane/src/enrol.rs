//! The enrolment service (`enrol.proto`): how a process gets its first certificate, and the next ones.
//!
//! Always holds:
//! - a join token is used up by a committed command before its bearer is answered; what was signed for it is told to
//!   nobody when that is not certain;
//! - every token that is not good is refused in the same words; why is in the log of this process;
//! - who guesses is slowed down by address, and never reaches the log of the cluster ([`attempts`]);
//! - a node's labels are those of its token, whatever it says; they stand in its certificate;
//! - the next certificate has the name and labels of the one that asks, which counts and is not revoked.
//!
//! It answers over TLS only: in `gantry dev`, which has none, nobody joins.

mod attempts;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use gantry_control_state::{Command, Outcome, State};
use gantry_model::enrolment::{EnrolmentChange, JoinRole, JoinTokenId, Joiner};
use gantry_model::identity::{MemberId, Party, PeerName};
use gantry_model::{Labels, Name, Revision};
use gantry_node::seal::{SealPublicKey, Sealed};
use gantry_node::tls::{Caller, Peer};
use gantry_wire::enrol_v1::enrol_server::Enrol;
use gantry_wire::enrol_v1::{
    Certificates, JoinRequest, JoinResponse, RenewRequest, RenewResponse, SealedKeyFile, join_request,
};
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::ca::{Ca, IssueError};
use crate::plane::{Plane, now_ms};
use crate::raft::ProposeError;
use crate::revoked::revocations;
use crate::vault::{SealKeyFileError, Vault};

use attempts::Attempts;

/// How often a number is asked for when others join at the same time. A cluster has a handful of members.
const NUMBER_ATTEMPTS_MAX: usize = 8;

/// The service.
#[derive(Debug)]
pub(crate) struct EnrolService {
    plane: Arc<Plane>,
    attempts: Attempts,
}

/// Somebody who asks to join.
struct Asking {
    id: JoinTokenId,
    hash: [u8; 32],
    joiner: Asks,
    request: Vec<u8>,
}

/// What somebody asks to be.
enum Asks {
    Node(Name),
    /// A member, to whose key the vault's key file is sealed.
    Member(SealPublicKey),
}

/// What somebody gets.
struct Admitted {
    chain: Vec<CertificateDer<'static>>,
    key_file: Option<SealedKeyFile>,
}

/// Why somebody does not join.
enum Refused {
    /// The token is not good, for this reason, which is not told.
    Token(String),
    /// What is told.
    Told(Status),
}

impl EnrolService {
    pub(crate) fn new(plane: Arc<Plane>) -> EnrolService {
        EnrolService { plane, attempts: Attempts::default() }
    }

    async fn admit(&self, asking: &Asking) -> Result<Admitted, Refused> {
        let mut has_caught_up = false;
        for _ in 0..NUMBER_ATTEMPTS_MAX {
            let state = self.plane.consensus.feed().latest().state;
            let ca = open(&self.plane, &state).map_err(Refused::Told)?;
            let joiner = joiner(asking, &state).map_err(Refused::Told)?;
            let name = name_of(&ca, &joiner).ok_or_else(|| Refused::Told(broken()))?;
            // Before the token is used up, for a request that cannot be signed.
            let labels = labels(asking, &state);
            let chain = sign(&ca, &asking.request, (&name, &labels)).map_err(Refused::Told)?;
            let key_file = self.key_file(asking, &name).await.map_err(Refused::Told)?;
            let command = Command::ChangeEnrolment(EnrolmentChange::UseJoinToken {
                id: asking.id,
                hash: asking.hash,
                joiner: joiner.clone(),
                now_ms: now_ms(),
            });
            // What is refused here would be refused there: a guess costs the cluster nothing.
            if let Outcome::Refused(refusals) = state.clone().apply(Revision(u64::MAX), &command).outcome {
                // The token may have been made at another member a moment ago.
                if !has_caught_up && self.plane.consensus.catch_up().await.is_ok() {
                    has_caught_up = true;
                    continue;
                }
                return Err(Refused::Token(words(&refusals)));
            }
            match self.plane.consensus.propose(command).await.map_err(not_committed)?.outcome {
                Outcome::Done(_) => {
                    tracing::info!(%name, token = %asking.id, "a process has joined");
                    return Ok(Admitted { chain, key_file });
                }
                Outcome::Refused(refusals) => {
                    let newest = self.plane.consensus.feed().latest().state;
                    let is_overtaken = matches!(joiner, Joiner::ControlPlane(number)
                        if newest.cluster().is_some_and(|cluster| cluster.enrolment.last_member >= number));
                    if !is_overtaken {
                        return Err(Refused::Token(words(&refusals)));
                    }
                }
            }
        }
        Err(Refused::Told(Status::unavailable("others join at the same time; try again")))
    }
}

#[tonic::async_trait]
impl Enrol for EnrolService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let address = caller(&request)?.address.ip();
        if !self.attempts.may_try(address, Instant::now()) {
            return Err(Status::resource_exhausted(
                "too many join tokens from this address were not good; try again in a minute",
            ));
        }
        let asking = Asking::read(request.into_inner())?;
        match self.admit(&asking).await {
            Ok(Admitted { chain, key_file }) => {
                let members = if key_file.is_some() { self.members() } else { Vec::new() };
                Ok(Response::new(JoinResponse {
                    certificates: Some(certificates(&chain)),
                    key_file,
                    members,
                }))
            }
            Err(Refused::Token(reason)) => Err(self.refuse(address, asking.id, &reason)),
            Err(Refused::Told(status)) => Err(status),
        }
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let peer: Peer = caller(&request)?.peer.clone().ok_or_else(|| {
            Status::unauthenticated("a certificate is renewed by the one before it, and none was shown")
        })?;
        if matches!(peer.name.party, Party::Admin(_)) {
            // Whether he still is one is asked there.
            return Err(Status::permission_denied(
                "an admin renews his certificate with `gantry admin certificate`",
            ));
        }
        let state = self.plane.consensus.feed().latest().state;
        // The handshake asked that too, perhaps before the revocation came here.
        if revocations(&state, &self.plane.consensus.membership()).cover(&peer) {
            return Err(Status::permission_denied(
                "the certificate was revoked; join again with a new token",
            ));
        }
        let ca = open(&self.plane, &state)?;
        let chain = sign(&ca, &request.get_ref().certificate_request, (&peer.name, &peer.labels))?;
        tracing::info!(name = %peer.name, "a certificate was renewed");
        Ok(Response::new(RenewResponse { certificates: Some(certificates(&chain)) }))
    }
}

impl EnrolService {
    /// The vault's key file for a member that joins under this name.
    async fn key_file(&self, asking: &Asking, name: &PeerName) -> Result<Option<SealedKeyFile>, Status> {
        let Asks::Member(recipient) = asking.joiner else { return Ok(None) };
        let (directory, member) = (self.plane.data_dir.clone(), name.clone());
        let sealed =
            tokio::task::spawn_blocking(move || Vault::seal_key_file(&directory, member, &recipient)).await;
        match sealed {
            Ok(Ok(Sealed { encapsulated_key, ciphertext })) => {
                Ok(Some(SealedKeyFile { encapsulated_key, ciphertext }))
            }
            Ok(Err(error @ SealKeyFileError::Seal(_))) => Err(Status::invalid_argument(error.to_string())),
            Ok(Err(error)) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "the vault's key file cannot be handed over");
                Err(broken())
            }
            Err(_) => Err(Status::unavailable("this control plane is ending")),
        }
    }

    /// Where the members hear each other.
    fn members(&self) -> Vec<String> {
        let members = self.plane.consensus.membership().members.into_iter();
        members.map(|member| member.address).filter(|address| !address.is_empty()).collect()
    }

    fn refuse(&self, address: IpAddr, token: JoinTokenId, reason: &str) -> Status {
        self.attempts.failed(address, Instant::now());
        tracing::warn!(%address, %token, reason, "a join token was refused");
        Status::permission_denied(
            "the join token is not good here: it may have been used, have expired, or be for something else; make \
             another with `gantry cluster token`",
        )
    }
}

impl Asking {
    fn read(request: JoinRequest) -> Result<Asking, Status> {
        let id = request.token_id.try_into().map_err(|_| Status::invalid_argument("token_id is no id"))?;
        let joiner = match request.joiner {
            Some(join_request::Joiner::Node(name)) => {
                let name = name.parse();
                Asks::Node(
                    name.map_err(|error| Status::invalid_argument(format!("the node's name: {error}")))?,
                )
            }
            Some(join_request::Joiner::Member(member)) => {
                let key = SealPublicKey::try_from(member.seal_public_key.as_slice());
                Asks::Member(key.map_err(|error| Status::invalid_argument(error.to_string()))?)
            }
            None => return Err(Status::invalid_argument("joiner is missing")),
        };
        let hash = hash_of(&request.token_secret);
        Ok(Asking { id: JoinTokenId(id), hash, joiner, request: request.certificate_request })
    }
}

/// What the state keeps of a join token's secret.
pub(crate) fn hash_of(secret: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, secret).as_ref());
    hash
}

fn caller<T>(request: &Request<T>) -> Result<&Caller, Status> {
    let caller = request.extensions().get::<Caller>();
    caller.ok_or_else(|| Status::failed_precondition("nobody joins here: this control plane has no TLS"))
}

fn joiner(asking: &Asking, state: &State) -> Result<Joiner, Status> {
    match &asking.joiner {
        Asks::Node(name) => Ok(Joiner::Node(name.clone())),
        Asks::Member(_) => {
            let newest = state.cluster().map(|cluster| cluster.enrolment.last_member);
            let next = newest.and_then(|newest| newest.checked_add(1));
            next.map(Joiner::ControlPlane).ok_or_else(broken)
        }
    }
}

/// What the token lets its bearer hold. Whether there is such a token, and of whom, is asked when it is used.
fn labels(asking: &Asking, state: &State) -> Labels {
    let tokens = state.cluster().map_or(&[][..], |cluster| &cluster.enrolment.tokens);
    match tokens.iter().find(|token| token.id == asking.id).map(|token| &token.role) {
        Some(JoinRole::Node { labels, .. }) => labels.clone(),
        Some(JoinRole::ControlPlane) | None => Labels::default(),
    }
}

fn name_of(ca: &Ca, joiner: &Joiner) -> Option<PeerName> {
    let cluster = ca.cluster().clone();
    match joiner {
        Joiner::Node(name) => Some(PeerName::node(cluster, name.clone())),
        Joiner::ControlPlane(number) => {
            MemberId::new(*number).map(|member| PeerName::control_plane(cluster, member))
        }
    }
}

fn open(plane: &Plane, state: &State) -> Result<Ca, Status> {
    let ca = Ca::open(&plane.vault, state).map(|ca| ca.with_life(plane.certificate_life));
    ca.map_err(|error| {
        let error: &dyn std::error::Error = &error;
        tracing::error!(error, "the authority cannot be used");
        broken()
    })
}

fn sign(
    ca: &Ca,
    request: &[u8],
    (name, labels): (&PeerName, &Labels),
) -> Result<Vec<CertificateDer<'static>>, Status> {
    ca.issue(request, (name, labels), SystemTime::now()).map_err(|error| match error {
        IssueError::Request(_) | IssueError::TooLarge(_) | IssueError::KeyKind => {
            Status::invalid_argument(error.to_string())
        }
        IssueError::OtherCluster(_) | IssueError::Crypto(_) | IssueError::Sign(_) => {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, %name, "a certificate was not signed");
            broken()
        }
    })
}

/// The chain, and whom to believe: the authority, at its end.
fn certificates(chain: &[CertificateDer<'static>]) -> Certificates {
    let bytes = |certificate: &CertificateDer<'static>| certificate.to_vec();
    Certificates {
        chain: chain.iter().map(bytes).collect(),
        authorities: chain.last().map(bytes).into_iter().collect(),
    }
}

fn words(refusals: &[gantry_control_state::Refusal]) -> String {
    let words: Vec<_> = refusals.iter().map(|refusal| refusal.message.as_str()).collect();
    words.join("; ")
}

fn not_committed(error: ProposeError) -> Refused {
    tracing::warn!(%error, "the use of a join token was not committed");
    Refused::Told(match error {
        ProposeError::Unknown { .. } => Status::deadline_exceeded(
            "it is not known whether the join token was used up; try again, and make another token if it is refused",
        ),
        _ => Status::unavailable("the cluster cannot take anybody in now; try again"),
    })
}

fn broken() -> Status {
    Status::internal("this control plane cannot certify anybody; its log says why")
}
