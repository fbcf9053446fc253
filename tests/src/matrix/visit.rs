//! Letting one client visit all servers, and judging what it saw.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::table::NOT_CONNECTED;
use super::{Plan, Server, Step, rust_client};
use crate::peers::{Client, ClientError, Node, Python};
use crate::process::run;

/// The time one client has for all servers. The slowest takes half a minute on a busy machine.
const VISIT_TIME_MAX: Duration = Duration::from_secs(150);

/// What came of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It worked.
    Works,
    /// It did not; why.
    Fails(String),
}

/// Lets a client do what the plans say, one server after the other; returns what came of each step.
///
/// # Errors
/// When the client cannot be installed, or does not get to its end. What it could not do is no error here.
pub async fn visit_all(
    client: Client,
    plans: &[(Server, Plan)],
) -> Result<BTreeMap<(Server, Step), Seen>, ClientError> {
    let outcomes = match client {
        Client::PythonAuto => of_script(Python::install().await?.command("python-matrix.py"), plans).await?,
        Client::TypeScriptV1 => of_typescript("v1", plans).await?,
        Client::TypeScriptV2 => of_typescript("v2", plans).await?,
        Client::TypeScriptV2Pinned => of_typescript("v2-pinned", plans).await?,
        Client::RustAuto | Client::RustInitialize | Client::RustDiscover => {
            let mut outcomes = json!({});
            for (server, plan) in plans {
                outcomes[server.name()] = rust_client::visit(client.lifecycle(), plan).await;
            }
            outcomes
        }
    };
    let mut seen = BTreeMap::new();
    for (server, _) in plans {
        for step in Step::ALL {
            if let Some(expected) = server.expected(step) {
                seen.insert((*server, step), judge(&outcomes[server.name()], step, expected));
            }
        }
    }
    Ok(seen)
}

async fn of_typescript(kind: &str, plans: &[(Server, Plan)]) -> Result<Value, ClientError> {
    let mut command = Node::install().await?.command("typescript-matrix.mjs");
    command.arg(kind);
    of_script(command, plans).await
}

async fn of_script(
    mut command: tokio::process::Command,
    plans: &[(Server, Plan)],
) -> Result<Value, ClientError> {
    let servers: Vec<_> = plans.iter().map(|(_, plan)| plan).collect();
    command.env("MCP_PLAN", json!({ "servers": servers }).to_string());
    let finished = run(command, VISIT_TIME_MAX).await?;
    if !finished.status.success() {
        return Err(ClientError::Failed(finished.stdout + &finished.stderr));
    }
    serde_json::from_str(&finished.stdout)
        .map_err(|source| ClientError::Output { output: finished.stdout, source })
}

fn judge(outcome: &Value, step: Step, expected: &str) -> Seen {
    if let Some(error) = outcome.pointer("/connect/error") {
        return Seen::Fails(format!("{NOT_CONNECTED}{error}"));
    }
    let acted = &outcome[step.word()];
    let result = &acted["result"];
    if result.is_null() {
        return Seen::Fails(acted.to_string());
    }
    let increases = |seen: &Value| {
        let steps: Vec<f64> = seen.as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        steps.len() > 1 && steps.windows(2).all(|pair| pair[0] < pair[1])
    };
    let says = contains(result, expected);
    if !says || result["isError"] == true || (step == Step::Progress && !increases(&result["seen"])) {
        return Seen::Fails(acted.to_string());
    }
    Seen::Works
}

/// Whether some text within the value has `expected` in it.
fn contains(value: &Value, expected: &str) -> bool {
    match value {
        Value::String(text) => text.contains(expected),
        Value::Array(values) => values.iter().any(|value| contains(value, expected)),
        Value::Object(fields) => fields.values().any(|value| contains(value, expected)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
