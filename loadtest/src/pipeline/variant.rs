//! What is compared: tenants that differ in one thing, and one that has all of them.
//!
//! What always holds: every variant allows the call that is measured, and refuses none of it.

use std::fmt::Write;

/// The server, and the endpoint to it, of every variant.
pub(super) const SERVER: &str = "bench";
/// The agent that calls.
pub(super) const AGENT: &str = "caller";
/// Whom the token's agent acts for is in this group.
pub(super) const GROUP: &str = "staff";
/// Policies of a variant that has many. One in a hundred is in the call's scope, as in a tenant of a hundred agents, and
/// reads its arguments; it is given to as many agents as there are others.
pub(super) const POLICY_COUNT: usize = 1_000;
const POLICIES_PER_AGENT: usize = 10;

/// A tenant of this run.
#[derive(Debug)]
pub(super) struct Variant {
    /// The tenant's name, and with what its figures begin.
    pub(super) name: &'static str,
    /// Whether its agent comes by a token, else by a key.
    pub(super) has_token: bool,
    /// Whether it has [`POLICY_COUNT`] policies, else one.
    pub(super) has_policies: bool,
    /// Whether filters, redaction of answers, the breaker and a limit are on.
    pub(super) has_inspection: bool,
}

/// All of them, the one to compare with first.
pub(super) const VARIANTS: &[Variant] = &[
    Variant { name: "key", has_token: false, has_policies: false, has_inspection: false },
    Variant { name: "token", has_token: true, has_policies: false, has_inspection: false },
    Variant { name: "policies", has_token: false, has_policies: true, has_inspection: false },
    Variant { name: "inspection", has_token: false, has_policies: false, has_inspection: true },
    Variant { name: "all", has_token: true, has_policies: true, has_inspection: true },
];

impl Variant {
    /// Everything of the tenant.
    pub(super) fn documents(&self, upstream_url: &str, issuer_url: &str) -> String {
        let tenant = self.name;
        let mut yaml = String::new();
        let mut document = |kind: &str, name: &str, spec: &str| {
            // Into a string, which cannot fail.
            let _ = write!(yaml, "kind: {kind}\ntenant: {tenant}\nname: {name}\nspec: {spec}\n---\n");
        };
        document("Tenant", tenant, &self.tenant());
        document("Server", SERVER, &self.server(upstream_url));
        document("Endpoint", SERVER, &format!("{{servers: [{SERVER}]}}"));
        let agent = match self.has_token {
            true => "{identities: [{provider: corp}]}",
            false => "{}",
        };
        document("Agent", AGENT, agent);
        if self.has_token {
            let spec = format!(
                "{{issuer: {issuer_url:?}, jwks_url: {:?}, algorithms: [ES256], audiences: [gantry]}}",
                format!("{issuer_url}/keys")
            );
            document("Provider", "corp", &spec);
        }
        if self.has_inspection {
            document("Limit", "generous", "{per: [agent, tool], calls: 1000000, window_seconds: 1}");
        }
        document("Policy", "use", &cedar(&self.permit()));
        if self.has_policies {
            for number in 1..POLICY_COUNT {
                document("Policy", &format!("rule-{number:04}"), &cedar(&rule(number)));
            }
            for number in 1..POLICY_COUNT / POLICIES_PER_AGENT {
                document("Agent", &format!("other-{number:03}"), "{}");
            }
        }
        yaml
    }

    fn tenant(&self) -> String {
        match self.has_inspection {
            true => "
  inspection:
    filters: {shell: block, traversal: block, sql: block, ssrf: block, secrets: block, unicode: block, limits: block}
    redact: [keys, emails, cards, ibans]
    redact_fields: [ssn]
  breaker:
    repeats: {calls: 10000, window_seconds: 1}
    failures: {percent: 80, calls: 20, window_seconds: 60}"
                .to_owned(),
            false => "{}".to_owned(),
        }
    }

    fn server(&self, url: &str) -> String {
        match self.has_inspection {
            true => format!("{{url: {url:?}, inspection: {{arguments: {{text: shell}}}}}}"),
            false => format!("{{url: {url:?}}}"),
        }
    }

    /// What lets the call through.
    fn permit(&self) -> String {
        let condition = match self.has_token {
            true => format!(" when {{ principal has user && principal.user in Group::\"{GROUP}\" }}"),
            false => String::new(),
        };
        format!(
            "permit (principal == Agent::\"{AGENT}\", action, resource in Server::\"{SERVER}\"){condition};"
        )
    }
}

/// A rule of the many: every hundredth is about this call, and reads it.
fn rule(number: usize) -> String {
    let agent = number / POLICIES_PER_AGENT;
    match number % (POLICY_COUNT / POLICIES_PER_AGENT) {
        0 => format!(
            "forbid (principal == Agent::\"{AGENT}\", action == Action::\"tools/call\", resource == \
             Tool::\"{SERVER}/answer_200b\") when {{ context.arguments has count && context.arguments.count > {number} }};"
        ),
        _ if agent == 0 => format!(
            "permit (principal == Agent::\"{AGENT}\", action == Action::\"tools/call\", resource == \
             Tool::\"{SERVER}/tool_{:04}\");",
            10 + number
        ),
        _ => format!(
            "permit (principal == Agent::\"other-{agent:03}\", action == Action::\"tools/call\", resource in \
             Server::\"{SERVER}\") when {{ resource.readOnly }};"
        ),
    }
}

fn cedar(text: &str) -> String {
    format!("\n  cedar: '{text}'")
}
