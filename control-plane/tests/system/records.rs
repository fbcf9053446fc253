//! Audit records: tail and explain.

use gantry_wire::admin_v1::*;
use gantry_wire::sync_v1::RecordReport;
use gantry_wire::sync_v1::node_message::Message;
use serde_json::{Value, json};
use tonic::Code;

use crate::admins::make;
use crate::harness::{DEADLINE, Harness, Result, acme, eventually, policy};
use crate::node::{Connection, Process};

fn record(id: &str, verdict: &str) -> Value {
    json!({"decision_id": id, "tenant": "acme", "verdict": verdict, "tool": "read_file",
        "policies": [{"policy": "readers", "id": "0"}, {"policy": "readers", "id": "1"}, {"policy": "gone", "id": "0"}]})
}

async fn report(connection: &Connection, records: &[Value], dropped: u64) -> Result {
    let records = records.iter().map(|record| record.to_string().into_bytes()).collect();
    connection.send(Message::Records(RecordReport { records, dropped })).await
}

async fn next(stream: &mut tonic::Streaming<TailRecordsResponse>) -> Result<Option<Value>> {
    let message = tokio::time::timeout(DEADLINE, stream.message()).await??;
    let Some(TailRecordsResponse { record, lost }) = message else { return Ok(None) };
    assert_eq!(lost, 0);
    Ok(Some(serde_json::from_slice(&record)?))
}

#[tokio::test]
async fn records_are_tailed_and_a_denial_is_explained() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let cedar = "forbid(principal, action, resource);";
    let revision = harness.apply(&[policy("readers", cedar)]).await?;
    let mut process = Process::new("node")?;
    let (connection, _) = process.join(harness.address()).await?;
    let tail = |last, follow, tenant: &str| TailRecordsRequest {
        last,
        follow,
        tenant: tenant.into(),
        ..Default::default()
    };
    let mut following = harness.admin.tail_records(tail(0, true, "acme")).await?.into_inner();

    report(&connection, &[record("d1", "allow"), record("d2", "deny"), record("d3", "allow")], 7).await?;
    for id in ["d1", "d2", "d3"] {
        assert_eq!(next(&mut following).await?.ok_or("a record")?["decision_id"], id);
    }
    let mut past = harness.admin.tail_records(tail(2, false, "")).await?.into_inner();
    assert_eq!(next(&mut past).await?, Some(record("d2", "deny")));
    assert_eq!(next(&mut past).await?, Some(record("d3", "allow")));
    assert_eq!(next(&mut past).await?, None);

    let explained = |id: &str| ExplainResponse {
        record: record(id, if id == "d2" { "deny" } else { "allow" }).to_string().into_bytes(),
        policies: vec![PolicyText { name: "readers".into(), cedar: cedar.into(), revision }],
        current_revision: revision,
        bans: Vec::new(),
    };
    for (asked, id) in [("d1", "d1"), ("last", "d2")] {
        let request = ExplainRequest { decision_id: asked.into() };
        assert_eq!(harness.admin.explain(request).await?.into_inner(), explained(id));
    }
    let unknown = harness.admin.explain(ExplainRequest { decision_id: "d9".into() }).await;
    assert_eq!(unknown.map_err(|status| status.code()).err(), Some(Code::NotFound));

    // What is no record is not taken in, and shows at the node.
    report(&connection, &[json!({"no": "record"})], 8).await?;
    let wrong = |status: &StatusResponse| {
        status.nodes[0].records_dropped == 8 && !status.nodes[0].last_error.is_empty()
    };
    let status = eventually(async || harness.status().await, wrong).await?;
    assert_eq!(status.nodes[0].last_error, "a record is not JSON of the form that this build knows");
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_slow_reader_whose_rights_end_is_told_so_and_not_left_with_a_clean_end() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let (mut alice, _) = make(&mut harness, "alice", &["auditor:acme"]).await?;
    let request = TailRecordsRequest { follow: true, ..Default::default() };
    let mut following = alice.tail_records(request).await?.into_inner();
    let mut process = Process::new("node")?;
    let (connection, _) = process.join(harness.address()).await?;
    // More than fits on the way to a reader that does not read, and so long that each takes what room there is.
    let filler = "x".repeat(900 * 1024);
    for id in 0..32 {
        let record = json!({"decision_id": format!("d{id}"), "tenant": "acme", "filler": filler});
        report(&connection, &[record], 0).await?;
    }
    let last = ExplainRequest { decision_id: "d31".into() };
    let came = |answer: &bool| *answer;
    eventually(async || Ok(harness.admin.explain(last.clone()).await.is_ok()), came).await?;
    harness.admin.delete_admin(DeleteAdminRequest { name: "alice".into(), ..Default::default() }).await?;
    let ended = loop {
        match tokio::time::timeout(DEADLINE, following.message()).await? {
            Ok(Some(_)) => {}
            ended => break ended.map(|_| ()).map_err(|status| status.code()),
        }
    };
    assert_eq!(ended, Err(Code::Unauthenticated));
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_tail_ends_when_the_control_plane_goes_down() -> Result {
    let mut harness = Harness::start().await?;
    let request = TailRecordsRequest { last: 0, follow: true, tenant: String::new(), ..Default::default() };
    let mut following = harness.admin.tail_records(request).await?.into_inner();
    let stopping = tokio::spawn(harness.stop());
    let ended = tokio::time::timeout(DEADLINE, following.message()).await?;
    assert_eq!(ended.map_err(|status| status.code()), Err(Code::Unavailable));
    stopping.await??;
    Ok(())
}
