//! Waiting until what was set up is served.
//!
//! Always holds: it ends within [`READY_TIMEOUT`]; a server that cannot be asked delays the start, and does not
//! prevent it.

use std::time::Duration;

use gantry_wire::admin_v1::ServerStatus;
use tokio::time::Instant;

use super::plan::Plan;
use crate::admin::Admin;
use crate::change::wait_once;
use crate::failure::Failure;
use crate::output;
use crate::verb::status::status;

/// How long a start waits for its servers: a child process that is installed on its first run takes most of it.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest single question to the control plane.
const QUESTION: Duration = Duration::from_secs(2);
/// How often to look.
const STEP: Duration = Duration::from_millis(20);

/// What is known of a server.
#[derive(Debug, PartialEq, Eq)]
enum Knowledge {
    /// Nothing yet.
    None,
    /// What it offers.
    Catalog,
    /// Why it cannot be asked.
    Failure(String),
}

/// Waits until so many nodes have the revision and it is known what each server offers, or why it is not; what is
/// amiss is said on standard error.
pub(super) async fn wait_until_ready(
    admin: &Admin,
    plan: &Plan,
    revision: u64,
    nodes: u8,
) -> Result<(), Failure> {
    let deadline = Instant::now() + READY_TIMEOUT;
    wait_for_nodes(admin, revision, nodes, deadline).await?;
    loop {
        let answer = status(admin).await?;
        let known: Vec<_> = plan
            .servers
            .iter()
            .map(|server| {
                (server.name.as_str(), knowledge(&answer.servers, plan.tenant, server.name.as_str()))
            })
            .collect();
        let is_complete = known.iter().all(|(_, knowledge)| *knowledge != Knowledge::None);
        if !is_complete && Instant::now() < deadline {
            tokio::time::sleep(STEP).await;
            continue;
        }
        for (name, knowledge) in known {
            match knowledge {
                Knowledge::Catalog => {}
                Knowledge::Failure(reason) => output::warn(&format!(
                    "the server {name} cannot be asked: {}; it is tried again, see `gantry status`",
                    output::visible(&reason)
                )),
                Knowledge::None => output::warn(&format!(
                    "the server {name} has not answered within {} s; see `gantry status`",
                    READY_TIMEOUT.as_secs()
                )),
            }
        }
        // The catalogs are changes of their own; a list asked for now should have them.
        return wait_for_nodes(admin, answer.revision, nodes, deadline).await;
    }
}

fn knowledge(servers: &[ServerStatus], tenant: &str, name: &str) -> Knowledge {
    match servers.iter().find(|server| server.tenant == tenant && server.name == name) {
        Some(server) if !server.failure.is_empty() => Knowledge::Failure(server.failure.clone()),
        Some(server) if !server.revisions.is_empty() => Knowledge::Catalog,
        Some(_) | None => Knowledge::None,
    }
}

async fn wait_for_nodes(admin: &Admin, revision: u64, nodes: u8, deadline: Instant) -> Result<(), Failure> {
    loop {
        let answer = wait_once(admin, revision, QUESTION).await?;
        if answer.node_count >= u32::from(nodes) && answer.acked_count >= answer.node_count {
            return Ok(());
        }
        if Instant::now() >= deadline {
            output::warn("not every node has the configuration yet; see `gantry status`");
            return Ok(());
        }
        tokio::time::sleep(STEP).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_its_catalog_or_by_its_failure() {
        let server = |revisions: &[&str], failure: &str| ServerStatus {
            tenant: "dev".to_owned(),
            name: "a".to_owned(),
            revisions: revisions.iter().map(ToString::to_string).collect(),
            failure: failure.to_owned(),
            ..ServerStatus::default()
        };
        assert_eq!(knowledge(&[], "dev", "a"), Knowledge::None);
        assert_eq!(knowledge(&[server(&[], "")], "dev", "a"), Knowledge::None);
        assert_eq!(knowledge(&[server(&["2025-11-25"], "")], "dev", "a"), Knowledge::Catalog);
        assert_eq!(
            knowledge(&[server(&["2025-11-25"], "x")], "dev", "a"),
            Knowledge::Failure("x".to_owned())
        );
        assert_eq!(knowledge(&[server(&["2025-11-25"], "")], "demo", "a"), Knowledge::None);
    }
}
