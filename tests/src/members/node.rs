//! Nodes of a control plane of several members, each a real process, and what they answer to an agent.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{DEADLINE, Error, Member, Members, done, write_secret};
use crate::agent::{Agent, Message, Protocol};
use crate::process::{Running, Stream};

/// A node, and how it is started again.
pub struct Node<'a> {
    members: &'a Members,
    name: &'static str,
    control_planes: String,
}

impl Node<'_> {
    /// One that follows any of these members.
    #[must_use]
    pub fn new<'a>(members: &'a Members, name: &'static str, follows: &[&Member]) -> Node<'a> {
        let addresses: Vec<_> = follows.iter().map(|member| member.address.to_string()).collect();
        Node { members, name, control_planes: addresses.join(",") }
    }

    /// Joins with a token for these labels, and runs.
    pub async fn join(&self, at: &Member, labels: &[&str]) -> Result<(Running, SocketAddr), Error> {
        let token = [&["cluster", "token", "--role", "node"], labels].concat();
        let token = done(at.admin(self.members, &token).await?)?;
        write_secret(&self.members.path(&format!("{}.token", self.name)), &token.stdout)?;
        self.run().await
    }

    /// Runs, as what it was before.
    pub async fn run(&self) -> Result<(Running, SocketAddr), Error> {
        let path = |what: &str| self.members.path(&format!("{}.{what}", self.name));
        let mut node =
            self.members.gantry(&["data-plane", "run", "--output", "json", "--name", self.name])?;
        node.args(["--listen", "127.0.0.1:0", "--control-plane", &self.control_planes]);
        node.arg("--join-token-file").arg(path("token")).arg("--data-dir").arg(path("data"));
        let line = |stream, line: &str| (stream == Stream::Out).then(|| line.to_owned());
        let (running, line) = Running::start(node, DEADLINE, line).await?;
        let ready: Value = serde_json::from_str(&line)?;
        Ok((running, ready["address"].as_str().ok_or("an address")?.parse()?))
    }
}

/// A tenant with one server, one endpoint and one agent who may do everything.
#[must_use]
pub fn tenant(name: &str, server: &str, regions: &str) -> String {
    format!(
        "kind: Tenant\nname: {name}\nspec: {{regions: [{regions}]}}\n---\n\
         kind: Server\ntenant: {name}\nname: files\nspec: {{url: \"{server}\"}}\n---\n\
         kind: Endpoint\ntenant: {name}\nname: main\nspec: {{servers: [files]}}\n---\n\
         kind: Agent\ntenant: {name}\nname: bot\n---\n\
         kind: Policy\ntenant: {name}\nname: all\nspec: {{cedar: \"permit(principal, action, resource);\"}}\n"
    )
}

/// What a node answers to a call of a tenant's tool: status, and the sum or the code and message of the error.
pub async fn add(node: SocketAddr, tenant: &str, key: &str) -> Option<(u16, Value, Value)> {
    let url = format!("http://{node}/{tenant}/main/mcp");
    let mut agent = Agent::connect(&url, Protocol::Http1).await.ok()?;
    let answer = agent.ask(&Message::call("add", json!({"a": 2, "b": 3})).with_key(key)).await.ok()?;
    let message = answer.messages().pop().unwrap_or_else(|| answer.json());
    match message.pointer("/result/structuredContent/sum") {
        Some(sum) => Some((answer.status, sum.clone(), Value::Null)),
        None => Some((answer.status, message["error"]["code"].clone(), message["error"]["message"].clone())),
    }
}
