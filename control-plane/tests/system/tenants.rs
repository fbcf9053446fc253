//! Tenants do not learn of each other: whatever happens in the others, every answer to who is bound to one stays the
//! same, byte for byte.
//!
//! `GANTRY_TENANTS_SEED` replays a run, `GANTRY_TENANTS_ROUNDS` makes it longer.

use std::collections::hash_map::RandomState;
use std::fmt::Debug;
use std::hash::BuildHasher;

use gantry_wire::admin_v1::*;
use gantry_wire::resource_v1::ban_target::Target;
use gantry_wire::resource_v1::{BanTarget, ResourceId};
use serde_json::{Value, json};
use tonic::{Response, Status};

use crate::admins::make;
use crate::harness::{Admin, Harness, Result, resources};
use crate::node::Process;

const TENANTS: [&str; 4] = ["amber", "birch", "cypress", "dunes"];
/// Names that all tenants use alike, so that one's could be taken for another's.
const NAMES: [&str; 4] = ["one", "two", "three", "four"];

/// Splitmix64: enough to choose by.
struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap_or(0)
    }

    fn of<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

/// One change of a tenant by the cluster's admin. It may be refused: what counts is that others do not notice.
async fn disturb(harness: &mut Harness, choices: &mut Choices, tenant: &str) -> Result {
    let name = choices.of(&NAMES);
    let set: Vec<Value> = match choices.below(9) {
        0 => vec![
            json!({"kind": "Agent", "tenant": tenant, "name": name, "spec": {"groups": [choices.of(&NAMES)]}}),
        ],
        1 => vec![json!({"kind": "Server", "tenant": tenant, "name": name,
            "spec": {"url": format!("http://{tenant}.example:{}/", 1 + choices.below(9))}})],
        2 => vec![json!({"kind": "Policy", "tenant": tenant, "name": name,
            "spec": {"cedar": format!("permit(principal, action, resource); // {tenant} {}", choices.below(9))}})],
        3 => vec![json!({"kind": "Credential", "tenant": tenant, "name": name})],
        4 => {
            let request =
                CreateKeyRequest { tenant: tenant.into(), agent: name.into(), ..Default::default() };
            let _ = harness.admin.create_key(request).await;
            return Ok(());
        }
        5 => {
            let secret = format!("{tenant}-secret").into_bytes();
            let (tenant, name) = (tenant.into(), name.into());
            let request = PutCredentialRequest { tenant, name, secret, ..Default::default() };
            let _ = harness.admin.put_credential(request).await;
            return Ok(());
        }
        6 => {
            let kind = choices.of(&["Agent", "Server", "Policy", "Credential"]).to_owned();
            let id = ResourceId { kind, tenant: tenant.into(), name: name.into() };
            harness.admin.delete(DeleteRequest { ids: vec![id], ..Default::default() }).await?;
            return Ok(());
        }
        7 => {
            let target = Some(BanTarget { target: Some(Target::Agent(name.into())) });
            let (tenant, reason) = (tenant.to_owned(), format!("of {tenant}"));
            let _ = harness.admin.revoke(RevokeRequest { tenant, target, reason }).await;
            return Ok(());
        }
        _ => {
            let name = format!("{tenant}-{name}-{}", choices.below(1_000));
            let roles = vec![format!("tenant-admin:{tenant}")];
            let request = CreateAdminRequest { name, roles, ..Default::default() };
            let _ = harness.admin.create_admin(request).await;
            return Ok(());
        }
    };
    harness.try_apply(&set).await?;
    Ok(())
}

fn told<T: Debug>(answer: std::result::Result<Response<T>, Status>) -> String {
    match answer {
        Ok(response) => format!("{:?}\n", response.into_inner()),
        Err(status) => format!("{:?} {}\n", status.code(), status.message()),
    }
}

/// Everything that can be asked about a tenant without changing anything.
async fn about(admin: &mut Admin, tenant: &str) -> Result<String> {
    let mut text = String::new();
    let get =
        |kind: &str, name: &str| GetRequest { kind: kind.into(), tenant: tenant.into(), name: name.into() };
    for kind in ["", "Tenant", "Agent", "Server"] {
        text += &told(admin.get(get(kind, "")).await);
        text += &told(admin.get(get(kind, "one")).await);
    }
    let (of, none) = (tenant.to_owned(), String::new());
    for agent in ["", "one", "onee"] {
        let keys = ListKeysRequest { tenant: of.clone(), agent: agent.into() };
        text += &told(admin.list_keys(keys).await);
        let tools = ListToolsRequest { tenant: of.clone(), agent: agent.into(), ..Default::default() };
        text += &told(admin.list_tools(tools).await);
        let definitions = ListToolsRequest {
            tenant: of.clone(),
            server: agent.into(),
            definitions: true,
            ..Default::default()
        };
        text += &told(admin.list_tools(definitions).await);
        let waiting = ListQuarantineRequest { tenant: of.clone(), server: agent.into() };
        text += &told(admin.list_quarantine(waiting).await);
    }
    text += &told(admin.list_revocations(ListRevocationsRequest { tenant: of.clone() }).await);
    let cedar = "permit(principal == Agent::\"one\", action, resource);".to_owned();
    let check = CheckPolicyRequest { tenant: of.clone(), name: none.clone(), cedar };
    text += &told(admin.check_policy(check).await);
    let set = resources(&[
        json!({"kind": "Agent", "tenant": tenant, "name": "one", "spec": {"groups": ["new"]}}),
        json!({"kind": "Endpoint", "tenant": tenant, "name": "e", "spec": {"servers": ["onee"]}}),
    ])?;
    let diff = |set: &[_]| ApplyRequest { resources: set.to_vec(), dry_run: true, ..Default::default() };
    text += &told(admin.apply(diff(&set)).await);
    text += &told(admin.apply(diff(&set[..1])).await);
    let id = ResourceId { kind: "Agent".into(), tenant: of.clone(), name: "onee".into() };
    text += &told(admin.delete(DeleteRequest { ids: vec![id], ..Default::default() }).await);
    let revoke = RevokeKeyRequest { tenant: of.clone(), id: "0102030405060708".into(), ..Default::default() };
    text += &told(admin.revoke_key(revoke).await);
    let key = CreateKeyRequest { tenant: of.clone(), agent: "onee".into(), ..Default::default() };
    text += &told(admin.create_key(key).await);
    Ok(text)
}

/// Everything that can be asked without naming a tenant; `newest` is the revision of the cluster.
async fn at_large(admin: &mut Admin, newest: u64) -> String {
    let mut text = told(admin.get(GetRequest::default()).await);
    text += &told(admin.get(GetRequest { kind: "Tenant".into(), ..Default::default() }).await);
    text += &told(admin.status(StatusRequest {}).await);
    text += &told(admin.who_am_i(WhoAmIRequest {}).await);
    text += &told(admin.list_revocations(ListRevocationsRequest::default()).await);
    // Revisions that are not there yet among them.
    for (urgent, revision) in
        [newest, newest + 3, u64::MAX].into_iter().flat_map(|at| [(false, at), (true, at)])
    {
        let wait = WaitAppliedRequest { revision, timeout_ms: 1, urgent, each: true };
        text += &told(admin.wait_applied(wait).await);
    }
    text += &told(admin.explain(ExplainRequest { decision_id: "last".into() }).await);
    text += &told(admin.list_admins(ListAdminsRequest::default()).await);
    text += &told(admin.list_members(ListMembersRequest {}).await);
    let rotate = RotateAdminTokenRequest { name: "cypress-auditor".into(), ..Default::default() };
    text + &told(admin.rotate_admin_token(rotate).await)
}

async fn audit(admin: &mut Admin, of_admins: bool) -> Result<String> {
    let request = TailRecordsRequest { last: 10_000, admin: of_admins, ..Default::default() };
    let mut stream = match admin.tail_records(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return Ok(format!("{:?}", status.code())),
    };
    let mut text = String::new();
    while let Some(answer) = stream.message().await? {
        text += &String::from_utf8(answer.record)?;
    }
    Ok(text)
}

#[tokio::test]
async fn whatever_happens_in_other_tenants_an_admin_of_one_is_answered_the_same() -> Result {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("GANTRY_TENANTS_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let rounds = number("GANTRY_TENANTS_ROUNDS").unwrap_or(3);
    println!("GANTRY_TENANTS_SEED={seed} GANTRY_TENANTS_ROUNDS={rounds}");
    let mut choices = Choices(seed);
    let mut harness = Harness::start().await?;
    for tenant in TENANTS {
        harness.apply(&[json!({"kind": "Tenant", "name": tenant})]).await?;
    }
    for tenant in TENANTS {
        for _ in 0..10 {
            disturb(&mut harness, &mut choices, tenant).await?;
        }
    }
    let mut bound = Vec::new();
    for tenant in &TENANTS[..2] {
        for role in ["tenant-admin", "read-only", "auditor"] {
            let (name, role) = (format!("{tenant}-{role}"), format!("{role}:{tenant}"));
            bound.push((*tenant, make(&mut harness, &name, &[&role]).await?.0));
        }
    }
    // A node that has what there is when each comparison begins, and falls behind during it.
    let mut process = Process::new("node")?;
    let (mut connection, _) = process.join(harness.address()).await?;
    for round in 0..rounds {
        for (own, admin) in &mut bound {
            let at = format!("GANTRY_TENANTS_SEED={seed}, round {round}, bound to {own}");
            let newest = harness.status().await?.revision;
            process.follow_to(&mut connection, newest).await?;
            let has_it = WaitAppliedRequest { revision: newest, timeout_ms: 60_000, ..Default::default() };
            assert_eq!(harness.admin.wait_applied(has_it).await?.into_inner().acked_count, 1, "{at}");
            let before = (about(admin, own).await?, at_large(admin, newest).await);
            for other in TENANTS.iter().filter(|other| *other != own) {
                // Another tenant is answered for as one that was never there.
                let nobody = about(admin, "nobody").await?.replace("nobody", other);
                assert_eq!(about(admin, other).await?, nobody, "{at}, of {other}");
                assert!(!before.0.contains(other), "{at}: {other} in {}", before.0);
                for _ in 0..5 {
                    disturb(&mut harness, &mut choices, other).await?;
                }
            }
            assert_eq!((about(admin, own).await?, at_large(admin, newest).await), before, "{at}");
            // Of what this admin typed himself, names of others are in his own tenant's records.
            let of_agents = audit(admin, false).await?;
            for record in audit(admin, true)
                .await?
                .lines()
                .chain(of_agents.lines())
                .filter(|line| line.starts_with('{'))
            {
                let record: Value = serde_json::from_str(record)?;
                assert_eq!(record["tenant"], *own, "{at}: {record}");
                let by = record["admin"].as_str().unwrap_or_default();
                assert!(by == "root" || by.starts_with(*own), "{at}: {record}");
            }
        }
    }
    harness.stop().await?;
    Ok(())
}
