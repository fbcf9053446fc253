//! A record as a question to the policies: who asked for what, and what of it the record does not tell.
//!
//! Always holds: what was redacted or cut is a gap, never a value; a record from which the question cannot be made again is
//! told as that, with the reason. It decides nothing.

use std::collections::BTreeSet;

use gantry_model::{AgentName, ServerName};
use gantry_policy::{ActsFor, Decision, Gaps, Shown};
use serde_json::{Map, Value};

use super::cases::Asked;
use super::offline::{Offline, Question};
use crate::record::{AuditRecord, is_cut};

/// Outcomes of calls whose arguments had passed their tool's schema.
const VALIDATED: [&str; 4] = ["ok", "error", "upstream_failed", "limited"];

/// A record of which policies can be asked again.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) agent: AgentName,
    pub(super) asked: Asked,
    shown: Option<Shown>,
    /// Without what is not known of them.
    arguments: Value,
    /// Where that was, by names below the arguments.
    gaps: Vec<Vec<String>>,
    is_validated: bool,
    at_seconds: u64,
    era: String,
    protocol: String,
}

/// Why it cannot be told what a decision would be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unknown {
    /// The record says too little.
    Record(&'static str),
    /// A statement reads what the record does not tell.
    Reads(Vec<String>),
    /// What it concerns is not there.
    Absent(String),
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unknown::Record(why) => formatter.write_str(why),
            Unknown::Reads(statements) if statements.is_empty() => formatter.write_str(
                "an argument that the record does not tell may be of another type than its tool takes",
            ),
            Unknown::Reads(statements) => {
                write!(formatter, "{} reads what the record does not tell", statements.join(", "))
            }
            Unknown::Absent(why) => formatter.write_str(why),
        }
    }
}

impl Recorded {
    /// The question of a record; `None`: policies were not asked.
    pub(super) fn of(record: &AuditRecord) -> Option<Result<Recorded, Unknown>> {
        record.verdict.as_deref().filter(|verdict| !verdict.is_empty())?;
        Some(Recorded::read(record).map_err(Unknown::Record))
    }

    fn read(record: &AuditRecord) -> Result<Recorded, &'static str> {
        let told =
            record.asked.as_ref().ok_or("the record is of a build that does not tell what was asked")?;
        if told.more {
            return Err("several resources were asked for at once, and the record tells one");
        }
        let agent = record.agent.as_deref().and_then(|agent| agent.parse().ok());
        let agent = agent.ok_or("the record names no agent")?;
        let asked =
            asked(&told.action, &told.kind, &told.resource).ok_or("what was asked for is not told whole")?;
        let shown = shown(record)?;
        let mut gaps = Vec::new();
        let arguments = match &record.arguments {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(arguments) => known(arguments, &mut Vec::new(), &mut gaps).unwrap_or_else(|| {
                gaps = vec![Vec::new()];
                Value::Object(Map::new())
            }),
        };
        let is_validated = record.outcome.as_deref().is_some_and(|outcome| VALIDATED.contains(&outcome));
        let era = record.era.clone().filter(|era| !era.is_empty()).ok_or("the record names no era")?;
        let protocol = told.protocol.clone();
        if is_cut(&protocol) {
            return Err("the protocol's revision is not told whole");
        }
        Ok(Recorded {
            agent,
            asked,
            shown,
            arguments,
            gaps,
            is_validated,
            at_seconds: told.at,
            era,
            protocol,
        })
    }

    /// What the policies of a tenant say of it.
    pub(super) fn decide(&self, offline: &Offline) -> Result<Decision, Unknown> {
        let principal =
            offline.principal_of(&self.agent, &[], self.shown.as_ref()).map_err(Unknown::Absent)?;
        let question = Question {
            principal,
            asked: &self.asked,
            arguments: Some(&self.arguments).filter(|_| matches!(self.asked, Asked::Tool(..))),
            at_seconds: self.at_seconds,
            era: &self.era,
            revision: &self.protocol,
        };
        let decided = offline.ask(&question, &self.gaps_in(offline)).map_err(Unknown::Absent)?;
        decided.map_err(|unsure| {
            let names: BTreeSet<String> = unsure.statements.iter().map(ToString::to_string).collect();
            Unknown::Reads(names.into_iter().collect())
        })
    }

    /// The gaps as policies read them: of the arguments, and of the facts that are made of those.
    fn gaps_in(&self, offline: &Offline) -> Gaps {
        let mut gaps = Gaps::default();
        if self.gaps.is_empty() || !matches!(self.asked, Asked::Tool(..)) {
            return gaps;
        }
        for gap in &self.gaps {
            gaps.add(["arguments".to_owned()].into_iter().chain(gap.iter().cloned()));
            let mut places = offline.layers(&self.asked).flat_map(|layer| layer.arguments.keys());
            // With more texts at declared places than are read there are no facts at all, so those of other forms rest on how
            // many there are here.
            if places.any(|place| is_of_one_line(gap, place)) {
                gaps.add(["facts"]);
            }
        }
        gaps.add(["facts", "size"]);
        if !self.is_validated {
            gaps.may_be_untyped();
        }
        gaps
    }
}

/// Whether a declared place is a gap, within one, or around one.
fn is_of_one_line(gap: &[String], place: &str) -> bool {
    let steps: Vec<String> = match place.strip_prefix('/') {
        Some(pointer) => pointer.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect(),
        None => vec![place.to_owned()],
    };
    gap.iter().zip(&steps).all(|(name, step)| step == "*" || name == step)
}

fn asked(action: &str, kind: &str, resource: &str) -> Option<Asked> {
    if is_cut(resource) {
        return None;
    }
    let server = |name: &str| name.parse::<ServerName>().ok();
    if (action, kind) == ("server/use", "Server") {
        return Some(Asked::Server(server(resource)?));
    }
    let (of, name) = resource.split_once('/')?;
    let (of, name) = (server(of)?, name.to_owned());
    Some(match (action, kind) {
        ("tools/call", "Tool") => Asked::Tool(of, name),
        ("prompts/get", "Prompt") => Asked::Prompt(of, name),
        ("resources/read", "Resource") => Asked::Resource(of, name),
        ("resources/subscribe", "Resource") => Asked::Subscribe(of, name),
        ("completion/complete", "Prompt") => Asked::CompletePrompt(of, name),
        ("completion/complete", "Resource") => Asked::CompleteResource(of, name),
        _ => return None,
    })
}

/// What the token said, where one was shown.
fn shown(record: &AuditRecord) -> Result<Option<Shown>, &'static str> {
    let Some(provider) = &record.provider else { return Ok(None) };
    let unread = "what the token said is not told whole";
    let token = record.token.as_ref().ok_or(unread)?;
    let words = token.groups.iter().chain(&token.scopes).chain(token.tags.values().flatten());
    if words.into_iter().any(|word| is_cut(word)) {
        return Err(unread);
    }
    let user = record.user.as_deref().map(|user| user.parse().map(ActsFor::User)).transpose();
    Ok(Some(Shown {
        provider: provider.parse().map_err(|_| unread)?,
        user: user.map_err(|_| unread)?,
        groups: token.groups.clone(),
        scopes: token.scopes.clone(),
        tags: token.tags.clone(),
    }))
}

/// What is known of a value, and below it where something is not; `None`: nothing of it is.
fn known(value: &Value, path: &mut Vec<String>, gaps: &mut Vec<Vec<String>>) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(value.clone()),
        Value::String(text) => (!is_cut(text)).then(|| value.clone()),
        Value::Array(elements) => {
            // Policies read lists as a whole.
            let mut within = Vec::new();
            let known: Option<Vec<Value>> =
                elements.iter().map(|element| known(element, &mut Vec::new(), &mut within)).collect();
            known.filter(|_| within.is_empty()).map(Value::Array)
        }
        Value::Object(fields) => {
            let tells_of_more = |(name, value): (&String, &Value)| {
                is_cut(name) || name == "..." && value.as_str().is_some_and(is_cut)
            };
            if fields.iter().any(tells_of_more) {
                return None;
            }
            let mut found = Map::new();
            for (name, value) in fields {
                path.push(name.clone());
                match known(value, path, gaps) {
                    Some(value) => drop(found.insert(name.clone(), value)),
                    None => gaps.push(path.clone()),
                }
                path.pop();
            }
            Some(Value::Object(found))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gaps(arguments: Value) -> (Option<Value>, Vec<String>) {
        let mut gaps = Vec::new();
        let value = known(&arguments, &mut Vec::new(), &mut gaps);
        (value, gaps.iter().map(|gap| gap.join(".")).collect())
    }

    #[test]
    fn what_was_taken_out_or_cut_is_a_gap_and_what_was_not_is_known() {
        let all = json!({"path": "/data/a", "n": 1, "o": {"b": null}, "list": ["x", {"y": 1}]});
        assert_eq!(gaps(all.clone()), (Some(all), vec![]));
        let some = json!({
            "token": "[redacted]", "text": "see [redacted] there", "long": "xxx[4096 bytes]", "o": {"password": "[redacted]", "c": 1},
            "list": ["a", "[12 more]"], "deep": [{"secret": "[redacted]"}], "rest": {"a": 1, "...": "[3 more]"},
            "names": {"[redacted]": 1}, "path": "/",
        });
        let (known, mut found) = gaps(some);
        found.sort();
        assert_eq!(known, Some(json!({"o": {"c": 1}, "path": "/"})));
        assert_eq!(found, ["deep", "list", "long", "names", "o.password", "rest", "text", "token"]);
        assert_eq!(gaps(json!("[9000 bytes]")).0, None);
    }

    #[test]
    fn a_place_concerns_the_gaps_on_its_way_and_below() {
        let gap = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(is_of_one_line(&gap(&["files"]), "/files/*/path"));
        assert!(is_of_one_line(&gap(&["files", "a", "path", "b"]), "/files/*/path"));
        assert!(is_of_one_line(&gap(&[]), "query") && is_of_one_line(&gap(&["a/b"]), "/a~1b"));
        assert!(!is_of_one_line(&gap(&["files", "a", "size"]), "/files/*/path"));
        assert!(!is_of_one_line(&gap(&["token"]), "query"));
    }

    #[test]
    fn a_record_is_asked_again_or_says_why_not() {
        let record = |changes: Value| -> AuditRecord {
            let mut record = json!({"agent": "bot", "verdict": "allow", "era": "modern", "outcome": "ok", "asked": {
                "action": "tools/call", "kind": "Tool", "resource": "files/read/x", "at": 5, "protocol": "2026-07-28"}});
            for (name, value) in changes.as_object().expect("an object") {
                record[name] = value.clone();
            }
            serde_json::from_value(record).expect("a record")
        };
        let read = |changes| Recorded::of(&record(changes)).map(|read| read.map_err(|why| why.to_string()));
        let asked = read(json!({})).expect("decided").expect("told").asked;
        assert_eq!(asked, Asked::Tool("files".parse().expect("a name"), "read/x".to_owned()));
        assert!(read(json!({"verdict": null})).is_none());
        for (changes, why) in [
            (json!({"asked": null}), "the record is of a build that does not tell what was asked"),
            (json!({"agent": null}), "the record names no agent"),
            (json!({"era": null}), "the record names no era"),
            (json!({"provider": "corp"}), "what the token said is not told whole"),
            (
                json!({"provider": "corp", "token": {"groups": ["[redacted]"]}}),
                "what the token said is not told whole",
            ),
            (
                json!({"asked": {"action": "tools/call", "kind": "Tool", "resource": "files/a[2000 bytes]"}}),
                "what was asked for is not told whole",
            ),
            (
                json!({"asked": {"action": "resources/subscribe", "kind": "Resource", "resource": "f/a", "more": true}}),
                "several resources were asked for at once, and the record tells one",
            ),
        ] {
            assert_eq!(read(changes).expect("decided").map(|_| ()), Err(why.to_owned()));
        }
    }
}
