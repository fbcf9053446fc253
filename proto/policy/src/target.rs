//! Who asks and for what: the two sides of a request, in Cedar's form.
//!
//! Always holds: an entity made here conforms to [`crate::SCHEMA`], and the action follows from the target, so that
//! no caller can pair them wrongly. It does not decide.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cedar_policy::{Entities, Entity, EntityUid, RestrictedExpression};
use cedar_policy_core::ast;
use cedar_policy_core::ast::{PartialValue, Value};
use gantry_model::{AgentName, GroupName, ProviderName, ServerName, UserId};

use crate::hints::Hints;
use crate::schema::{EntityKind, VOCABULARY};

/// An agent with its groups, and for whom it acts where a token says so. Made once per agent, what its token says and
/// configuration, and used for every request.
#[derive(Debug, Clone)]
pub struct Principal {
    pub(crate) uid: EntityUid,
    /// The agent, and its user: Cedar needs no entity of a group, since their own ones say what they are in.
    pub(crate) entities: Entities,
}

/// What a token says that policies may ask for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shown {
    /// Whose token it is.
    pub provider: ProviderName,
    /// For whom the agent acts, where it does for anybody.
    pub user: Option<ActsFor>,
    /// In which groups that user is.
    pub groups: BTreeSet<String>,
    /// What the token is for.
    pub scopes: BTreeSet<String>,
    /// Claims by the names that the provider's specification gives them.
    pub tags: BTreeMap<String, BTreeSet<String>>,
}

/// What is asked for. The action is the MCP method that the variant is named for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// `tools/call`, and the tool's place in `tools/list`.
    Tool {
        /// The server of the tool.
        server: &'a ServerName,
        /// What the server calls it.
        name: &'a str,
        /// What the server claims about it.
        hints: Hints,
    },
    /// `prompts/get`, and the prompt's place in `prompts/list`.
    Prompt {
        /// The server of the prompt.
        server: &'a ServerName,
        /// What the server calls it.
        name: &'a str,
    },
    /// `resources/read`, and the resource's place in `resources/list`.
    Resource {
        /// The server of the resource.
        server: &'a ServerName,
        /// Its URI; for a template in a list, the URI template.
        uri: &'a str,
    },
    /// `resources/subscribe`, and `resources/unsubscribe`.
    Subscribe {
        /// The server of the resource.
        server: &'a ServerName,
        /// Its URI.
        uri: &'a str,
    },
    /// `completion/complete` for an argument of a prompt.
    CompletePrompt {
        /// The server of the prompt.
        server: &'a ServerName,
        /// What the server calls it.
        name: &'a str,
    },
    /// `completion/complete` for a variable of a resource template.
    CompleteResource {
        /// The server of the resource.
        server: &'a ServerName,
        /// The URI template.
        uri: &'a str,
    },
    /// `server/use`: a request that concerns the server as a whole, such as `logging/setLevel`,
    /// `subscriptions/listen` and `tasks/*`.
    Server {
        /// The server.
        server: &'a ServerName,
    },
}

/// For whom an agent acts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActsFor {
    /// This user.
    User(UserId),
    /// A user whom no policy names: to policies all of them are alike.
    Unnamed,
}

impl Principal {
    /// An agent that is in these groups, and shows no token.
    pub fn new(agent: &AgentName, groups: &[GroupName]) -> Principal {
        Principal::of(agent, groups, None)
    }

    /// An agent that is in these groups, and shows a token.
    pub fn showing(agent: &AgentName, groups: &[GroupName], shown: &Shown) -> Principal {
        Principal::of(agent, groups, Some(shown))
    }

    fn of(agent: &AgentName, groups: &[GroupName], shown: Option<&Shown>) -> Principal {
        let uid = VOCABULARY.entity(EntityKind::Agent, agent);
        let groups = groups.iter().map(|group| VOCABULARY.entity(EntityKind::Group, group));
        let mut attributes =
            HashMap::from([("scopes".to_owned(), texts(shown.iter().flat_map(|shown| &shown.scopes)))]);
        let (mut tags, mut entities) = (HashMap::new(), Vec::with_capacity(2));
        if let Some(shown) = shown {
            let provider = RestrictedExpression::new_string(shown.provider.to_string());
            attributes.insert("provider".to_owned(), provider);
            if let Some(user) = &shown.user {
                // No user's id is empty.
                let id = match user {
                    ActsFor::User(user) => user.to_string(),
                    ActsFor::Unnamed => String::new(),
                };
                let user = VOCABULARY.entity(EntityKind::User, id);
                let groups = shown.groups.iter().map(|group| VOCABULARY.entity(EntityKind::Group, group));
                attributes.insert("user".to_owned(), RestrictedExpression::new_entity_uid(user.clone()));
                entities.push(Entity::new_no_attrs(user, groups.collect()));
            }
            tags.extend(shown.tags.iter().map(|(name, values)| (name.clone(), texts(values))));
        }
        let agent = Entity::new_with_tags(uid.clone(), attributes, groups, tags);
        entities
            .push(agent.expect("INVARIANT: texts, sets of them and ids need no evaluation that could fail"));
        let entities = Entities::from_entities(entities, None)
            .expect("INVARIANT: an agent and a user are two entities, and neither is in itself");
        Principal { uid, entities }
    }
}

fn texts<'a>(values: impl IntoIterator<Item = &'a String>) -> RestrictedExpression {
    RestrictedExpression::new_set(
        values.into_iter().map(|value| RestrictedExpression::new_string(value.clone())),
    )
}

impl Target<'_> {
    /// The server that it is of.
    pub fn server(&self) -> &ServerName {
        match self {
            Target::Tool { server, .. }
            | Target::Prompt { server, .. }
            | Target::Resource { server, .. }
            | Target::Subscribe { server, .. }
            | Target::CompletePrompt { server, .. }
            | Target::CompleteResource { server, .. }
            | Target::Server { server } => server,
        }
    }

    /// The method that it is asked for by, which is its action.
    pub fn method(&self) -> &'static str {
        match self {
            Target::Tool { .. } => "tools/call",
            Target::Prompt { .. } => "prompts/get",
            Target::Resource { .. } => "resources/read",
            Target::Subscribe { .. } => "resources/subscribe",
            Target::CompletePrompt { .. } | Target::CompleteResource { .. } => "completion/complete",
            Target::Server { .. } => "server/use",
        }
    }

    /// The type of its entity.
    pub fn kind(&self) -> &'static str {
        let kind = match self {
            Target::Tool { .. } => EntityKind::Tool,
            Target::Prompt { .. } | Target::CompletePrompt { .. } => EntityKind::Prompt,
            Target::Resource { .. } | Target::Subscribe { .. } | Target::CompleteResource { .. } => {
                EntityKind::Resource
            }
            Target::Server { .. } => EntityKind::Server,
        };
        kind.as_str()
    }

    /// What its server calls it; `None`: it is the server.
    pub fn name(&self) -> Option<&str> {
        match self {
            Target::Tool { name, .. } | Target::Prompt { name, .. } | Target::CompletePrompt { name, .. } => {
                Some(name)
            }
            Target::Resource { uri, .. }
            | Target::Subscribe { uri, .. }
            | Target::CompleteResource { uri, .. } => Some(uri),
            Target::Server { .. } => None,
        }
    }

    pub(crate) fn action(&self) -> &'static EntityUid {
        match self {
            Target::Tool { .. } => &VOCABULARY.tools_call,
            Target::Prompt { .. } => &VOCABULARY.prompts_get,
            Target::Resource { .. } => &VOCABULARY.resources_read,
            Target::Subscribe { .. } => &VOCABULARY.resources_subscribe,
            Target::CompletePrompt { .. } | Target::CompleteResource { .. } => {
                &VOCABULARY.completion_complete
            }
            Target::Server { .. } => &VOCABULARY.server_use,
        }
    }

    /// The entity that is asked for. Its server is its parent, which needs no entity of its own.
    pub(crate) fn entity(&self) -> ast::Entity {
        let (kind, server, name) = match *self {
            Target::Tool { server, name, .. } => (EntityKind::Tool, server, name),
            Target::Prompt { server, name } | Target::CompletePrompt { server, name } => {
                (EntityKind::Prompt, server, name)
            }
            Target::Resource { server, uri }
            | Target::Subscribe { server, uri }
            | Target::CompleteResource { server, uri } => (EntityKind::Resource, server, uri),
            Target::Server { server } => {
                return entity(&VOCABULARY.entity(EntityKind::Server, server), None, Vec::new());
            }
        };
        let key = if kind == EntityKind::Resource { "uri" } else { "name" };
        let mut attributes = vec![(key, Value::from(name))];
        if let Target::Tool { hints, .. } = self {
            attributes.extend([
                ("readOnly", Value::from(hints.read_only)),
                ("destructive", Value::from(hints.destructive)),
                ("idempotent", Value::from(hints.idempotent)),
                ("openWorld", Value::from(hints.open_world)),
            ]);
        }
        let mut id = String::with_capacity(server.as_str().len() + 1 + name.len());
        id.extend([server.as_str(), "/", name]);
        let parent = VOCABULARY.entity(EntityKind::Server, server);
        entity(&VOCABULARY.entity(kind, id), Some(&parent), attributes)
    }
}

/// An entity of these attributes.
fn entity(uid: &EntityUid, parent: Option<&EntityUid>, attributes: Vec<(&str, Value)>) -> ast::Entity {
    let attributes = attributes.into_iter().map(|(key, value)| (key.into(), PartialValue::Value(value)));
    let parents = parent.into_iter().map(|parent| parent.as_ref().clone()).collect();
    ast::Entity::new_with_attr_partial_value(uid.as_ref().clone(), attributes, HashSet::new(), parents, [])
}

#[cfg(test)]
mod tests {
    use cedar_policy::Request;
    use gantry_model::facts::Facts;
    use serde_json::json;

    use super::*;
    use crate::arguments::Shape;
    use crate::call::{Call, MakeFacts};
    use crate::schema::validator_of;

    #[test]
    fn every_request_conforms_to_the_schema() -> Result<(), Box<dyn std::error::Error>> {
        let server: ServerName = "files".parse()?;
        let server = &server;
        let shown = Shown {
            provider: "corp".parse()?,
            user: Some(ActsFor::User("corp/ann".parse()?)),
            groups: BTreeSet::from(["staff".to_owned()]),
            scopes: BTreeSet::from(["files:read".to_owned()]),
            tags: BTreeMap::from([("department".to_owned(), BTreeSet::from(["it".to_owned()]))]),
        };
        let claude = "claude".parse()?;
        for principal in
            [Principal::new(&claude, &["ops".parse()?]), Principal::showing(&claude, &[], &shown)]
        {
            conforms(&principal, server)?;
        }
        Ok(())
    }

    fn conforms(principal: &Principal, server: &ServerName) -> Result<(), Box<dyn std::error::Error>> {
        let targets = [
            Target::Tool { server, name: "read", hints: Hints::default() },
            Target::Prompt { server, name: "x" },
            Target::Resource { server, uri: "test://x" },
            Target::Subscribe { server, uri: "test://x" },
            Target::CompletePrompt { server, name: "x" },
            Target::CompleteResource { server, uri: "test://{x}" },
            Target::Server { server },
        ];
        let input = json!({"type": "object", "properties": {"path": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "integer"}}}});
        let shape = Shape::from_schema(&input);
        let given = json!({"path": "/x", "tags": [1, 2]});
        let mut facts = Facts::default();
        facts.sql.kinds.insert("select".to_owned());
        let validator = validator_of(&shape).ok_or("a validator")?;
        let schema = validator.schema();
        Entities::from_entities(principal.entities.iter().cloned(), Some(schema))?;
        for target in targets {
            let entity = cedar_policy::Entity::from(target.entity());
            let uid = entity.uid();
            principal.entities.clone().add_entities([entity], Some(schema))?;
            let (principal, action) = (principal.uid.clone(), target.action().clone());
            let arguments = matches!(target, Target::Tool { .. }).then_some((&shape, &given));
            let make: &MakeFacts<'_> = &|| Ok(facts.clone());
            let facts = arguments.map(|_| make);
            let call = Call { at_seconds: 1, era: "modern", revision: "2026-07-28", arguments, facts };
            Request::new(principal, action, uid, call.context(true, true)?.into(), Some(schema))?;
        }
        Ok(())
    }

    #[test]
    fn an_id_is_the_server_then_a_slash_then_the_name() -> Result<(), Box<dyn std::error::Error>> {
        let server: ServerName = "files".parse()?;
        let tool = Target::Tool { server: &server, name: "a/\"b\"", hints: Hints::default() }.entity();
        assert_eq!(tool.uid().to_string(), r#"Tool::"files/a/\"b\"""#);
        Ok(())
    }
}
