//! Every client with every server through the gateway, and the table of it in the README of the data plane.

use std::path::PathBuf;

use gantry_tests::governed;
use gantry_tests::matrix::{Server, Servers, Table, committed, replace, visit_all};
use gantry_tests::peers::{Client, or_skip};

/// Set to `1` to write the table instead of comparing it.
const WRITE_VARIABLE: &str = "GANTRY_WRITE_MATRIX";

/// Where the table stands.
fn readme() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../data-plane/README.md"))
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_and_servers_of_one_era_work_together_without_a_gateway() {
    let Some(servers) = or_skip(Servers::start().await) else { return };
    let mut table = Table::default();
    for client in [Client::PythonAuto, Client::TypeScriptV2, Client::TypeScriptV2Pinned, Client::RustAuto] {
        let speaks =
            |server: &Server| if client.is_modern() { server.is_modern() } else { server.is_legacy() };
        let plan = |server: Server| Some((server, servers.plan(server, servers.url(server)?, None)));
        let plans: Vec<_> = Server::ALL
            .into_iter()
            .filter(speaks)
            // HTTP+SSE is another transport; these clients have to be told of it.
            .filter(|server| *server != Server::EverythingSse)
            .filter_map(plan)
            .collect();
        let Some(seen) = or_skip(visit_all(client, &plans).await) else { return };
        table.add(client, seen);
    }
    assert_eq!(table.failures(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_works_through_the_gateway_is_what_the_readme_says() {
    let Some(servers) = or_skip(Servers::start().await) else { return };
    let dev = governed::start(&servers.options()).await;
    let ready = dev.ready();
    let plan = |server: Server| {
        let url = ready.endpoints[server.name()].clone();
        (server, servers.plan(server, url, ready.agent_key.clone()))
    };
    let plans: Vec<_> = Server::ALL.into_iter().map(plan).collect();
    let mut table = Table::default();
    for client in Client::ALL {
        let Some(seen) = or_skip(visit_all(client, &plans).await) else { return };
        table.add(client, seen);
    }
    let text = std::fs::read_to_string(readme()).expect("the README is there");
    let found = table.to_string();
    let failures = table.failures().join("\n");
    if std::env::var_os(WRITE_VARIABLE).is_some_and(|value| value == "1") {
        std::fs::write(readme(), replace(&text, &found)).expect("the README is written");
        println!("{found}\n{failures}");
        return;
    }
    let written = committed(&text).unwrap_or_default();
    assert!(written == found, "the README says\n{written}\nand found was\n{found}\n{failures}");
}
