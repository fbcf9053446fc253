//! What a token says, once it is believed.
//!
//! Always holds: [`Claims`] are made by [`crate::Rules::check`] alone; a claim that is not of the form that is asked for is
//! not there.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::binding::Thumbprint;

/// Texts of one claim that are looked at: groups of a person. Beyond, a provider sends a link in their place.
const LIST_MAX: usize = 1_024;

/// What a provider says of somebody.
#[derive(Clone, PartialEq)]
pub struct Claims {
    members: Map<String, Value>,
    /// Until when it counts, in seconds since 1970, without skew.
    expires_at: u64,
    bound_to: Option<Thumbprint>,
}

/// Where a claim is: its name (`groups`, `https://example.com/roles`), or a JSON pointer (`/realm_access/roles`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimPath(String);

/// The text is no place of a claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a claim is a name, or a JSON pointer such as /realm_access/roles, of 1 to 256 characters")]
pub struct ClaimPathError;

impl Claims {
    pub(crate) fn new(members: Map<String, Value>, expires_at: u64, bound_to: Option<Thumbprint>) -> Claims {
        Claims { members, expires_at, bound_to }
    }

    /// The certificate of the only connections that the token counts on; whoever trusts has to ask for it.
    pub fn bound_to(&self) -> Option<Thumbprint> {
        self.bound_to
    }

    /// Until when the token counts, in seconds since 1970; a caller that goes on for long has to end then.
    pub fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// Whom it is about, as the provider knows him.
    pub fn subject(&self) -> Option<&str> {
        self.members.get("sub").and_then(Value::as_str).filter(|subject| !subject.is_empty())
    }

    /// A claim that is one text.
    pub fn text(&self, path: &ClaimPath) -> Option<&str> {
        self.at(path)?.as_str()
    }

    /// A claim that is a text or a list of texts; what else is in the list is not there.
    pub fn texts(&self, path: &ClaimPath) -> Vec<&str> {
        match self.at(path) {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(list)) => list.iter().take(LIST_MAX).filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// A claim as it is.
    pub fn at(&self, path: &ClaimPath) -> Option<&Value> {
        let Some(pointer) = path.0.strip_prefix('/') else { return self.members.get(&path.0) };
        let mut parts = pointer.split('/').map(|part| part.replace("~1", "/").replace("~0", "~"));
        let first = self.members.get(&parts.next()?)?;
        parts.try_fold(first, |value, part| value.as_object()?.get(&part))
    }
}

impl fmt::Debug for Claims {
    /// Names, for what they say is somebody's.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.members.keys().collect();
        formatter.debug_struct("Claims").field("members", &names).finish_non_exhaustive()
    }
}

impl FromStr for ClaimPath {
    type Err = ClaimPathError;

    fn from_str(text: &str) -> Result<ClaimPath, ClaimPathError> {
        let is_one = (1..=256).contains(&text.len()) && text != "/" && !text.chars().any(char::is_control);
        if is_one { Ok(ClaimPath(text.to_owned())) } else { Err(ClaimPathError) }
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_found_by_its_name_or_by_a_pointer_and_is_of_the_form_that_is_asked_for() {
        let text = br#"{"sub":"s","groups":["a",1,"b"],"one":"c","a.b":"d","r":{"x/y":["e"]},"n":5}"#;
        let claims = Claims::new(crate::json::object(text).expect("an object"), 7, None);
        let path = |text: &str| text.parse::<ClaimPath>().expect("a path");
        assert_eq!((claims.subject(), claims.expires_at()), (Some("s"), 7));
        assert_eq!(claims.texts(&path("groups")), ["a", "b"]);
        assert_eq!(claims.texts(&path("one")), ["c"]);
        assert_eq!(claims.texts(&path("/r/x~1y")), ["e"]);
        assert_eq!(claims.text(&path("a.b")), Some("d"));
        for absent in ["n", "r", "/r", "/r/x", "/groups/0", "/a/b", "none", "groups/0"] {
            assert_eq!(claims.texts(&path(absent)), Vec::<&str>::new(), "{absent}");
        }
        assert_eq!(claims.text(&path("groups")), None);
        for none in ["", "/", "a\nb", &"x".repeat(257)] {
            assert_eq!(none.parse::<ClaimPath>(), Err(ClaimPathError), "{none}");
        }
        assert!(!format!("{claims:?}").contains("\"s\""));
    }
}
