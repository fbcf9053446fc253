//! A cluster that holds records and secrets, and members of it that serve the stream.
//!
//! Always holds: a member that is killed is gone at once, with all its connections; one that is stopped keeps them and
//! says nothing, as a process that got SIGSTOP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gantry_model::digest::Digest;
use gantry_model::record::{Record, RecordKey, RecordValue};
use gantry_model::resource::{Resource, Spec};
use gantry_model::{Ban, Revision, Secret};
use gantry_node::seal::{Purpose, SealPublicKey, seal};
use gantry_wire::sync_v1 as wire;
use gantry_wire::sync_v1::node_message::Message as FromNode;
use gantry_wire::sync_v1::server_message::Message as ToNode;
use gantry_wire::sync_v1::sync_server::{Sync, SyncServer};
use prost::Message;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::follower::DEADLINE;

/// What all members have.
#[derive(Clone)]
pub(super) struct Cluster(Arc<watch::Sender<State>>, Arc<Lane>);

/// What goes ahead of updates.
#[derive(Default)]
struct Lane {
    urgent: watch::Sender<wire::Urgent>,
    /// The revision of the latest that a node said is in force.
    acked: watch::Sender<u64>,
    /// While it is set, the end of each update is held back.
    held: watch::Sender<bool>,
}

#[derive(Clone)]
struct State {
    id: String,
    revision: u64,
    entries: BTreeMap<String, Bytes>,
    /// Keys by the revision that changed them.
    changes: Vec<(u64, String)>,
    digests: BTreeMap<u64, Vec<u8>>,
    /// By tenant and credential.
    secrets: BTreeMap<(String, String), Vec<u8>>,
}

/// One update that a member sent and a node acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Served {
    /// 0: a snapshot.
    pub(super) from: u64,
    pub(super) to: u64,
}

/// A process of the control plane.
pub(super) struct Member {
    pub(super) address: SocketAddr,
    served: Arc<Mutex<Vec<Served>>>,
    /// Streams that were opened, whatever became of them.
    opened: Arc<watch::Sender<usize>>,
    end: CancellationToken,
    runtime: Option<Runtime>,
    thaw: Option<std::sync::mpsc::Sender<()>>,
}

#[derive(Clone)]
struct Service {
    cluster: Cluster,
    served: Arc<Mutex<Vec<Served>>>,
    opened: Arc<watch::Sender<usize>>,
    end: CancellationToken,
}

impl Cluster {
    pub(super) fn new(id: &str) -> Cluster {
        let state = State {
            id: id.to_owned(),
            revision: 1,
            entries: BTreeMap::new(),
            changes: Vec::new(),
            digests: BTreeMap::from([(1, Digest::default().to_bytes().to_vec())]),
            secrets: BTreeMap::new(),
        };
        Cluster(Arc::new(watch::Sender::new(state)), Arc::default())
    }

    /// Applies a resource; returns its revision.
    pub(super) fn apply(&self, resource: Resource) -> Revision {
        self.put(RecordValue::Resource(Arc::new(resource)))
    }

    /// Has a ban sent ahead of all updates, and puts it into the next ones.
    pub(super) fn ban(&self, ban: Ban) -> Revision {
        let key = RecordKey::ban(&ban.tenant, &ban.target).to_string();
        let revision = self.put(RecordValue::Ban(Arc::new(ban)));
        let record = self.0.borrow().entries[&key].clone();
        let upserts = vec![wire::Entry { key, record }];
        self.1.urgent.send_replace(wire::Urgent {
            revision: revision.0,
            upserts,
            cluster_id: self.0.borrow().id.clone(),
            ..wire::Urgent::default()
        });
        revision
    }

    /// Applies a resource, and has what decides about its tenant sent ahead of all updates.
    pub(super) fn deny(&self, resource: Resource) -> Revision {
        let tenant = resource.tenant.to_string();
        let revision = self.apply(resource);
        let state = self.0.borrow().clone();
        let names = |kind: &str| {
            let prefix = format!("{tenant}/{kind}/");
            let names = state.entries.keys().filter_map(|key| key.strip_prefix(&prefix));
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        let policy = |name: String| {
            let record = gantry_wire::decode_record(&state.entries[&format!("{tenant}/policy/{name}")]);
            let RecordValue::Resource(resource) = record.expect("a record").value else { panic!("{name}") };
            let Spec::Policy(spec) = &resource.spec else { panic!("{name}") };
            wire::NarrowingPolicy { name, cedar: spec.cedar.clone(), needs_approval: spec.approval.is_some() }
        };
        let agent = |name| wire::NarrowingAgent { name, groups: Vec::new() };
        let narrowing = wire::Narrowing {
            tenant: tenant.clone(),
            revision: revision.0,
            policies: names("policy").into_iter().map(policy).collect(),
            agents: names("agent").into_iter().map(agent).collect(),
            servers: names("server"),
            endpoints: names("endpoint"),
        };
        self.1.urgent.send_replace(wire::Urgent {
            revision: revision.0,
            cluster_id: state.id.clone(),
            narrowings: vec![narrowing],
            ..wire::Urgent::default()
        });
        revision
    }

    /// Takes a ban out of the next updates.
    pub(super) fn lift(&self, ban: &Ban) -> Revision {
        let key = RecordKey::ban(&ban.tenant, &ban.target).to_string();
        let mut revision = 0;
        self.0.send_modify(|state| {
            state.revision += 1;
            revision = state.revision;
            state.entries.remove(&key);
            state.changes.push((revision, key.clone()));
            state.note_digest();
        });
        Revision(revision)
    }

    /// Waits until a node has in force what was sent ahead.
    pub(super) async fn is_in_force(&self, revision: Revision) {
        let mut acked = self.1.acked.subscribe();
        let acked = tokio::time::timeout(DEADLINE, acked.wait_for(|acked| *acked >= revision.0)).await;
        assert!(matches!(acked, Ok(Ok(_))), "it is not said to be in force");
    }

    /// Holds back the end of each update, or no longer.
    pub(super) fn hold(&self, held: bool) {
        self.1.held.send_replace(held);
    }

    fn put(&self, value: RecordValue) -> Revision {
        let mut revision = 0;
        self.0.send_modify(|state| {
            state.revision += 1;
            revision = state.revision;
            let record = Record { revision: Revision(revision), value: value.clone() };
            let key = record.value.key().to_string();
            state.entries.insert(key.clone(), gantry_wire::encode_record(&record).into());
            state.changes.push((revision, key));
            state.note_digest();
        });
        Revision(revision)
    }

    /// Sets a secret before any node is there.
    pub(super) fn put_secret(&self, tenant: &str, credential: &str, secret: &[u8]) {
        let id = (tenant.to_owned(), credential.to_owned());
        self.0.send_modify(|state| drop(state.secrets.insert(id, secret.to_vec())));
    }

    /// What keys the nodes share: the same at every member.
    pub(super) fn node_keys() -> wire::NodeKeys {
        wire::NodeKeys {
            key_hash_key: b"the key of hashes: 32 bytes long".to_vec(),
            session_key: b"the key of seals, 32 bytes long.".to_vec(),
            seal_keys: vec![wire::SealKey {
                generation: 1,
                key: b"the key of seals, 32 bytes long.".to_vec(),
            }],
        }
    }
}

impl State {
    fn note_digest(&mut self) {
        let mut digest = Digest::default();
        self.entries.iter().for_each(|(key, record)| digest.add(key, record));
        self.digests.insert(self.revision, digest.to_bytes().to_vec());
    }

    /// From where a node goes on; 0: from nothing.
    fn position(&self, hello: &wire::Hello) -> u64 {
        let is_ours = hello.cluster_id == self.id
            && self.digests.get(&hello.applied_revision) == Some(&hello.applied_digest);
        if is_ours { hello.applied_revision } else { 0 }
    }

    fn update(&self, from: u64, first_for: Option<&SealPublicKey>) -> wire::Update {
        let changed = |key: &String| self.changes.iter().any(|(at, changed)| *at > from && changed == key);
        let upserts = self.entries.iter().filter(|(key, _)| from == 0 || changed(key));
        let gone =
            self.changes.iter().filter(|(at, key)| from > 0 && *at > from && !self.entries.contains_key(key));
        let mut update = wire::Update {
            deletes: gone.map(|(_, key)| key.clone()).collect(),
            from_revision: from,
            revision: self.revision,
            upserts: upserts
                .map(|(key, record)| wire::Entry { key: key.clone(), record: record.clone() })
                .collect(),
            last: true,
            digest_after: self.digests[&self.revision].clone(),
            cluster_id: self.id.clone(),
            ..wire::Update::default()
        };
        if let Some(recipient) = first_for {
            let keys = Secret::new(Cluster::node_keys().encode_to_vec());
            update.node_keys = Some(sealed(recipient, &Purpose::NodeKeys, &keys));
            update.secrets = self.secrets.iter().map(|(id, secret)| release(recipient, id, secret)).collect();
        }
        update
    }
}

fn release(recipient: &SealPublicKey, id: &(String, String), secret: &[u8]) -> wire::ReleasedSecret {
    let purpose = Purpose::Credential {
        tenant: id.0.parse().expect("a name"),
        credential: id.1.parse().expect("a name"),
        version: 1,
    };
    wire::ReleasedSecret {
        id: Some(wire::SecretId { tenant: id.0.clone(), credential: id.1.clone() }),
        version: 1,
        sealed: Some(sealed(recipient, &purpose, &Secret::new(secret.to_vec()))),
    }
}

fn sealed(recipient: &SealPublicKey, purpose: &Purpose, plaintext: &Secret<Vec<u8>>) -> wire::SealedToNode {
    let sealed = seal(recipient, purpose, plaintext).expect("a usable key");
    wire::SealedToNode { encapsulated_key: sealed.encapsulated_key, ciphertext: sealed.ciphertext }
}

impl Member {
    /// Starts a member on a free port, with threads of its own.
    pub(super) fn start(cluster: &Cluster) -> Member {
        let (served, opened) = (Arc::default(), Arc::new(watch::Sender::new(0)));
        let end = CancellationToken::new();
        let service = Service {
            cluster: cluster.clone(),
            served: Arc::clone(&served),
            opened: opened.clone(),
            end: end.clone(),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let address = listener.local_addr().expect("an address");
        // One thread: whoever blocks it stops the member.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let router = tonic::transport::Server::builder().add_service(SyncServer::new(service));
            router.serve_with_incoming(TcpListenerStream::new(listener)).await
        });
        Member { address, served, opened, end, runtime: Some(runtime), thaw: None }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The updates that nodes acknowledged here.
    pub(super) fn served(&self) -> Vec<Served> {
        self.served.lock().expect("no thread panicked").clone()
    }

    /// Waits until it sent exactly these; a node that has an update may have been faster than its acknowledgement.
    pub(super) async fn has_served(&self, expected: &[Served]) {
        let until = Instant::now() + DEADLINE;
        let mut again = tokio::time::interval(Duration::from_millis(5));
        while self.served() != expected {
            assert!(Instant::now() < until, "it sent {:?}, not {expected:?}", self.served());
            again.tick().await;
        }
    }

    /// How many streams were opened here.
    pub(super) fn opened(&self) -> watch::Receiver<usize> {
        self.opened.subscribe()
    }

    /// Ends all at once.
    pub(super) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Ends its streams as a member does that goes down, and refuses new ones.
    pub(super) fn go_down(&self) {
        self.end.cancel();
    }

    /// Stops without a word, until it is dropped.
    pub(super) fn stop(&mut self) {
        let (thaw, thawed) = std::sync::mpsc::channel();
        self.thaw = Some(thaw);
        let runtime = self.runtime.as_ref().expect("it runs");
        let (is_stopped, stopped) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            is_stopped.send(()).expect("somebody waits");
            let _ = thawed.recv();
        });
        stopped.recv().expect("it stops");
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.thaw = None;
        self.kill();
    }
}

type Updates = Pin<Box<dyn Stream<Item = Result<wire::ServerMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Sync for Service {
    type FollowStream = Updates;

    async fn follow(
        &self,
        request: Request<Streaming<wire::NodeMessage>>,
    ) -> Result<Response<Updates>, Status> {
        self.opened.send_modify(|opened| *opened += 1);
        let (sender, receiver) = mpsc::channel(1);
        let (service, urgent) = (self.clone(), sender.clone());
        tokio::spawn(self.clone().urge(urgent));
        tokio::spawn(async move {
            let served = service.end.run_until_cancelled(service.serve(request.into_inner(), &sender)).await;
            if served.is_none() {
                let _ = sender.send(Err(Status::unavailable("the control plane is going down"))).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn ask_approval(
        &self,
        _: Request<wire::AskApprovalRequest>,
    ) -> Result<Response<wire::ApprovalAnswer>, Status> {
        Err(Status::unimplemented("nothing is approved here"))
    }

    async fn take_approval(
        &self,
        _: Request<wire::TakeApprovalRequest>,
    ) -> Result<Response<wire::ApprovalAnswer>, Status> {
        Err(Status::unimplemented("nothing is approved here"))
    }
}

impl Service {
    /// Sends what goes ahead, as it comes.
    async fn urge(self, outbound: mpsc::Sender<Result<wire::ServerMessage, Status>>) {
        let mut urgent = self.cluster.1.urgent.subscribe();
        while urgent.changed().await.is_ok() {
            let message = Some(ToNode::Urgent(urgent.borrow_and_update().clone()));
            if outbound.send(Ok(wire::ServerMessage { message })).await.is_err() {
                return;
            }
        }
    }

    /// Sends an update; its end only when nothing holds it back.
    async fn send(
        &self,
        update: wire::Update,
        inbound: &mut Streaming<wire::NodeMessage>,
        outbound: &mpsc::Sender<Result<wire::ServerMessage, Status>>,
    ) -> Option<()> {
        let message = |update| Ok(wire::ServerMessage { message: Some(ToNode::Update(update)) });
        let mut held = self.cluster.1.held.subscribe();
        if *held.borrow_and_update() {
            let end = wire::Update { upserts: Vec::new(), ..update.clone() };
            outbound.send(message(wire::Update { last: false, ..update })).await.ok()?;
            while *held.borrow_and_update() {
                tokio::select! {
                    changed = held.changed() => changed.ok()?,
                    reported = inbound.message() => self.note(reported.ok()??.message),
                }
            }
            return outbound.send(message(end)).await.ok();
        }
        outbound.send(message(update)).await.ok()
    }

    fn note(&self, message: Option<FromNode>) {
        if let Some(FromNode::Urgent(ack)) = message {
            self.cluster.1.acked.send_replace(ack.revision);
        }
    }

    /// Ends with `None` when the node left.
    async fn serve(
        &self,
        mut inbound: Streaming<wire::NodeMessage>,
        outbound: &mpsc::Sender<Result<wire::ServerMessage, Status>>,
    ) -> Option<()> {
        let Some(FromNode::Hello(hello)) = inbound.message().await.ok()??.message else { return None };
        let key = SealPublicKey::try_from(hello.seal_public_key.as_slice()).ok()?;
        let mut states = self.cluster.0.subscribe();
        let mut position = states.borrow().position(&hello);
        let mut first_for = Some(&key);
        loop {
            let update = states.borrow_and_update().update(position, first_for.take());
            let to = update.revision;
            self.send(update, &mut inbound, outbound).await?;
            loop {
                match inbound.message().await.ok()??.message {
                    Some(FromNode::Ack(ack)) if ack.revision == to => break,
                    Some(FromNode::Nack(nack)) => panic!("refused: {nack:?}"),
                    other => self.note(other),
                }
            }
            self.served.lock().expect("no thread panicked").push(Served { from: position, to });
            position = to;
            loop {
                tokio::select! {
                    changed = states.changed() => break changed.ok()?,
                    // What it reports is nobody's concern here.
                    reported = inbound.message() => self.note(reported.ok()??.message),
                }
            }
        }
    }
}
