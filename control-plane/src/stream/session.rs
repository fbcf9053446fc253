//! One session of one node: from its Hello to the end of its stream.
//!
//! Always holds: the row of the node is entered before the first update and left after the last; the writer sends an
//! update only when the one before it was answered.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use gantry_model::digest::Digest;
use gantry_model::{Revision, Scope};
use gantry_node::seal::SealPublicKey;
use gantry_wire::sync_v1::server_message::Message as ToNode;
use gantry_wire::sync_v1::{Hello, NodeMessage, ServerMessage, node_message};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, Streaming};

use super::catalogs;
use super::counting;
use super::distrusted;
use super::intake::{Answer, Intake};
use super::members;
use super::rejection::StreamEnd;
use super::update::{Builder, Built};
use super::urgent::{self, Lane};
use crate::access::CertifiedNode;
use crate::feed::{Past, Since, View};
use crate::fleet::{Arrival, Place, Ticket};
use crate::plane::{Plane, now_ms};
use crate::vault::SecretError;

/// How long a node may take to introduce itself.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// How long a node may take to apply an update. Compiling a large snapshot takes seconds; this is a dead node.
const ANSWER_DEADLINE: Duration = Duration::from_secs(120);
/// Answers that wait for the writer: it takes each at once, so more means a node that does not keep to the protocol.
const ANSWERS_QUEUED_MAX: usize = 4;
/// Snapshots in a row that a node may refuse. The first repairs whatever a delta broke; if three do not help, the
/// builds do not fit each other, and trying on would only keep both busy.
const SNAPSHOTS_REFUSED_MAX: usize = 3;
/// Changes of an update that is made, sent and taken in within milliseconds: a node takes so many in at once.
const QUICK_CHANGES_MAX: usize = 64;
/// How long the end of a node's own side may come after that of this one.
const FAREWELL_DEADLINE: Duration = Duration::from_millis(250);
/// A message to a node.
pub(super) type Outbound = mpsc::Sender<Result<ServerMessage, Status>>;

/// Sends updates and waits for their answers.
struct Writer<'a> {
    plane: &'a Arc<Plane>,
    ticket: &'a Ticket,
    outbound: &'a Outbound,
    lane: &'a Lane,
    answers: mpsc::Receiver<Answer>,
    /// The revision that the node has; `None`: it needs a snapshot.
    position: Option<Revision>,
    /// Whether the process has the secrets of that revision.
    provisioned: bool,
    refused: usize,
}

/// Serves a node until it leaves (`Ok`) or must be sent away.
pub(super) async fn serve(
    plane: &Arc<Plane>,
    (certified, address): (Option<CertifiedNode>, Option<SocketAddr>),
    mut inbound: Streaming<NodeMessage>,
    outbound: &Outbound,
) -> Result<(), StreamEnd> {
    let hello = tokio::select! {
        () = plane.stop.cancelled() => return Err(StreamEnd::GoingDown),
        hello = hello(&mut inbound) => hello?,
    };
    let scope = scope(certified, &hello)?;
    reach(plane, &hello).await?;
    let seal_key = SealPublicKey::try_from(hello.seal_public_key.as_slice()).map_err(StreamEnd::SealKey)?;
    let place = hello.mesh.as_ref().map(|mesh| Place::read(&hello.incarnation, mesh)).transpose()?;
    let (node, build, connected_at_ms) = (hello.node_id.parse()?, hello.build.clone(), now_ms());
    let arrival = Arrival { node, build, scope, seal_key, place, address, connected_at_ms };
    let ticket = plane.fleet.nodes.enter(arrival, Instant::now())?;
    tracing::info!(node = %ticket.node, incarnation = hello.incarnation, build = hello.build, "a node connected");
    let ended = tokio::select! {
        biased;
        () = plane.stop.cancelled() => Err(StreamEnd::GoingDown),
        () = ticket.replaced.cancelled() => Err(StreamEnd::Replaced(ticket.node.clone())),
        () = closed(outbound) => Ok(()),
        ended = follow(plane, &ticket, &hello, inbound, outbound) => ended,
    };
    if let Err(end) = &ended {
        plane.fleet.nodes.failed(&ticket, &end.to_string());
    }
    plane.fleet.nodes.leave(&ticket, Instant::now());
    ended
}

/// The node reads no more. How it left, its own side of the stream says at about the same time.
async fn closed(outbound: &Outbound) {
    outbound.closed().await;
    sleep(FAREWELL_DEADLINE).await;
}

/// What the node may hold: what its certificate says, if that is its own.
fn scope(certified: Option<CertifiedNode>, hello: &Hello) -> Result<Scope, StreamEnd> {
    match certified {
        None => Ok(Scope::Everything),
        Some(CertifiedNode(name, labels)) if hello.node_id == name.as_str() => Ok(Scope::Of(labels)),
        Some(CertifiedNode(certified, _)) => {
            Err(StreamEnd::OtherName { said: hello.node_id.clone(), certified })
        }
    }
}

async fn hello(inbound: &mut Streaming<NodeMessage>) -> Result<Hello, StreamEnd> {
    let first = timeout(HELLO_DEADLINE, inbound.message()).await;
    let message = first.ok().and_then(Result::ok).flatten().and_then(|message| message.message);
    match message {
        Some(node_message::Message::Hello(hello)) => Ok(hello),
        _ => Err(StreamEnd::NoHello(HELLO_DEADLINE)),
    }
}

/// Waits for what the node has and this member does not, so that no node is sent back in time by a member that is
/// behind. A cluster that is behind as a whole was put back by somebody: the node follows it.
async fn reach(plane: &Plane, hello: &Hello) -> Result<(), StreamEnd> {
    let has = Revision(hello.applied_revision);
    let is_ahead = || plane.consensus.feed().latest().revision < has;
    if hello.cluster_id != plane.vault.cluster_id() || !is_ahead() {
        return Ok(());
    }
    plane.consensus.catch_up().await.map_err(|_| StreamEnd::Behind { has })?;
    if is_ahead() {
        let node = &hello.node_id;
        tracing::warn!(%node, %has, "a node has a revision that the cluster never had, or lost; it gets a snapshot");
    }
    Ok(())
}

/// Runs the directions of the stream side by side; ends with the first that ends.
async fn follow(
    plane: &Arc<Plane>,
    ticket: &Ticket,
    hello: &Hello,
    inbound: Streaming<NodeMessage>,
    outbound: &Outbound,
) -> Result<(), StreamEnd> {
    let (answers_in, answers) = mpsc::channel(ANSWERS_QUEUED_MAX);
    let (reports_in, reports) = catalogs::queue();
    let intake = Intake { plane, ticket, inbound, answers: answers_in, reports: reports_in };
    let position = resume_position(plane, ticket, hello);
    // What a node of another past is denied, its first update says; what comes meanwhile, the lane.
    let lane = &Lane::new(position.unwrap_or_else(|| plane.consensus.feed().latest().revision));
    let provisioned = ticket.provisioned;
    let writer = Writer { plane, ticket, outbound, lane, answers, position, provisioned, refused: 0 };
    tokio::select! {
        // In this order, whatever is ready at the same time.
        biased;
        () = distrusted::tell(plane, outbound) => Ok(()),
        () = urgent::tell(plane, ticket, position, (lane, outbound)) => Ok(()),
        () = members::tell(plane, ticket, hello, outbound) => Ok(()),
        () = counting::tell(plane, ticket, outbound) => Ok(()),
        ended = intake.run() => ended,
        ended = writer.run() => ended,
        () = reports.record_into(plane, ticket) => Ok(()),
    }
}

/// From where a node can go on; `None`: only from a snapshot.
fn resume_position(plane: &Plane, ticket: &Ticket, hello: &Hello) -> Option<Revision> {
    let revision = Revision(hello.applied_revision);
    let same_cluster = hello.cluster_id == plane.vault.cluster_id();
    let past = plane.consensus.feed().past_at(revision);
    // Whether it was in a stage of a rollout then can be told from what is remembered, by every member.
    let digest = |past: Past| past.digest(ticket.node.as_str(), &ticket.scope).to_bytes();
    let is_right = past.is_some_and(|past| hello.applied_digest == digest(past));
    (same_cluster && revision > Revision::NONE && is_right).then_some(revision)
}

impl Writer<'_> {
    async fn run(mut self) -> Result<(), StreamEnd> {
        let mut newest = self.plane.consensus.feed().subscribe();
        loop {
            newest.borrow_and_update();
            let built = self.build().await?;
            let (revision, digest, provisions) = (built.revision, built.digest, built.provisions);
            let unopened = built.unopened.first().map(|(tenant, credential, _)| {
                format!("the secret of credential {tenant}/{credential} cannot be opened; put it again")
            });
            if self.send(built).await.is_err() {
                return Ok(());
            }
            if self.settle(revision, digest, provisions).await?.is_break() {
                return Ok(());
            }
            if let Some(message) = unopened {
                self.plane.fleet.nodes.failed(self.ticket, &message);
            }
            while self.position.is_some_and(|position| position >= *newest.borrow()) {
                tokio::select! {
                    changed = newest.changed() => if changed.is_err() { return Err(StreamEnd::GoingDown) },
                    answer = self.answers.recv() => match answer {
                        // What was not asked for settles nothing, but a node knows best when it is broken.
                        Some(Answer::Refused { need_snapshot: true, .. }) => self.refuse()?,
                        Some(_) => {}
                        None => return Ok(()),
                    },
                }
            }
        }
    }

    /// The update from the node's position to the newest view.
    async fn build(&self) -> Result<Built, StreamEnd> {
        // The view first: what changes after it may then stand in the changes too, with the view's value.
        let view = self.plane.consensus.feed().latest();
        self.plane.fleet.timeline.note(view.revision, Instant::now());
        let changes = self.position.and_then(|position| {
            let changes = self.plane.consensus.feed().since(position)?;
            Some((position, changes))
        });
        let built = match changes {
            Some((from, changes)) if self.provisioned => {
                if changes.changes.len() <= QUICK_CHANGES_MAX {
                    self.lane.block_after(view.revision);
                } else {
                    self.lane.block();
                    // What is denied goes first.
                    tokio::task::yield_now().await;
                }
                self.builder(&view).delta(from, &changes, false).map_err(unsealable)?
            }
            // All secrets are opened and sealed anew, which takes a while.
            changes => {
                self.lane.block();
                self.build_aside(view, changes).await?
            }
        };
        for (tenant, credential, error) in &built.unopened {
            let error: &dyn std::error::Error = error;
            tracing::error!(%tenant, %credential, error, "a stored secret cannot be opened");
        }
        Ok(built)
    }

    async fn build_aside(&self, view: View, changes: Option<(Revision, Since)>) -> Result<Built, StreamEnd> {
        let (plane, recipient) = (self.plane.clone(), *self.ticket.seal_key());
        let (node, scope) = (self.ticket.node.clone(), self.ticket.scope.clone());
        let build = move || {
            let builder = Builder::new(&plane.vault, &view, &recipient, (node.as_str(), &scope));
            match changes {
                Some((from, changes)) => builder.delta(from, &changes, true),
                None => builder.snapshot(),
            }
        };
        let permit = self.plane.snapshot_builds.acquire().await.map_err(|_| StreamEnd::GoingDown)?;
        let built = tokio::task::spawn_blocking(build).await;
        drop(permit);
        built.map_err(|_| StreamEnd::Update)?.map_err(unsealable)
    }

    fn builder<'b>(&'b self, view: &'b View) -> Builder<'b> {
        let node = (self.ticket.node.as_str(), &self.ticket.scope);
        Builder::new(&self.plane.vault, view, self.ticket.seal_key(), node)
    }

    /// `Err` when the node is gone.
    async fn send(&self, built: Built) -> Result<(), mpsc::error::SendError<Result<ServerMessage, Status>>> {
        for part in built.parts {
            self.outbound.send(Ok(ServerMessage { message: Some(ToNode::Update(part)) })).await?;
        }
        Ok(())
    }

    /// Waits for the answer to the update that was sent, and moves the position by it.
    async fn settle(
        &mut self,
        revision: Revision,
        digest: Digest,
        provisions: bool,
    ) -> Result<ControlFlow<()>, StreamEnd> {
        let nodes = &self.plane.fleet.nodes;
        let deadline = Instant::now() + ANSWER_DEADLINE;
        loop {
            let answer = tokio::time::timeout_at(deadline, self.answers.recv()).await;
            let Ok(answer) = answer else {
                return Err(StreamEnd::NoAnswer { revision, after: ANSWER_DEADLINE });
            };
            match answer {
                // The intake ended: the node left.
                None => return Ok(ControlFlow::Break(())),
                Some(answer) if answer.revision() != revision => {}
                Some(Answer::Applied { digest: theirs, apply_us, .. }) if theirs == digest.to_bytes() => {
                    self.provisioned |= provisions;
                    nodes.acked(self.ticket, revision, apply_us, self.provisioned, Instant::now());
                    self.lane.free(revision);
                    (self.position, self.refused) = (Some(revision), 0);
                    return Ok(ControlFlow::Continue(()));
                }
                Some(Answer::Applied { .. }) => {
                    nodes.failed(self.ticket, "its digest differs after an update; it gets a snapshot");
                    return self.refuse().map(ControlFlow::Continue);
                }
                Some(Answer::Refused { need_snapshot: true, message, .. }) => {
                    nodes.failed(self.ticket, &message);
                    return self.refuse().map(ControlFlow::Continue);
                }
                Some(Answer::Refused { message, problems, .. }) => {
                    // It has the entries of the update and serves an older form of some tenants.
                    nodes.failed(self.ticket, &message);
                    nodes.refused(self.ticket, revision, problems);
                    self.lane.free(revision);
                    self.provisioned |= provisions;
                    (self.position, self.refused) = (Some(revision), 0);
                    return Ok(ControlFlow::Continue(()));
                }
            }
        }
    }

    fn refuse(&mut self) -> Result<(), StreamEnd> {
        // What is denied in the refused update goes ahead of the snapshot.
        if let Some(position) = self.position.take() {
            self.lane.take_back(position);
        }
        self.refused += 1;
        if self.refused > SNAPSHOTS_REFUSED_MAX {
            return Err(StreamEnd::SnapshotsRefused(SNAPSHOTS_REFUSED_MAX));
        }
        Ok(())
    }
}

/// What stands in the way of an update as a whole is the node's own key.
fn unsealable(error: SecretError) -> StreamEnd {
    match error {
        SecretError::Seal(error) => StreamEnd::SealKey(error),
        error => {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "an update cannot be prepared");
            StreamEnd::Update
        }
    }
}
