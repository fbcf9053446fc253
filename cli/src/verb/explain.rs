//! `gantry policy explain`: a decision from its audit record, with the policies that made it and what to do next.
//!
//! Always holds: for a call that no policy permitted, the suggested policy permits exactly that agent and that
//! resource, nothing more.

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_model::document::{self, Document};
use gantry_wire::admin_v1::{ExplainRequest, ExplainResponse, PolicyText};
use serde_json::json;
use tokio::time::Instant;
use tonic::Code;

use super::audit::latest;
use super::revoke::{because, kind_and_name};
use crate::admin::{Admin, refused};
use crate::context::Access;
use crate::failure::{Exit, Failure};
use crate::moment;
use crate::name::sanitised;
use crate::output::{self, Paint, visible};
use crate::record::{Approval, AuditRecord, Decider, Failed, Shadow, is_cut, text};

/// How far back `last` looks for a denial.
const RECORDS_SEARCHED: u32 = 1_000;
/// How long a record may take from the node to the control plane before it is taken as absent.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often to look for it meanwhile.
const ARRIVAL_STEP: Duration = Duration::from_millis(50);

/// `gantry policy explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// The decision's id, as a denial and `gantry audit tail` show it; or `last`, the latest denial.
    #[arg(value_name = "DECISION_ID|last")]
    decision: String,
    #[command(flatten)]
    access: Access,
}

impl Explain {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let access = self.access.resolve()?;
        let admin = Admin::connect(&access).await?;
        let deadline = Instant::now() + ARRIVAL_TIMEOUT;
        let id = match self.decision.as_str() {
            "last" => last_denial(&admin, access.tenant.as_deref().unwrap_or_default(), deadline).await?,
            id => id.to_owned(),
        };
        let answer = explain(&admin, &id, deadline).await?;
        let record: AuditRecord = serde_json::from_slice(&answer.record).map_err(|error| {
            Failure::error(
                format!("the record of {id} cannot be read: {error}"),
                "`gantry audit tail -o json` shows records as they are",
            )
        })?;
        output::print(&render(&record, &answer, Paint::stdout()))?;
        Ok(Exit::Done)
    }
}

/// A record may still be on its way from the node, so an absent one is looked for until the deadline.
async fn explain(admin: &Admin, id: &str, deadline: Instant) -> Result<ExplainResponse, Failure> {
    loop {
        let request = ExplainRequest { decision_id: id.to_owned() };
        match admin.service().explain(request).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) if status.code() == Code::NotFound && Instant::now() < deadline => {
                tokio::time::sleep(ARRIVAL_STEP).await;
            }
            Err(status) => {
                return Err(refused(&status, "`gantry audit tail` shows recent decisions and their ids"));
            }
        }
    }
}

async fn last_denial(admin: &Admin, tenant: &str, deadline: Instant) -> Result<String, Failure> {
    loop {
        let latest = latest(admin, tenant, RECORDS_SEARCHED).await?;
        let missed = latest.missed.lines();
        let denial = latest.records.into_iter().rev().find(AuditRecord::is_denied);
        if let Some(id) = denial.and_then(|record| record.decision_id) {
            return Ok(id);
        }
        if Instant::now() >= deadline {
            return Err(Failure::error(
                format!("no call was denied among the latest {RECORDS_SEARCHED} records"),
                "name a decision's id; `gantry audit tail` shows them",
            )
            .with_details(missed));
        }
        tokio::time::sleep(ARRIVAL_STEP).await;
    }
}

fn render(record: &AuditRecord, answer: &ExplainResponse, paint: Paint) -> String {
    let outcome = text(&record.outcome);
    let outcome = if record.is_denied() { paint.red(&outcome) } else { paint.green(&outcome) };
    let mut shown = format!("{outcome} {}\n", paint.bold(&text(&record.decision_id)));
    let mut line = |name: &str, value: String| shown.push_str(&format!("  {name:<10} {value}\n"));
    line("who", who(record));
    line("what", what(record));
    if let Some(arguments) = record.arguments.as_ref().filter(|arguments| !arguments.is_null()) {
        line("arguments", visible(&arguments.to_string()));
    }
    line("when", moment::to_milliseconds(&text(&record.time)));
    line("where", format!("node {}, at revision {}", text(&record.node), number(record.revision)));
    line("took", took(record));
    line("verdict", verdict(record));
    if let Some(shadow) = &record.shadow {
        let Shadow { verdict: would, policies, failures } = shadow.clone();
        line(
            "shadow",
            verdict(&AuditRecord { verdict: would, policies, failures, ..AuditRecord::default() }),
        );
    }
    if let Some(Approval { id, state, approvers }) = &record.approval {
        let by = if approvers.is_empty() {
            String::new()
        } else {
            format!(", approved by {}", approvers.join(", "))
        };
        line("approval", visible(&format!("{id} was {state}{by}")));
    }
    if let Some(reason) = record.reason.as_deref().filter(|reason| !reason.is_empty()) {
        line("reason", visible(reason));
    }
    for ban in &answer.bans {
        let (kind, name) = kind_and_name(ban);
        line("revoked", format!("{kind} {}, {}", visible(&name), because(ban)));
    }
    for policy in &answer.policies {
        shown.push_str(&policy_text(policy, record.revision, paint));
    }
    shown.push_str(&next(record, answer, paint));
    shown
}

fn who(record: &AuditRecord) -> String {
    let mut who = format!("agent {} of tenant {}", text(&record.agent), text(&record.tenant));
    if let Some(key) = record.key_id.as_deref().filter(|key| !key.is_empty()) {
        who.push_str(&format!(", with key {}", visible(key)));
    }
    if let Some(provider) = &record.provider {
        who.push_str(&format!(", as client {} of provider {}", text(&record.client), visible(provider)));
    }
    if let Some(user) = &record.user {
        who.push_str(&format!(", for user {}", visible(user)));
    }
    if let Some(token) = &record.token {
        let listed =
            |words: &BTreeSet<String>| words.iter().map(|word| visible(word)).collect::<Vec<_>>().join(", ");
        if !token.groups.is_empty() {
            who.push_str(&format!(", in groups {}", listed(&token.groups)));
        }
        if !token.scopes.is_empty() {
            who.push_str(&format!(", with scopes {}", listed(&token.scopes)));
        }
        for (name, values) in &token.tags {
            who.push_str(&format!(", with {} {}", visible(name), listed(values)));
        }
    }
    if !record.actors.is_empty() {
        let actors: Vec<String> = record.actors.iter().map(|actor| visible(actor)).collect();
        who.push_str(&format!(" by way of {}", actors.join(", ")));
    }
    if let Some(session) = record.session.as_deref().filter(|session| !session.is_empty()) {
        who.push_str(&format!(", in session {}", visible(session)));
    }
    who
}

fn what(record: &AuditRecord) -> String {
    let mut what = text(&record.method);
    if record.tool.is_some() {
        what.push_str(&format!(" {}", text(&record.tool)));
    }
    if record.server.is_some() {
        what.push_str(&format!(" of server {}", text(&record.server)));
    }
    what.push_str(&format!(", through endpoint {}", text(&record.endpoint)));
    // What agents call it is not always what policies do.
    if let (Some(asked), Some(server), Some(tool)) = (&record.asked, &record.server, &record.tool)
        && asked.resource != format!("{server}/{tool}")
    {
        what.push_str(&format!(", to policies {} {}", visible(&asked.kind), visible(&asked.resource)));
    }
    what
}

fn took(record: &AuditRecord) -> String {
    let all = record.duration_us.map_or("-".to_owned(), moment::short);
    match record.upstream_us {
        Some(upstream) if upstream > 0 => {
            format!("{all}, of which {} at the server", moment::short(upstream))
        }
        Some(_) | None => all,
    }
}

fn verdict(record: &AuditRecord) -> String {
    let failed: Vec<String> = record.failures.iter().map(Failed::title).collect();
    let deciders: Vec<String> = record.policies.iter().map(Decider::title).collect();
    match (record.verdict.as_deref(), deciders.is_empty()) {
        (None | Some(""), _) => "none: the request stopped before policy was asked".to_owned(),
        (Some("deny"), true) if !failed.is_empty() => format!("deny, because {}", failed.join(", ")),
        (Some("deny"), true) => "deny, because no policy permits it".to_owned(),
        (Some("deny"), false) => format!("deny, because of {}", [deciders, failed].concat().join(", ")),
        (Some("allow"), false) => format!("allow, because of {}", deciders.join(", ")),
        (Some("require_approval"), false) => format!("require approval, because of {}", deciders.join(", ")),
        (Some(other), true) => visible(other),
        (Some(other), false) => format!("{}, {}", visible(other), deciders.join(", ")),
    }
}

fn number(number: Option<u64>) -> String {
    number.map_or("-".to_owned(), |number| number.to_string())
}

fn policy_text(policy: &PolicyText, decided_at: Option<u64>, paint: Paint) -> String {
    let mut shown =
        format!("\npolicy {}, as of revision {}", paint.bold(&visible(&policy.name)), policy.revision);
    if decided_at.is_some_and(|decided| policy.revision > decided) {
        shown.push_str(&paint.yellow(" (changed since the decision)"));
    }
    shown.push('\n');
    for line in policy.cedar.trim_end().lines() {
        shown.push_str(&format!("  {}\n", visible(line)));
    }
    shown
}

fn next(record: &AuditRecord, answer: &ExplainResponse, paint: Paint) -> String {
    let heading = paint.bold("next:");
    if let Some(ban) = answer.bans.first() {
        let (kind, name) = kind_and_name(ban);
        let (name, tenant) = (shell_words::quote(&name), shell_words::quote(&ban.tenant));
        return format!(
            "\n{heading} if it should be let in again: gantry revoke lift {kind} {name} --tenant {tenant} --wait\n"
        );
    }
    if !record.is_denied() {
        return format!("\n{heading} nothing was denied here; `gantry audit tail` shows other decisions\n");
    }
    if let Some(policy) = answer.policies.first() {
        let tenant = record.tenant.as_deref().unwrap_or_default();
        let name = shell_words::quote(&policy.name);
        return format!(
            "\n{heading} if the call should be allowed, change the policy that forbids it:\n  \
             gantry get policy {name} --tenant {tenant} -o yaml > {name}.yaml\n  \
             then edit {name}.yaml, `gantry diff -f {name}.yaml`, `gantry apply -f {name}.yaml`\n",
        );
    }
    match suggestion(record) {
        Some(document) => format!(
            "\n{heading} if the call should be allowed, save this as permit.yaml, then `gantry apply -f permit.yaml`:\n\n{document}"
        ),
        None => format!("\n{heading} `gantry get policies` shows what is permitted\n"),
    }
}

/// A policy document that permits this agent this call and nothing else.
fn suggestion(record: &AuditRecord) -> Option<String> {
    let (tenant, agent) = (record.tenant.as_deref()?, record.agent.as_deref()?);
    let (method, entity, resource) = permissible(record)?;
    let name = resource.split_once('/').map_or(resource.as_str(), |(_, name)| name);
    let cedar = format!(
        "permit(\n  principal == Agent::{},\n  action == Action::{},\n  resource == {entity}::{}\n);\n",
        quoted(agent),
        quoted(&method),
        quoted(&resource),
    );
    let name = sanitised(&format!("permit-{agent}-{name}"))?;
    let value = json!({"kind": "Policy", "tenant": tenant, "name": name, "spec": {"cedar": cedar}});
    let resource = document::parse(value).ok()?;
    Some(output::yaml(&Document::from(&resource)))
}

/// The action, and the resource with its type; `None` where the record does not tell them whole.
fn permissible(record: &AuditRecord) -> Option<(String, &str, String)> {
    let told = match &record.asked {
        Some(asked) => (asked.action.clone(), asked.kind.as_str(), asked.resource.clone()),
        // A record of an earlier build has what the agent called it.
        None => {
            let (server, tool, method) =
                (record.server.as_deref()?, record.tool.as_deref()?, record.method.clone()?);
            let entity = match method.as_str() {
                "tools/call" => "Tool",
                "prompts/get" => "Prompt",
                "resources/read" | "resources/subscribe" => "Resource",
                _ => return None,
            };
            (method, entity, format!("{server}/{tool}"))
        }
    };
    let is_known = ["Tool", "Prompt", "Resource", "Server"].contains(&told.1);
    (is_known && !is_cut(&told.2)).then_some(told)
}

/// A Cedar string literal.
fn quoted(text: &str) -> String {
    let mut literal = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => literal.extend(['\\', character]),
            character if character.is_control() => {
                literal.push_str(&format!("\\u{{{:x}}}", u32::from(character)));
            }
            character => literal.push(character),
        }
    }
    literal.push('"');
    literal
}

#[cfg(test)]
mod tests {
    use gantry_wire::resource_v1::ban_target::Target;
    use gantry_wire::resource_v1::{Ban, BanTarget};

    use super::*;

    fn record() -> AuditRecord {
        AuditRecord {
            time: Some("2026-11-22T17:00:00Z".to_owned()),
            decision_id: Some("d1".to_owned()),
            tenant: Some("demo".to_owned()),
            endpoint: Some("main".to_owned()),
            agent: Some("bot".to_owned()),
            key_id: Some("0102030405060708".to_owned()),
            server: Some("notes".to_owned()),
            method: Some("tools/call".to_owned()),
            tool: Some("delete_note".to_owned()),
            arguments: Some(json!({"id": 1})),
            outcome: Some("denied".to_owned()),
            verdict: Some("deny".to_owned()),
            revision: Some(9),
            node: Some("dev".to_owned()),
            duration_us: Some(250),
            ..AuditRecord::default()
        }
    }

    #[test]
    fn a_call_that_nothing_permits_comes_with_a_policy_for_exactly_it() {
        let answer = ExplainResponse { current_revision: 9, ..ExplainResponse::default() };
        let expected = r#"denied d1
  who        agent bot of tenant demo, with key 0102030405060708
  what       tools/call delete_note of server notes, through endpoint main
  arguments  {"id":1}
  when       2026-11-22T17:00:00Z
  where      node dev, at revision 9
  took       250 µs
  verdict    deny, because no policy permits it

next: if the call should be allowed, save this as permit.yaml, then `gantry apply -f permit.yaml`:

kind: Policy
tenant: demo
name: permit-bot-delete-note
spec:
  cedar: |
    permit(
      principal == Agent::"bot",
      action == Action::"tools/call",
      resource == Tool::"notes/delete_note"
    );
"#;
        assert_eq!(render(&record(), &answer, Paint::PLAIN), expected);
    }

    #[test]
    fn a_call_by_a_token_says_for_whom_and_by_whose_word() {
        let told = |name: &str| Some(name.to_owned());
        let (provider, client, user) = (told("corp"), told("laptop"), told("corp/ann"));
        let record = AuditRecord {
            key_id: None,
            provider,
            client,
            user,
            actors: vec!["portal".to_owned()],
            ..record()
        };
        let expected =
            "agent bot of tenant demo, as client laptop of provider corp, for user corp/ann by way of portal";
        assert_eq!(who(&record), expected);
    }

    #[test]
    fn a_call_that_a_policy_forbids_comes_with_that_policy() {
        let policies =
            vec![Decider { policy: "careful".to_owned(), id: Some("no-deletes".to_owned()), index: Some(0) }];
        let record = AuditRecord { policies, ..record() };
        let text =
            PolicyText { name: "careful".to_owned(), cedar: "forbid(…);\n".to_owned(), revision: 12 };
        let answer =
            ExplainResponse { policies: vec![text], current_revision: 12, ..ExplainResponse::default() };
        let shown = render(&record, &answer, Paint::PLAIN);
        let tail = shown.split_once("  verdict    ").map(|(_, tail)| tail);
        let expected = "deny, because of careful (no-deletes)

policy careful, as of revision 12 (changed since the decision)
  forbid(…);

next: if the call should be allowed, change the policy that forbids it:
  gantry get policy careful --tenant demo -o yaml > careful.yaml
  then edit careful.yaml, `gantry diff -f careful.yaml`, `gantry apply -f careful.yaml`
";
        assert_eq!(tail, Some(expected));
    }

    #[test]
    fn a_call_of_whom_is_revoked_comes_with_who_did_it_and_how_it_is_lifted() {
        let record = AuditRecord { outcome: Some("revoked".to_owned()), verdict: None, ..record() };
        let target = BanTarget { target: Some(Target::Agent("bot".to_owned())) };
        let (by, reason) = ("ann".to_owned(), "leaked".to_owned());
        let at_ms = 1_800_000_000_000;
        let ban = Ban { tenant: "demo".to_owned(), target: Some(target), by, reason, at_ms, until_ms: 0 };
        let answer = ExplainResponse { bans: vec![ban], ..ExplainResponse::default() };
        let shown = render(&record, &answer, Paint::PLAIN);
        let tail = shown.split_once("  verdict    ").map(|(_, tail)| tail);
        let expected = "none: the request stopped before policy was asked
  revoked    agent bot, by ann at 2027-01-15T08:00:00Z: leaked

next: if it should be let in again: gantry revoke lift agent bot --tenant demo --wait
";
        assert_eq!(tail, Some(expected));
    }

    #[test]
    fn a_policy_that_could_not_be_evaluated_is_named() {
        let failures = r#"[{"policy": "careful", "id": null, "index": 1}, {"message": "argument \"n\" is not of its type"}]"#;
        let failures = serde_json::from_str(failures).expect("failures");
        let expected =
            "deny, because careful (its policy 2) could not be evaluated, argument \"n\" is not of its type";
        assert_eq!(verdict(&AuditRecord { failures, ..record() }), expected);
    }

    #[test]
    fn a_name_in_a_suggested_policy_cannot_leave_its_quotes() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u{a}\"");
    }
}
