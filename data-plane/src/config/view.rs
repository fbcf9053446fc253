//! What one agent sees of one server: every tool, prompt and resource of the catalog with policy's decision, and the
//! lists made of the allowed ones.
//!
//! Always holds: lists and calls rest on the same decisions, made by the one evaluator. A view belongs to one
//! revision of its tenant and is made at the agent's first request; it may be kept because no policy can read
//! anything of a call besides agent and target.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use gantry_model::{Definition, ServerName};
use gantry_policy::{Decision, PolicySet, Principal, Target, Verdict};

use crate::config::tenant::Offer;
use crate::config::tool::Tool;
use crate::mcp::Era;
use crate::mcp::message::Method;

/// How long a client may keep a list, in milliseconds: what an agent may see can change with any change of policy.
const LIST_TTL_MS: u32 = 5_000;

/// What one agent sees of one server.
pub(crate) struct View {
    tools: HashMap<Arc<str>, ToolAccess>,
    lists: [Lists; 4],
}

/// A tool and what policy says of it.
#[derive(Clone)]
pub(crate) struct ToolAccess {
    /// The tool.
    pub(crate) tool: Arc<Tool>,
    /// Policy's decision.
    pub(crate) decision: Arc<Decision>,
}

/// One list, as the elements that are allowed, and as the result of each era.
struct Lists {
    field: &'static str,
    allowed: Vec<Arc<str>>,
    legacy: OnceLock<Bytes>,
    modern: OnceLock<Bytes>,
}

impl View {
    /// Decides over everything that the server offers.
    pub(crate) fn build(
        policies: &PolicySet,
        principal: &Principal,
        server: &ServerName,
        offer: &Offer,
    ) -> View {
        let mut tools = HashMap::with_capacity(offer.tools.len());
        let mut allowed = Vec::with_capacity(offer.tools.len());
        for tool in &offer.tools {
            let target = Target::Tool { server, name: &tool.name, hints: tool.hints };
            let decision = Arc::new(policies.decide(principal, &target));
            if decision.verdict == Verdict::Allow {
                allowed.push(tool.json.clone());
            }
            tools.insert(tool.name.clone(), ToolAccess { tool: tool.clone(), decision });
        }
        let permitted = |definitions: &[Definition], target: &dyn Fn(&Definition) -> Decision| {
            definitions
                .iter()
                .filter(|definition| target(definition).verdict == Verdict::Allow)
                .map(|definition| definition.json.clone())
                .collect()
        };
        let prompt =
            |prompt: &Definition| policies.decide(principal, &Target::Prompt { server, name: &prompt.name });
        let resource = |resource: &Definition| {
            policies.decide(principal, &Target::Resource { server, uri: &resource.name })
        };
        let catalog = &offer.catalog;
        View {
            tools,
            lists: [
                Lists::new("tools", allowed),
                Lists::new("prompts", permitted(&catalog.prompts, &prompt)),
                Lists::new("resources", permitted(&catalog.resources, &resource)),
                Lists::new("resourceTemplates", permitted(&catalog.resource_templates, &resource)),
            ],
        }
    }

    /// A tool of the server by its name, with the decision; the tool may be denied.
    pub(crate) fn tool(&self, name: &str) -> Option<&ToolAccess> {
        self.tools.get(name)
    }

    /// The names of tools that the agent may call.
    pub(crate) fn allowed_tools(&self) -> impl Iterator<Item = &str> {
        self.tools
            .values()
            .filter(|access| access.decision.verdict == Verdict::Allow)
            .map(|access| access.tool.name.as_ref())
    }

    /// The `result` of a list method as JSON; `None` for another method.
    pub(crate) fn list(&self, method: &Method, era: Era) -> Option<Bytes> {
        let lists = match method {
            Method::ToolsList => &self.lists[0],
            Method::PromptsList => &self.lists[1],
            Method::ResourcesList => &self.lists[2],
            Method::ResourceTemplatesList => &self.lists[3],
            _ => return None,
        };
        Some(lists.result(era))
    }
}

impl Lists {
    fn new(field: &'static str, allowed: Vec<Arc<str>>) -> Lists {
        Lists { field, allowed, legacy: OnceLock::new(), modern: OnceLock::new() }
    }

    fn result(&self, era: Era) -> Bytes {
        let rendered = match era {
            Era::Legacy => self.legacy.get_or_init(|| self.render("")),
            // Private: the list depends on who asks.
            Era::Modern => self.modern.get_or_init(|| {
                let tail =
                    format!(r#","resultType":"complete","ttlMs":{LIST_TTL_MS},"cacheScope":"private""#);
                self.render(&tail)
            }),
        };
        rendered.clone()
    }

    fn render(&self, tail: &str) -> Bytes {
        format!(r#"{{"{}":[{}]{tail}}}"#, self.field, self.allowed.join(",")).into()
    }
}
