//! A node that speaks the raw stream and keeps what it is sent, as the protocol says.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use gantry_model::digest::Digest;
use gantry_node::seal::{NodeSealKey, Purpose, Sealed};
use gantry_wire::sync_v1::node_message::Message;
use gantry_wire::sync_v1::sync_client::SyncClient;
use gantry_wire::sync_v1::*;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::harness::{DEADLINE, NODE_TOKEN, Result, add_token, channel};

/// What a node's process holds; outlives its connections.
pub(crate) struct Process {
    pub(crate) node_id: String,
    pub(crate) key: NodeSealKey,
    pub(crate) cluster_id: String,
    pub(crate) revision: u64,
    pub(crate) entries: BTreeMap<String, Vec<u8>>,
    pub(crate) secrets: BTreeMap<String, Vec<u8>>,
    pub(crate) node_keys: Option<NodeKeys>,
    pub(crate) mesh: Option<Mesh>,
}

/// One connection of a node.
pub(crate) struct Connection {
    to_server: mpsc::Sender<NodeMessage>,
    updates: Streaming<ServerMessage>,
    members_seen: usize,
}

impl Process {
    pub(crate) fn new(node_id: &str) -> Result<Process> {
        Ok(Process {
            node_id: node_id.to_owned(),
            key: NodeSealKey::generate()?,
            cluster_id: String::new(),
            revision: 0,
            entries: BTreeMap::new(),
            secrets: BTreeMap::new(),
            node_keys: None,
            mesh: None,
        })
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            node_id: self.node_id.clone(),
            incarnation: "one".to_owned(),
            build: "test".to_owned(),
            cluster_id: self.cluster_id.clone(),
            applied_revision: self.revision,
            applied_digest: self.digest(),
            seal_public_key: self.key.public_key().as_bytes().to_vec(),
            mesh: self.mesh.clone(),
        }
    }

    pub(crate) fn digest(&self) -> Vec<u8> {
        let mut digest = Digest::default();
        self.entries.iter().for_each(|(key, record)| digest.add(key, record));
        digest.to_bytes().to_vec()
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<Connection> {
        let connection = Connection::open(address, Some(NODE_TOKEN)).await??;
        connection.send(Message::Hello(self.hello())).await?;
        Ok(connection)
    }

    /// Connects and takes the first update.
    pub(crate) async fn join(&mut self, address: SocketAddr) -> Result<(Connection, Update)> {
        let mut connection = self.connect(address).await?;
        let update = self.follow(&mut connection).await?;
        Ok((connection, update))
    }

    /// Takes the next update, applies it and acknowledges it.
    pub(crate) async fn follow(&mut self, connection: &mut Connection) -> Result<Update> {
        let update = connection.update().await?;
        self.take(&update)?;
        connection.ack(&update, self.digest()).await?;
        Ok(update)
    }

    /// Follows until it has a revision.
    pub(crate) async fn follow_to(&mut self, connection: &mut Connection, revision: u64) -> Result {
        while self.revision < revision {
            self.follow(connection).await?;
        }
        Ok(())
    }

    /// Applies an update; it must lead to the digest that it says.
    pub(crate) fn take(&mut self, update: &Update) -> Result {
        if update.from_revision == 0 {
            self.entries.clear();
            self.secrets.clear();
        } else if update.from_revision != self.revision {
            return Err(format!("from {} at {}", update.from_revision, self.revision).into());
        }
        update.deletes.iter().for_each(|key| drop(self.entries.remove(key)));
        for entry in &update.upserts {
            self.entries.insert(entry.key.clone(), entry.record.to_vec());
        }
        for id in &update.secret_deletes {
            self.secrets.remove(&id.credential);
        }
        for released in &update.secrets {
            let id = released.id.as_ref().ok_or("an id")?;
            let purpose = Purpose::Credential {
                tenant: id.tenant.parse()?,
                credential: id.credential.parse()?,
                version: released.version,
            };
            let secret = self.key.open(&purpose, &sealed(released.sealed.as_ref())?)?;
            self.secrets.insert(id.credential.clone(), secret.expose().clone());
        }
        if let Some(keys) = &update.node_keys {
            let keys = self.key.open(&Purpose::NodeKeys, &sealed(Some(keys))?)?;
            self.node_keys = Some(prost::Message::decode(keys.expose().as_slice())?);
        }
        (self.revision, self.cluster_id) = (update.revision, update.cluster_id.clone());
        if self.digest() != update.digest_after {
            return Err("the digest differs".into());
        }
        Ok(())
    }
}

impl Connection {
    /// Opens the stream without a word; the inner error is the service's refusal.
    pub(crate) async fn open(
        address: SocketAddr,
        token: Option<&str>,
    ) -> Result<std::result::Result<Connection, Status>> {
        Connection::over(channel(address).await?, token).await
    }

    /// Opens the stream over a channel that is there already.
    pub(crate) async fn over(
        channel: Channel,
        token: Option<&str>,
    ) -> Result<std::result::Result<Connection, Status>> {
        let mut client = SyncClient::with_interceptor(channel, add_token(token)?)
            .max_decoding_message_size(gantry_wire::MESSAGE_BYTES_MAX);
        let (to_server, messages) = mpsc::channel(64);
        // The client's deadline is for calls; a stream has none.
        let mut request = tonic::Request::new(ReceiverStream::new(messages));
        request.set_timeout(DEADLINE * 10);
        let followed = client.follow(request).await;
        Ok(followed.map(|response| Connection { to_server, updates: response.into_inner(), members_seen: 0 }))
    }

    pub(crate) async fn send(&self, message: Message) -> Result {
        Ok(self.to_server.send(NodeMessage { message: Some(message) }).await?)
    }

    pub(crate) async fn ack(&self, update: &Update, digest: Vec<u8>) -> Result {
        self.send(Message::Ack(Ack { revision: update.revision, digest, apply_us: 42 })).await
    }

    /// The next update, its parts put together.
    pub(crate) async fn update(&mut self) -> Result<Update> {
        let mut whole: Option<Update> = None;
        loop {
            let part = self.part().await??;
            let last = part.last;
            let update = match whole.take() {
                None => part,
                Some(mut update) => {
                    update.upserts.extend(part.upserts);
                    update.deletes.extend(part.deletes);
                    update.secrets.extend(part.secrets);
                    update.secret_deletes.extend(part.secret_deletes);
                    Update { last, digest_after: part.digest_after, node_keys: part.node_keys, ..update }
                }
            };
            if last {
                return Ok(update);
            }
            whole = Some(update);
        }
    }

    /// The next part as it comes, whatever is told of members before; the inner error is how the service ended the
    /// stream.
    pub(crate) async fn part(&mut self) -> Result<std::result::Result<Update, Status>> {
        loop {
            match self.message().await? {
                Err(status) => return Ok(Err(status)),
                Ok(server_message::Message::Update(part)) => return Ok(Ok(part)),
                Ok(_) => {}
            }
        }
    }

    /// What is told next of bans, whatever else comes before; not answered yet.
    pub(crate) async fn urgent(&mut self) -> Result<Urgent> {
        loop {
            if let server_message::Message::Urgent(urgent) = self.message().await?? {
                return Ok(urgent);
            }
        }
    }

    /// The same, and the parts of an update that came before it.
    pub(crate) async fn urgent_and_parts(&mut self) -> Result<(Urgent, Vec<Update>)> {
        let mut parts = Vec::new();
        loop {
            match self.message().await?? {
                server_message::Message::Urgent(urgent) => return Ok((urgent, parts)),
                server_message::Message::Update(part) => parts.push(part),
                server_message::Message::Members(_)
                | server_message::Message::Counting(_)
                | server_message::Message::Distrusted(_) => {}
            }
        }
    }

    /// The next update, which has one part, and what is told before it of bans and denials.
    pub(crate) async fn urgent_and_update(&mut self) -> Result<(Option<Urgent>, Update)> {
        let mut urgent = None;
        loop {
            match self.message().await?? {
                server_message::Message::Urgent(told) => urgent = Some(told),
                server_message::Message::Update(update) => return Ok((urgent, update)),
                server_message::Message::Members(_)
                | server_message::Message::Counting(_)
                | server_message::Message::Distrusted(_) => {}
            }
        }
    }

    /// What is told next of the members, whatever updates come before.
    pub(crate) async fn members(&mut self) -> Result<Members> {
        loop {
            if let server_message::Message::Members(members) = self.message().await?? {
                return Ok(members);
            }
        }
    }

    async fn message(&mut self) -> Result<std::result::Result<server_message::Message, Status>> {
        let message = tokio::time::timeout(DEADLINE, self.updates.message()).await?;
        let message = match message {
            Err(status) => return Ok(Err(status)),
            Ok(message) => message.and_then(|message| message.message).ok_or("the stream ended")?,
        };
        self.members_seen += usize::from(matches!(message, server_message::Message::Members(_)));
        Ok(Ok(message))
    }

    /// How often it was told of members.
    pub(crate) fn members_seen(&self) -> usize {
        self.members_seen
    }

    /// The status with which the service ends the stream, whatever it sends before.
    pub(crate) async fn end(&mut self) -> Result<Status> {
        loop {
            if let Err(status) = self.part().await? {
                return Ok(status);
            }
        }
    }
}

fn sealed(sealed: Option<&SealedToNode>) -> Result<Sealed> {
    let sealed = sealed.ok_or("a sealed message")?;
    Ok(Sealed { encapsulated_key: sealed.encapsulated_key.clone(), ciphertext: sealed.ciphertext.clone() })
}
