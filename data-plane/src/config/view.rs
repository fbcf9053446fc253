//! What one agent sees of one endpoint: every tool, prompt and resource with what policy says of it, and the lists made
//! of those that are not denied to it.
//!
//! Always holds: lists and calls rest on the same decisions, made by the one evaluator. A view belongs to one
//! revision of its tenant and is made at the agent's first request; it may be kept because it holds only what policies
//! say of every call of an agent and a target. What depends on the call is listed, and decided when there is one.
//! Agents that may see the same have one list, and so its pages once.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use dashmap::DashMap;
use gantry_model::ServerName;
use gantry_policy::{Standing, Target};

use crate::config::caller::Agent;
use crate::config::endpoint::{Endpoint, Exposed, ExposedTool};
use crate::config::server::Server;
use crate::config::tenant::Tenant;
use crate::config::tool::Tool;
use crate::gzip::Packed;
use crate::mcp::message::Method;

/// How long a client may keep a list, in milliseconds: what an agent may see can change with any change of policy.
pub(crate) const LIST_TTL_MS: u32 = 5_000;
/// Elements of one page. Clients that read only the first are common, and agents' models use fewer.
const PAGE_ELEMENTS_MAX: usize = 1_000;
/// Fewer lists than these are not looked through for such as nobody uses: they are a few kilobytes.
const SWEPT_MIN: usize = 64;

/// What one agent sees of one endpoint.
pub(crate) struct View {
    /// Servers that are left out of the lists.
    banned: Arc<BTreeSet<ServerName>>,
    tools: HashMap<Arc<str>, ToolAccess>,
    lists: [Arc<List>; 4],
}

/// A tool and what policy says of it.
#[derive(Clone)]
pub(crate) struct ToolAccess {
    /// The server that has it.
    pub(crate) server: Arc<Server>,
    /// The tool.
    pub(crate) tool: Arc<Tool>,
    /// What policy says of every call of it.
    pub(crate) standing: Arc<Standing>,
}

/// One list: the definitions that are allowed.
pub(crate) struct List {
    field: &'static str,
    allowed: Vec<Arc<str>>,
    /// Differs when the list does.
    pub(crate) fingerprint: u64,
    pages: OnceLock<Vec<Arc<Page>>>,
}

/// A page of a list, the same for all who may see it.
pub(crate) struct Page {
    /// `{"field":[...]`, open at its end.
    pub(crate) text: Bytes,
    packed: OnceLock<Option<Packed>>,
}

/// The lists of an endpoint that are in use, by whoever keeps a view of it; those of views that are gone are forgotten.
#[derive(Default)]
pub(crate) struct Shared {
    lists: DashMap<(&'static str, u64), Weak<List>>,
    /// With so many entries it is looked which are in use.
    sweep_at: AtomicUsize,
}

/// The lists that there are, in the order of a view's.
pub(crate) const LISTS: [Method; 4] =
    [Method::ToolsList, Method::PromptsList, Method::ResourcesList, Method::ResourceTemplatesList];

impl View {
    /// Decides over everything that the endpoint offers. What a banned server has is found, to be refused, and in no list.
    pub(crate) fn build(
        tenant: &Tenant,
        agent: &Agent,
        endpoint: &Endpoint,
        banned: &Arc<BTreeSet<ServerName>>,
    ) -> View {
        let mut tools = HashMap::with_capacity(endpoint.tools.len());
        let mut allowed = Vec::with_capacity(endpoint.tools.len());
        for ExposedTool { name, server, tool, json } in &endpoint.tools {
            let target = Target::Tool { server: &server.name, name: &tool.name, hints: tool.hints };
            let standing = Arc::new(tenant.standing(agent, &target));
            if standing.is_shown() && !banned.contains(&server.name) {
                allowed.push(json.clone());
            }
            let access = ToolAccess { server: server.clone(), tool: tool.clone(), standing };
            tools.insert(name.clone(), access);
        }
        let permitted = |exposed: &[Exposed], is_prompt: bool| {
            let allows = |exposed: &&Exposed| {
                let (server, name) = (&exposed.server.name, exposed.inner.as_ref());
                let target = match is_prompt {
                    true => Target::Prompt { server, name },
                    false => Target::Resource { server, uri: name },
                };
                !banned.contains(server) && tenant.standing(agent, &target).is_shown()
            };
            exposed.iter().filter(allows).map(|exposed| exposed.json.clone()).collect()
        };
        let list = |field, allowed| endpoint.lists.share(List::new(field, allowed));
        View {
            banned: banned.clone(),
            tools,
            lists: [
                list("tools", allowed),
                list("prompts", permitted(&endpoint.prompts, true)),
                list("resources", permitted(&endpoint.resources, false)),
                list("resourceTemplates", permitted(&endpoint.templates, false)),
            ],
        }
    }

    /// Whether exactly these servers are left out.
    pub(crate) fn is_without(&self, banned: &Arc<BTreeSet<ServerName>>) -> bool {
        Arc::ptr_eq(&self.banned, banned) || self.banned == *banned
    }

    /// A tool by the name that agents use, with its standing; the tool may be denied.
    pub(crate) fn tool(&self, name: &str) -> Option<&ToolAccess> {
        self.tools.get(name)
    }

    /// The names of tools that the agent may call, or may call in some way.
    pub(crate) fn allowed_tools(&self) -> impl Iterator<Item = &str> {
        let allowed =
            |access: &ToolAccess| access.standing.is_shown() && !self.banned.contains(&access.server.name);
        self.tools.iter().filter(move |(_, access)| allowed(access)).map(|(name, _)| name.as_ref())
    }

    /// The list of a method; `None` for another method.
    pub(crate) fn list(&self, method: &Method) -> Option<&List> {
        LISTS.iter().position(|list| list == method).map(|index| self.lists[index].as_ref())
    }

    /// What tells whether lists differ: tools, prompts, and resources with their templates.
    pub(crate) fn fingerprints(&self) -> [u64; 3] {
        let [tools, prompts, resources, templates] = self.lists.each_ref().map(|list| list.fingerprint);
        [tools, prompts, resources ^ templates.rotate_left(1)]
    }
}

impl List {
    fn new(field: &'static str, allowed: Vec<Arc<str>>) -> List {
        let mut hasher = DefaultHasher::new();
        allowed.hash(&mut hasher);
        List { field, allowed, fingerprint: hasher.finish(), pages: OnceLock::new() }
    }

    /// A page, and whether another follows; `None` when there is no such page.
    pub(crate) fn page(&self, index: usize) -> Option<(Arc<Page>, bool)> {
        let pages = self.pages.get_or_init(|| self.render());
        pages.get(index).map(|page| (page.clone(), index + 1 < pages.len()))
    }

    fn render(&self) -> Vec<Arc<Page>> {
        let page = |elements: &[Arc<str>]| {
            Arc::new(Page::of(format!(r#"{{"{}":[{}]"#, self.field, elements.join(","))))
        };
        match self.allowed.as_slice() {
            [] => vec![page(&[])],
            allowed => allowed.chunks(PAGE_ELEMENTS_MAX).map(page).collect(),
        }
    }
}

impl Page {
    /// A page of this text.
    pub(crate) fn of(text: String) -> Page {
        Page { text: text.into(), packed: OnceLock::new() }
    }

    /// The page for clients that take gzip, compressed when the first of them asks; `None` where it is not smaller.
    pub(crate) fn packed(&self) -> Option<&Packed> {
        self.packed.get_or_init(|| Packed::of(&self.text)).as_ref()
    }
}

impl Shared {
    /// The list that is in use already, where it is the same.
    fn share(&self, list: List) -> Arc<List> {
        let list = Arc::new(list);
        self.sweep();
        let mut kept =
            self.lists.entry((list.field, list.fingerprint)).or_insert_with(|| Arc::downgrade(&list));
        match kept.upgrade() {
            Some(used) if used.allowed == list.allowed => used,
            // A fingerprint is no proof, and a collision must not show one agent what another may see.
            Some(_) => list,
            None => {
                *kept = Arc::downgrade(&list);
                list
            }
        }
    }

    /// Forgets what nobody uses, once there may be as much of it as of the rest.
    fn sweep(&self) {
        if self.lists.len() >= self.sweep_at.load(Ordering::Relaxed).max(SWEPT_MIN) {
            self.lists.retain(|_, list| list.strong_count() > 0);
            self.sweep_at.store(self.lists.len() * 2, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> List {
        List::new("tools", names.iter().map(|name| format!(r#"{{"name":"{name}"}}"#).into()).collect())
    }

    #[test]
    fn agents_that_may_see_the_same_share_a_list_and_others_do_not_even_when_fingerprints_collide() {
        let shared = Shared::default();
        let first = shared.share(list(&["a", "b"]));
        assert!(Arc::ptr_eq(&first, &shared.share(list(&["a", "b"]))));
        let colliding = List { fingerprint: first.fingerprint, ..list(&["a"]) };
        let (page, more) = shared.share(colliding).page(0).expect("a page");
        assert_eq!((page.text.as_ref(), more), (br#"{"tools":[{"name":"a"}]"#.as_slice(), false));
    }

    #[test]
    fn lists_of_views_that_are_gone_are_forgotten_and_those_in_use_are_not() {
        let shared = Shared::default();
        let kept: Vec<_> = (0..100).map(|number| shared.share(list(&[&format!("kept_{number}")]))).collect();
        (0..10_000).for_each(|number| drop(shared.share(list(&[&format!("gone_{number}")]))));
        assert!(shared.lists.len() <= 2 * kept.len() + 1, "{}", shared.lists.len());
        for (number, kept) in kept.iter().enumerate() {
            assert!(Arc::ptr_eq(kept, &shared.share(list(&[&format!("kept_{number}")]))), "{number}");
        }
        // One that is wanted again after it was forgotten.
        let again = shared.share(list(&["gone_9999"]));
        assert!(Arc::ptr_eq(&again, &shared.share(list(&["gone_9999"]))));
    }

    #[test]
    fn a_page_is_kept_once_as_it_is_and_once_in_a_fraction_of_that() {
        let names: Vec<String> =
            (0..300).map(|number| format!("tool_{number}_{}", "word ".repeat(90))).collect();
        let list = list(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let (page, _) = list.page(0).expect("a page");
        let packed = page.packed().expect("it becomes smaller").len();
        println!("a page of {} bytes is kept in {packed} more", page.text.len());
        assert!(packed * 8 < page.text.len());
    }
}
