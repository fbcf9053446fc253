//! The vocabulary of policies: Cedar's schema and the names in it, each parsed once per process.
//!
//! Always holds: every name here stands in [`SCHEMA`], and the schema is the same for every tenant and catalog but for
//! the arguments of tools; which entities exist is [`crate::Known`]'s question. It decides nothing.

use std::str::FromStr;
use std::sync::LazyLock;

use cedar_policy::{EntityId, EntityTypeName, EntityUid, Schema, Validator};

use crate::arguments::Shape;

/// The schema that policies are validated against, in Cedar's schema language.
pub const SCHEMA: &str = include_str!("gantry.cedarschema");

/// Types of entities that a policy may name by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum EntityKind {
    Agent,
    Group,
    User,
    Server,
    Tool,
    Prompt,
    Resource,
}

/// The names of entity types and actions in Cedar's form.
pub(crate) struct Vocabulary {
    agent: EntityTypeName,
    group: EntityTypeName,
    user: EntityTypeName,
    server: EntityTypeName,
    tool: EntityTypeName,
    prompt: EntityTypeName,
    resource: EntityTypeName,
    pub(crate) tools_call: EntityUid,
    pub(crate) prompts_get: EntityUid,
    pub(crate) resources_read: EntityUid,
    pub(crate) resources_subscribe: EntityUid,
    pub(crate) completion_complete: EntityUid,
    pub(crate) server_use: EntityUid,
}

pub(crate) static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(Vocabulary::new);

pub(crate) static VALIDATOR: LazyLock<Validator> =
    LazyLock::new(|| validator(SCHEMA).expect("INVARIANT: the schema of this crate parses"));

/// What stands in [`SCHEMA`] for the arguments of a tool.
const ARGUMENTS: &str = "arguments: {}";

/// A validator that knows the arguments of one tool; `None` where their names cannot be said in Cedar.
pub(crate) fn validator_of(shape: &Shape) -> Option<Validator> {
    validator(&SCHEMA.replacen(ARGUMENTS, &format!("arguments: {}", shape.cedar()), 1))
}

fn validator(schema: &str) -> Option<Validator> {
    Schema::from_cedarschema_str(schema).ok().map(|(schema, _)| Validator::new(schema))
}

impl EntityKind {
    const ALL: [EntityKind; 7] = [
        EntityKind::Agent,
        EntityKind::Group,
        EntityKind::User,
        EntityKind::Server,
        EntityKind::Tool,
        EntityKind::Prompt,
        EntityKind::Resource,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            EntityKind::Agent => "Agent",
            EntityKind::Group => "Group",
            EntityKind::User => "User",
            EntityKind::Server => "Server",
            EntityKind::Tool => "Tool",
            EntityKind::Prompt => "Prompt",
            EntityKind::Resource => "Resource",
        }
    }

    /// The kind of that name; `None` for actions and for types that are not in the schema, which validation refuses.
    pub(crate) fn from_name(name: &str) -> Option<EntityKind> {
        EntityKind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl Vocabulary {
    fn new() -> Vocabulary {
        let of = |kind: EntityKind| type_name(kind.as_str());
        let action_type = type_name("Action");
        let action = |method| EntityUid::from_type_name_and_id(action_type.clone(), EntityId::new(method));
        Vocabulary {
            agent: of(EntityKind::Agent),
            group: of(EntityKind::Group),
            user: of(EntityKind::User),
            server: of(EntityKind::Server),
            tool: of(EntityKind::Tool),
            prompt: of(EntityKind::Prompt),
            resource: of(EntityKind::Resource),
            tools_call: action("tools/call"),
            prompts_get: action("prompts/get"),
            resources_read: action("resources/read"),
            resources_subscribe: action("resources/subscribe"),
            completion_complete: action("completion/complete"),
            server_use: action("server/use"),
        }
    }

    /// The entity of a kind with that id.
    pub(crate) fn entity(&self, kind: EntityKind, id: impl AsRef<str>) -> EntityUid {
        let name = match kind {
            EntityKind::Agent => &self.agent,
            EntityKind::Group => &self.group,
            EntityKind::User => &self.user,
            EntityKind::Server => &self.server,
            EntityKind::Tool => &self.tool,
            EntityKind::Prompt => &self.prompt,
            EntityKind::Resource => &self.resource,
        };
        EntityUid::from_type_name_and_id(name.clone(), EntityId::new(id))
    }
}

fn type_name(identifier: &str) -> EntityTypeName {
    EntityTypeName::from_str(identifier).expect("INVARIANT: an identifier is a type name")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_vocabulary_is_that_of_the_schema() {
        let schema = VALIDATOR.schema();
        let types: BTreeSet<String> = schema.entity_types().map(ToString::to_string).collect();
        let ours: BTreeSet<String> =
            EntityKind::ALL.into_iter().map(|kind| kind.as_str().to_owned()).collect();
        assert_eq!(ours, types.into_iter().filter(|name| name != "Action").collect());
        let actions: BTreeSet<&EntityUid> = schema.actions().collect();
        let names = &*VOCABULARY;
        let ours = [
            &names.tools_call,
            &names.prompts_get,
            &names.resources_read,
            &names.resources_subscribe,
            &names.completion_complete,
            &names.server_use,
        ];
        assert_eq!(actions, ours.into_iter().collect());
    }
}
