//! Audit records as the data plane writes them, read leniently: a field that is absent is empty.
//!
//! Always holds: what a record shows on a terminal cannot steer it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::moment;
use crate::output::{Paint, visible};

/// One audit record.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct AuditRecord {
    /// RFC 3339.
    pub(crate) time: Option<String>,
    /// What `policy explain` takes.
    pub(crate) decision_id: Option<String>,
    /// The admin, of a call to the control plane.
    pub(crate) admin: Option<String>,
    /// From where the admin called.
    pub(crate) address: Option<String>,
    /// What the admin's call named.
    pub(crate) resources: Vec<String>,
    /// `admin` for a call to the control plane; absent for an agent's.
    pub(crate) kind: Option<String>,
    /// The tenant of the endpoint.
    pub(crate) tenant: Option<String>,
    /// The endpoint.
    pub(crate) endpoint: Option<String>,
    /// The agent, when it was known.
    pub(crate) agent: Option<String>,
    /// The key that proved the agent.
    pub(crate) key_id: Option<String>,
    /// The provider whose token proved the agent.
    pub(crate) provider: Option<String>,
    /// What the provider calls the agent.
    pub(crate) client: Option<String>,
    /// For whom the agent acted.
    pub(crate) user: Option<String>,
    /// Who acted for that user before it.
    pub(crate) actors: Vec<String>,
    /// What else a token said that policies may ask for; absent where none was shown, and from builds that do not tell it.
    pub(crate) token: Option<Token>,
    /// What names its session, when it had one.
    pub(crate) session: Option<String>,
    /// The server that the call was for.
    pub(crate) server: Option<String>,
    /// The MCP method.
    pub(crate) method: Option<String>,
    /// The tool, prompt or resource.
    pub(crate) tool: Option<String>,
    /// The era of the protocol that the agent spoke.
    pub(crate) era: Option<String>,
    /// What policies were asked, where they were; builds before do not tell it.
    pub(crate) asked: Option<Asked>,
    /// The arguments, redacted.
    pub(crate) arguments: Option<Value>,
    /// How it ended.
    pub(crate) outcome: Option<String>,
    /// What policy said.
    pub(crate) verdict: Option<String>,
    /// The policies that decided.
    pub(crate) policies: Vec<Decider>,
    /// What could not be evaluated.
    pub(crate) failures: Vec<Failed>,
    /// What policies would have said that are not enforced, where they said something.
    pub(crate) shadow: Option<Shadow>,
    /// What it was approved by, or waited for.
    pub(crate) approval: Option<Approval>,
    /// Why it ended so.
    pub(crate) reason: Option<String>,
    /// The configuration that it was decided under.
    pub(crate) revision: Option<u64>,
    /// The node that decided.
    pub(crate) node: Option<String>,
    /// How long all of it took.
    pub(crate) duration_us: Option<u64>,
    /// How long the server took.
    pub(crate) upstream_us: Option<u64>,
    /// The HTTP status that the caller got.
    pub(crate) status: Option<u16>,
}

/// What a token said.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Token {
    /// In which groups its user is.
    pub(crate) groups: BTreeSet<String>,
    /// What it is for.
    pub(crate) scopes: BTreeSet<String>,
    /// Claims, by the names that the provider's specification gives them.
    pub(crate) tags: BTreeMap<String, BTreeSet<String>>,
}

/// What policies were asked, besides who asks and with which arguments.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    /// The method that is the action.
    pub(crate) action: String,
    /// `Tool`, `Prompt`, `Resource` or `Server`.
    pub(crate) kind: String,
    /// The server, and with `/` before it what the server calls it.
    pub(crate) resource: String,
    /// When, in seconds since 1970.
    pub(crate) at: u64,
    /// The revision of the protocol.
    pub(crate) protocol: String,
    /// Whether something else was asked before.
    pub(crate) more: bool,
}

/// What it would have come to with the policies that are not enforced.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Shadow {
    /// What policy would have said.
    pub(crate) verdict: Option<String>,
    /// The policies that would have decided.
    pub(crate) policies: Vec<Decider>,
    /// What could not have been evaluated.
    pub(crate) failures: Vec<Failed>,
}

/// How far an approval was when the call went on, or stopped.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Approval {
    /// What it is found by.
    pub(crate) id: String,
    /// How far.
    pub(crate) state: String,
    /// Admins who approved.
    pub(crate) approvers: Vec<String>,
}

/// A policy that could not be evaluated, or why none could be asked.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Failed {
    /// Which, where it is one.
    #[serde(flatten)]
    pub(crate) policy: Decider,
    /// Why the request could not be put to the policies.
    pub(crate) message: Option<String>,
}

impl Failed {
    /// What failed.
    pub(crate) fn title(&self) -> String {
        match &self.message {
            Some(message) => visible(message),
            None => format!("{} could not be evaluated", self.policy.title()),
        }
    }
}

/// A policy that decided.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Decider {
    /// The policy's name.
    pub(crate) policy: String,
    /// Which one within its text, by its `@id`.
    pub(crate) id: Option<String>,
    /// Which one within its text, from 0.
    pub(crate) index: Option<u64>,
}

impl Decider {
    /// The policy, and which one within its text where that is not plain.
    pub(crate) fn title(&self) -> String {
        let policy = visible(&self.policy);
        match (self.id.as_deref(), self.index) {
            (Some(id), _) if id == self.policy => policy,
            (Some(id), _) => format!("{policy} ({})", visible(id)),
            (None, Some(index)) if index > 0 => format!("{policy} (its policy {})", index + 1),
            (None, _) => policy,
        }
    }
}

impl AuditRecord {
    /// Whether policy refused the call.
    pub(crate) fn is_denied(&self) -> bool {
        self.outcome.as_deref() == Some("denied")
    }

    /// The record in one line.
    pub(crate) fn line(&self, paint: Paint) -> String {
        let outcome = format!("{:<15}", text(&self.outcome));
        let outcome = match self.outcome.as_deref() {
            Some("ok") => paint.green(&outcome),
            Some("denied") => paint.red(&outcome),
            _ => paint.yellow(&outcome),
        };
        if self.kind.as_deref() == Some("admin") {
            return self.admin_line(&outcome);
        }
        let who = format!("{}/{}", text(&self.tenant), text(&self.agent));
        let to = text(&self.endpoint);
        let what = match &self.tool {
            Some(_) => format!("{} {}", text(&self.method), text(&self.tool)),
            None => text(&self.method),
        };
        let took = self.duration_us.map_or("-".to_owned(), moment::short);
        let mut line = format!(
            "{} {outcome} {who} to {to}: {what}, {took}, {}",
            moment::to_milliseconds(&text(&self.time)),
            text(&self.decision_id)
        );
        if let Some(reason) = self.reason.as_deref().filter(|reason| !reason.is_empty()) {
            line.push_str(&format!(" ({})", visible(reason)));
        }
        line
    }
}

impl AuditRecord {
    /// A call of an admin in one line.
    fn admin_line(&self, outcome: &str) -> String {
        let who = self.admin.as_deref().map_or("nobody".to_owned(), visible);
        let tenant =
            self.tenant.as_deref().map_or(String::new(), |tenant| format!(" in {}", visible(tenant)));
        let resources: String = self.resources.iter().map(|name| format!(" {}", visible(name))).collect();
        let revision = self.revision.map_or(String::new(), |revision| format!(", revision {revision}"));
        format!(
            "{} {outcome} {who} from {}: {}{resources}{tenant}{revision}, {}, {}",
            moment::to_milliseconds(&text(&self.time)),
            text(&self.address),
            text(&self.method),
            self.duration_us.map_or("-".to_owned(), moment::short),
            text(&self.decision_id)
        )
    }
}

/// What stands where the data plane took something out of a record.
const REDACTED: &str = "[redacted";
/// How what it cut ends.
const CUT_ENDS: [&str; 2] = [" bytes]", " more]"];

/// Whether something was taken out of a text, or it was cut. One that a client wrote so is taken for that too.
pub(crate) fn is_cut(text: &str) -> bool {
    text.contains(REDACTED) || CUT_ENDS.iter().any(|end| text.ends_with(end))
}

/// A field as it may be shown; `-` when it is absent.
pub(crate) fn text(field: &Option<String>) -> String {
    match field.as_deref() {
        None | Some("") => "-".to_owned(),
        Some(text) => visible(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decider_is_told_apart_within_its_text_only_where_that_helps() {
        let title = |id: Option<&str>, index| {
            Decider { policy: "p".to_owned(), id: id.map(str::to_owned), index }.title()
        };
        assert_eq!(title(None, Some(0)), "p");
        assert_eq!(title(Some("p"), Some(2)), "p");
        assert_eq!(title(Some("no-deletes"), None), "p (no-deletes)");
        assert_eq!(title(None, Some(2)), "p (its policy 3)");
    }

    #[test]
    fn a_record_is_one_line_even_when_fields_are_absent() -> Result<(), serde_json::Error> {
        let record: AuditRecord = serde_json::from_str(
            r#"{"time":"2026-11-22T17:00:00Z","decision_id":"d1","tenant":"demo","agent":"bot","endpoint":"main","outcome":"denied",
                "method":"tools/call","tool":"delete_note","duration_us":1200,"upstream_us":null,
                "policies":[{"policy":"p","id":null,"index":0}],"reason":"no policy permits it"}"#,
        )?;
        assert_eq!(
            record.line(Paint::PLAIN),
            "2026-11-22T17:00:00Z denied          demo/bot to main: tools/call delete_note, 1.2 ms, d1 (no policy permits it)"
        );
        let record: AuditRecord = serde_json::from_str(
            r#"{"time":"2026-11-22T17:00:00Z","decision_id":"d2","kind":"admin","admin":"alice","tenant":"acme",
                "address":"127.0.0.1:9","method":"Apply","resources":["Agent bot"],"outcome":"ok","revision":7,
                "duration_us":1200}"#,
        )?;
        assert_eq!(
            record.line(Paint::PLAIN),
            "2026-11-22T17:00:00Z ok              alice from 127.0.0.1:9: Apply Agent bot in acme, revision 7, 1.2 ms, d2"
        );
        assert_eq!(AuditRecord::default().line(Paint::PLAIN), "- -               -/- to -: -, -, -");
        Ok(())
    }
}
