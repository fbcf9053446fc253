//! What an endpoint tells of the tokens that it takes.

use gantry_model::resource::IssuerSpec;
use serde_json::{Value, json};

use super::*;
use crate::identity::keepers::Keepers;

fn provider(name: &str, issuer: &str) -> Arc<Provider> {
    let spec: IssuerSpec = serde_json::from_value(json!({"issuer": issuer})).expect("a specification");
    Arc::new(Provider::compile(name.parse().expect("a name"), spec, &Keepers::default()))
}

fn showing(scopes: &[&str]) -> Identity {
    Identity {
        provider: "corp".parse().expect("a name"),
        client: "cli".to_owned(),
        user: None,
        actors: Vec::new(),
        groups: BTreeSet::new(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        tags: BTreeMap::new(),
        ends_at: 0,
        bound_to: None,
        told: Default::default(),
    }
}

fn access(authentication: Value, url: Option<&str>) -> Access {
    let spec: Authentication = serde_json::from_value(authentication).expect("a specification");
    let providers =
        [provider("corp", "https://id.example.com"), provider("other", "https://other.example.com")];
    Access::compile(&spec, providers.iter(), &[], url.map(str::to_owned))
}

const URL: &str = "https://mcp.example.com/acme/main/mcp";

#[test]
fn a_stranger_learns_where_to_get_a_token_for_exactly_this_endpoint() {
    let access = access(json!({"required_scopes": ["mcp"], "tool_scopes": {"rm": ["admin"]}}), Some(URL));
    let metadata: Value = serde_json::from_str(access.metadata.as_deref().expect("metadata")).expect("JSON");
    let expected = json!({
        "resource": URL,
        "authorization_servers": ["https://id.example.com", "https://other.example.com"],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["admin", "mcp"],
    });
    assert_eq!(metadata, expected);
    let at = "https://mcp.example.com/.well-known/oauth-protected-resource/acme/main/mcp";
    assert_eq!(access.challenge(None), format!(r#", resource_metadata="{at}", scope="mcp""#));
}

#[test]
fn a_step_up_asks_for_all_that_the_call_needs_at_once() {
    let access = access(json!({"required_scopes": ["mcp"], "tool_scopes": {"rm": ["admin"]}}), Some(URL));
    assert_eq!(access.check_scopes(None, Some("rm")), Ok(()), "a key is for everything");
    assert_eq!(access.check_scopes(Some(&showing(&["mcp"])), Some("ls")), Ok(()));
    assert_eq!(access.check_scopes(Some(&showing(&["mcp", "admin"])), Some("rm")), Ok(()));
    let missing = access.check_scopes(Some(&showing(&["mcp"])), Some("rm")).expect_err("it is not for that");
    assert!(access.challenge(Some(&missing)).ends_with(r#", scope="admin mcp""#));
    assert!(access.check_scopes(Some(&showing(&["admin"])), None).is_err());
}

#[test]
fn an_endpoint_that_takes_no_token_tells_nothing() {
    for (authentication, url) in [(json!({"providers": []}), Some(URL)), (json!({}), None)] {
        let access = access(authentication, url);
        assert_eq!((access.metadata.as_deref(), access.challenge(None).as_str()), (None, ""));
    }
    let access = access(json!({"providers": ["other"]}), Some(URL));
    assert!(
        access.takes(&"other".parse().expect("a name")) && !access.takes(&"corp".parse().expect("a name"))
    );
}
