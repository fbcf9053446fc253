//! The methods of the protocol.
//!
//! Always holds: a method that is not known by name keeps its name; which era has which stands here only.

use super::super::Era;

/// The methods that a gateway treats by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Method {
    Initialize,
    Discover,
    Ping,
    ToolsList,
    ToolsCall,
    PromptsList,
    PromptsGet,
    ResourcesList,
    ResourceTemplatesList,
    ResourcesRead,
    ResourcesSubscribe,
    ResourcesUnsubscribe,
    CompletionComplete,
    SetLevel,
    Listen,
    TasksGet,
    TasksUpdate,
    TasksCancel,
    TasksList,
    TasksResult,
    /// Any other; a notification's name, too.
    Other(String),
}

const METHODS: [(&str, Method); 20] = [
    ("initialize", Method::Initialize),
    ("server/discover", Method::Discover),
    ("ping", Method::Ping),
    ("tools/list", Method::ToolsList),
    ("tools/call", Method::ToolsCall),
    ("prompts/list", Method::PromptsList),
    ("prompts/get", Method::PromptsGet),
    ("resources/list", Method::ResourcesList),
    ("resources/templates/list", Method::ResourceTemplatesList),
    ("resources/read", Method::ResourcesRead),
    ("resources/subscribe", Method::ResourcesSubscribe),
    ("resources/unsubscribe", Method::ResourcesUnsubscribe),
    ("completion/complete", Method::CompletionComplete),
    ("logging/setLevel", Method::SetLevel),
    ("subscriptions/listen", Method::Listen),
    ("tasks/get", Method::TasksGet),
    ("tasks/update", Method::TasksUpdate),
    ("tasks/cancel", Method::TasksCancel),
    ("tasks/list", Method::TasksList),
    ("tasks/result", Method::TasksResult),
];

impl Method {
    pub(super) fn parse(name: String) -> Method {
        match METHODS.iter().find(|(known, _)| *known == name) {
            Some((_, method)) => method.clone(),
            None => Method::Other(name),
        }
    }

    /// Whether it asks for a list of what a server offers.
    pub(crate) fn is_list(&self) -> bool {
        matches!(
            self,
            Method::ToolsList | Method::PromptsList | Method::ResourcesList | Method::ResourceTemplatesList
        )
    }

    /// Whether a hop of an era may have it.
    pub(crate) fn is_of(&self, era: Era) -> bool {
        match self {
            Method::Ping | Method::SetLevel | Method::ResourcesSubscribe | Method::ResourcesUnsubscribe => {
                era == Era::Legacy
            }
            Method::Listen | Method::Discover => era == Era::Modern,
            _ => true,
        }
    }

    /// The name on the wire.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Method::Other(name) => name,
            known => METHODS.iter().find(|(_, method)| method == known).map_or("", |(name, _)| name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_method_has_its_name() {
        for (name, method) in METHODS {
            assert_eq!(Method::parse(name.to_owned()), method);
            assert_eq!(method.as_str(), name);
        }
        assert_eq!(Method::parse("x/y".to_owned()).as_str(), "x/y");
    }
}
