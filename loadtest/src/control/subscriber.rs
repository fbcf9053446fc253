//! A light node: it follows the stream as a node does, and serves nobody.
//!
//! Always holds: it keeps every record that it is sent, acknowledges an update with the digest of what it then holds, and
//! asks for a snapshot when that is not the one that it was told; it chooses members, and waits before it tries another,
//! as a node does (`data-plane/src/sync/choice.rs`). It does not open what is sealed to it, and compiles nothing.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use gantry_model::digest::Digest;
use gantry_node::{membership::Membership, seal::NodeSealKey};
use gantry_wire::{
    MESSAGE_BYTES_MAX,
    sync_v1::{
        Ack, Hello, Mesh, Nack, NodeMessage, Update, Urgent, UrgentAck, node_message::Message as ToServer,
        server_message::Message as FromServer, sync_client::SyncClient,
    },
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use super::ControlError;

/// Answers that wait for the transport; there is one at a time.
const ANSWERS_QUEUED_MAX: usize = 4;
/// As a node: how long a connection may take, the first pause, the longest, and what makes a stream a good one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
const STEADY: Duration = Duration::from_millis(500);
const DOUBLINGS_MAX: u32 = 6;
/// What the nodes of a run say of their place in the mesh; nobody dials it.
const MESH_FINGERPRINT_BYTES: usize = 32;

/// Something that a node did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    /// Which node, from 0.
    pub(super) node: usize,
    /// When it had done it.
    pub(super) at: Instant,
    /// What.
    pub(super) what: What,
}

/// What it did.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// It took an update.
    Applied {
        /// Which member sent it, from 0.
        member: usize,
        /// The revision that it had; 0: this was a snapshot.
        from: u64,
        /// The revision that it then has.
        to: u64,
        /// Bytes of the update's messages.
        update_bytes: usize,
        /// Bytes of its answer.
        answer_bytes: usize,
        /// Whether it is the first of a stream.
        is_first: bool,
    },
    /// Its stream ended.
    Lost,
}

/// A node and what it holds.
pub(super) struct Subscriber {
    number: usize,
    membership: Membership,
    members: Vec<SocketAddr>,
    /// Which of them it follows.
    current: usize,
    failures: u32,
    key: NodeSealKey,
    held: Held,
    events: mpsc::UnboundedSender<Event>,
    random: u64,
}

/// What a node was sent.
#[derive(Default)]
struct Held {
    entries: BTreeMap<String, Vec<u8>>,
    digest: Digest,
    revision: u64,
    cluster_id: String,
}

impl Subscriber {
    /// A node that has nothing and begins with the member of its number.
    pub(super) fn new(
        number: usize,
        membership: Membership,
        members: Vec<SocketAddr>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Self, ControlError> {
        let current = number % members.len();
        Ok(Self {
            number,
            membership,
            members,
            current,
            failures: 0,
            key: NodeSealKey::generate().map_err(ControlError::Seal)?,
            held: Held::default(),
            events,
            random: number as u64 * 2 + 1,
        })
    }

    /// Follows until it is aborted.
    pub(super) async fn run(mut self) {
        loop {
            let began = Instant::now();
            // Why does not matter to a node, and the report counts what did not come back.
            let _ = self.follow().await;
            self.tell(What::Lost);
            let pause = self.failed(began.elapsed());
            tokio::time::sleep(pause).await;
        }
    }

    async fn follow(&mut self) -> Result<(), ControlError> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.members[self.current]))?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
        let channel = endpoint.connect_with_connector(self.membership.connector()?).await?;
        let mut client = SyncClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (answers, outbound) = mpsc::channel(ANSWERS_QUEUED_MAX);
        let gone = |_| ControlError::Closed;
        answers.send(message(ToServer::Hello(self.hello()))).await.map_err(gone)?;
        let mut stream = client.follow(ReceiverStream::new(outbound)).await?.into_inner();
        let (mut parts, mut update_bytes, mut is_first) = (Vec::new(), 0, true);
        while let Some(message) = stream.message().await? {
            let part = match message.message {
                Some(FromServer::Update(part)) => part,
                Some(FromServer::Urgent(Urgent { revision, .. })) => {
                    // It serves nobody whom a ban could stop.
                    answers
                        .send(self::message(ToServer::Urgent(UrgentAck { revision })))
                        .await
                        .map_err(gone)?;
                    continue;
                }
                Some(FromServer::Members(_) | FromServer::Counting(_) | FromServer::Distrusted(_)) | None => {
                    continue;
                }
            };
            update_bytes += part.encoded_len();
            let is_last = part.last;
            parts.push(part);
            if !is_last {
                continue;
            }
            let from = parts.first().map_or(0, |part| part.from_revision);
            let answer = self.held.take(std::mem::take(&mut parts));
            let is_good = matches!(answer.message, Some(ToServer::Ack(_)));
            let at = Instant::now();
            let answer_bytes = answer.encoded_len();
            answers.send(answer).await.map_err(gone)?;
            if is_good {
                let (member, to) = (self.current, self.held.revision);
                let what = What::Applied { member, from, to, update_bytes, answer_bytes, is_first };
                let _ = self.events.send(Event { node: self.number, at, what });
                is_first = false;
            }
            update_bytes = 0;
        }
        Err(ControlError::Closed)
    }

    fn hello(&self) -> Hello {
        Hello {
            node_id: name(self.number),
            incarnation: format!("light-{}-1", self.number),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_id: self.held.cluster_id.clone(),
            applied_revision: self.held.revision,
            applied_digest: self.held.digest.to_bytes().to_vec(),
            seal_public_key: self.key.public_key().as_bytes().to_vec(),
            // A node of the usual configuration takes part in the mesh.
            mesh: Some(Mesh {
                address: format!("127.0.0.1:{}", 10_000 + self.number % 50_000),
                certificate_fingerprint: vec![7; MESH_FINGERPRINT_BYTES],
            }),
        }
    }

    fn tell(&self, what: What) {
        let _ = self.events.send(Event { node: self.number, at: Instant::now(), what });
    }

    /// Goes to another member, and says after how long.
    fn failed(&mut self, lasted: Duration) -> Duration {
        if lasted >= STEADY {
            self.failures = 0;
        }
        let others = self.members.len() as u64 - 1;
        if others > 0 {
            let step = 1 + usize::try_from(self.next_random() % others).unwrap_or(0);
            self.current = (self.current + step) % self.members.len();
        }
        let most = (PAUSE_FIRST * 2_u32.pow(self.failures)).min(PAUSE_MAX);
        self.failures = (self.failures + 1).min(DOUBLINGS_MAX);
        most.mul_f64((self.next_random() % 1_000) as f64 / 1_000.0)
    }

    /// SplitMix64: two runs of the same nodes wait alike.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Held {
    /// Takes an update whole, and answers it.
    fn take(&mut self, parts: Vec<Update>) -> NodeMessage {
        let Some((from, to)) = parts.last().map(|last| (last.from_revision, last.revision)) else {
            return message(ToServer::Nack(Nack { need_snapshot: true, ..Nack::default() }));
        };
        if from == 0 {
            self.entries.clear();
            self.digest = Digest::default();
        }
        let fits = from == 0 || from == self.revision;
        let expected = parts.last().map(|last| last.digest_after.clone()).unwrap_or_default();
        for part in parts.into_iter().filter(|_| fits) {
            for key in part.deletes {
                if let Some(before) = self.entries.remove(&key) {
                    self.digest.remove(&key, &before);
                }
            }
            for entry in part.upserts {
                self.digest.add(&entry.key, &entry.record);
                if let Some(before) = self.entries.insert(entry.key.clone(), entry.record.to_vec()) {
                    self.digest.remove(&entry.key, &before);
                }
            }
            self.cluster_id = part.cluster_id;
        }
        let digest = self.digest.to_bytes().to_vec();
        if !fits || digest != expected {
            return message(ToServer::Nack(Nack { revision: to, need_snapshot: true, ..Nack::default() }));
        }
        self.revision = to;
        message(ToServer::Ack(Ack { revision: to, digest, apply_us: 1 }))
    }
}

/// The name of a node by its number.
pub(super) fn name(number: usize) -> String {
    format!("light-{number}")
}

fn message(message: ToServer) -> NodeMessage {
    NodeMessage { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use gantry_wire::sync_v1::Entry;

    use super::*;

    fn update(from: u64, to: u64, entries: &[(&str, &str)], held: &[(&str, &str)]) -> Update {
        let mut digest = Digest::default();
        held.iter().for_each(|(key, record)| digest.add(key, record.as_bytes()));
        let entry = |(key, record): &(&str, &str)| Entry {
            key: (*key).to_owned(),
            record: record.as_bytes().to_vec().into(),
        };
        Update {
            from_revision: from,
            revision: to,
            upserts: entries.iter().map(entry).collect(),
            last: true,
            digest_after: digest.to_bytes().to_vec(),
            ..Update::default()
        }
    }

    fn is_taken(answer: &NodeMessage) -> bool {
        matches!(answer.message, Some(ToServer::Ack(_)))
    }

    #[test]
    fn an_update_is_acknowledged_when_it_leads_to_the_digest_that_it_says() {
        let mut node = Held::default();
        let first = update(0, 5, &[("a", "1"), ("b", "2")], &[("a", "1"), ("b", "2")]);
        assert!(is_taken(&node.take(vec![first])));
        let mut delta = update(5, 6, &[("a", "3")], &[("a", "3")]);
        delta.deletes = vec!["b".to_owned()];
        assert!(is_taken(&node.take(vec![delta])));
        assert_eq!((node.revision, node.entries.len()), (6, 1));
        let wrong = update(6, 7, &[("c", "1")], &[("c", "1")]);
        assert!(!is_taken(&node.take(vec![wrong])), "it holds a, too");
        let gap = update(5, 8, &[], &[("a", "3")]);
        assert!(!is_taken(&node.take(vec![gap])));
        let again = update(0, 9, &[("c", "1")], &[("c", "1")]);
        assert!(is_taken(&node.take(vec![again])), "a snapshot replaces everything");
        assert_eq!(node.entries.len(), 1);
    }
}
