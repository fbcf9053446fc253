//! This process as a member of its cluster: heard by the others, and known to them under its address.
//!
//! Always holds: other members are heard before anything else is served, since a new one gets the cluster's facts from
//! them; a member goes on telling the leader its address until the cluster has it. Every member tells the
//! others which nodes follow it, and what those record.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use gantry_node::tls::{Incoming, TlsError, member_server_config};
use gantry_wire::MESSAGE_BYTES_MAX;
use gantry_wire::raft_v1::RecordNews;
use gantry_wire::raft_v1::peer_server::PeerServer;
use gantry_wire::raft_v1::question::Question;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::access::{MemberCheck, TokenCheck, Whose};
use crate::fleet::Fleet;
use crate::journal::{Journal, Selection, Tail};
use crate::options::{MemberOptions, MemberProof};
use crate::peer::{GrpcPeers, PeerService};
use crate::raft::{Consensus, Formation};

/// How long it is waited after a try to be known to the cluster.
const PRESENT_INTERVAL: Duration = Duration::from_millis(500);

/// How often the others are told of the nodes that follow this member, when nothing changes; and how long changes are
/// gathered before that.
const NEWS_INTERVAL: Duration = Duration::from_secs(1);
const NEWS_LINGER: Duration = Duration::from_millis(100);

/// Bytes of records in one message, beyond which it ends with the record at hand.
const RECORDS_BYTES: usize = 256 * 1024;

/// A member that is bound to its address and not running yet.
pub(crate) struct Membership {
    options: MemberOptions,
    listener: TcpListener,
    /// At which the others reach it.
    address: String,
}

impl Membership {
    pub(crate) async fn bind(options: &MemberOptions) -> std::io::Result<Membership> {
        let listener = TcpListener::bind(options.listen).await?;
        let listening = listener.local_addr()?;
        let address = match &options.advertise {
            None => listening.to_string(),
            Some(advertised) => match advertised.strip_suffix(":0") {
                Some(host) => format!("{host}:{}", listening.port()),
                None => advertised.clone(),
            },
        };
        Ok(Membership { options: options.clone(), listener, address })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn peers(&self) -> Arc<GrpcPeers> {
        Arc::new(match &self.options.proof {
            MemberProof::Token(token) => GrpcPeers::by_token(token),
            MemberProof::Certificate(own) => GrpcPeers::by_certificate(own),
        })
    }

    pub(crate) fn formation(&self) -> Formation {
        match self.options.is_founder() {
            true => Formation::Found(self.address.clone()),
            false => Formation::Join,
        }
    }

    /// Lets the others be heard, and itself be known, until `stop`.
    pub(crate) fn run(
        self,
        consensus: &Consensus,
        (fleet, journal): (&Arc<Fleet>, &Arc<Journal>),
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(), TlsError> {
        let service = PeerServer::new(PeerService::new(consensus.clone(), fleet.clone(), journal.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let check = match &self.options.proof {
            MemberProof::Token(token) => MemberCheck::Token(TokenCheck::new(Whose::Peer, token)),
            MemberProof::Certificate(_) => MemberCheck::Certificate,
        };
        let router = Server::builder().add_service(InterceptedService::new(service, check));
        let stopped = stop.clone().cancelled_owned();
        let served: Pin<Box<dyn Future<Output = _> + Send>> = match &self.options.proof {
            MemberProof::Token(_) => {
                let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
                Box::pin(router.serve_with_incoming_shutdown(incoming, stopped))
            }
            MemberProof::Certificate(own) => {
                let (presenter, trust) = (own.presenter().clone(), own.trust().clone());
                let config = member_server_config(presenter, trust.clone(), own.cluster().clone())?;
                let incoming = Incoming::new(self.listener, config, trust);
                Box::pin(router.serve_with_incoming_shutdown(incoming, stopped))
            }
        };
        tasks.spawn(async move {
            if let Err(error) = served.await {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "other members are not heard any more");
            }
        });
        let (consensus, fleet, stop) = (consensus.clone(), fleet.clone(), stop.clone());
        let records = journal.tail(0, Selection::Everybody);
        let (address, join) = (self.address, self.options.join);
        tasks.spawn(async move {
            let work = async {
                present(&consensus, &address, &join).await;
                tokio::join!(tell_of_nodes(&consensus, &fleet), tell_of_records(&consensus, records));
            };
            stop.run_until_cancelled(work).await;
        });
        Ok(())
    }
}

/// Tells the leader this member's address until the cluster knows it. While no leader is known, through `join` and the
/// members of its own log, one after the other: the leader may know it under an address that it had before.
async fn present(consensus: &Consensus, address: &str, join: &[String]) {
    let mut told = String::new();
    for attempt in 0_usize.. {
        let members = consensus.membership().members.into_iter().map(|member| member.address);
        let contacts: Vec<_> = join.iter().cloned().chain(members.filter(|known| known != address)).collect();
        let contact = contacts.get(attempt.checked_rem(contacts.len()).unwrap_or(0));
        match consensus.present(address, contact.map(String::as_str)).await {
            Ok(()) => return,
            Err(error) => {
                let error = error.to_string();
                // Once for each reason: it may be a long wait.
                if told != error {
                    tracing::warn!(error, address, "this member is not known to its cluster yet; it goes on");
                    told = error;
                }
            }
        }
        tokio::time::sleep(PRESENT_INTERVAL).await;
    }
}

/// Tells the other members of the nodes that follow this one.
async fn tell_of_nodes(consensus: &Consensus, fleet: &Fleet) {
    let mut changes = fleet.nodes.subscribe_to_own();
    loop {
        let news = Question::Fleet(fleet.nodes.news());
        // One that does not hear it is told again.
        consensus.tell_members(&news, NEWS_INTERVAL).await;
        fleet.nodes.forget_silent(Instant::now());
        tokio::time::sleep(NEWS_LINGER).await;
        // The table lives as long as the process.
        let _ = tokio::time::timeout(NEWS_INTERVAL, changes.changed()).await;
    }
}

/// Tells the other members of the records of the nodes that follow this one. What comes faster than they take it is
/// left out, oldest first: the journal is a window for people, and the nodes have the files.
async fn tell_of_records(consensus: &Consensus, mut tail: Tail) {
    loop {
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut next = Some(tail.next().await);
        while let Some(tailed) = next {
            if !tailed.record.is_told {
                bytes += tailed.record.json.len();
                records.push(tailed.record.json.clone());
            }
            next = if bytes < RECORDS_BYTES { tail.advance() } else { None };
        }
        if !records.is_empty() {
            let news = Question::Records(RecordNews { records });
            consensus.tell_members(&news, NEWS_INTERVAL).await;
        }
    }
}
