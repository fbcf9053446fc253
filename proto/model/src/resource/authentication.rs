//! By what callers of an endpoint are known, and what their tokens have to be for.
//!
//! Always holds after its check: somebody can be known; a scope stands in a challenge as it is.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::check::error;
use super::{LIST_MAX, SpecError};
use crate::name::{ProviderName, TOOL_NAME_BYTES_MAX};

/// Longest scope in bytes.
const SCOPE_BYTES_MAX: usize = 128;
/// Scopes that are demanded at once: they stand in one header.
pub const SCOPES_MAX: usize = 16;

/// By what callers of an endpoint are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Authentication {
    /// Whether agents' API keys are.
    #[serde(skip_serializing_if = "Clone::clone")]
    pub keys: bool,
    /// Whose tokens are; `None`: of all providers of the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub providers: Option<BTreeSet<ProviderName>>,
    /// What a token has to be for, whatever is asked. Keys have no scopes, and need none.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub required_scopes: BTreeSet<String>,
    /// What a token has to be for besides, by the tool that is called, as agents name it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tool_scopes: BTreeMap<String, BTreeSet<String>>,
}

impl Default for Authentication {
    fn default() -> Authentication {
        Authentication {
            keys: true,
            providers: None,
            required_scopes: BTreeSet::new(),
            tool_scopes: BTreeMap::new(),
        }
    }
}

impl Authentication {
    pub(super) fn is_default(&self) -> bool {
        *self == Authentication::default()
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        let at = |field: &str| format!("authentication.{field}");
        if !self.keys && self.providers.as_ref().is_some_and(BTreeSet::is_empty) {
            let message = "is empty, and `keys` is false: nobody could call";
            return Err(error(at("providers"), message));
        }
        if self.tool_scopes.len() > LIST_MAX {
            return Err(error(at("tool_scopes"), format!("has more than {LIST_MAX} elements")));
        }
        check_scopes(at("required_scopes"), &self.required_scopes)?;
        for (tool, scopes) in &self.tool_scopes {
            let path = at(&format!("tool_scopes.{tool}"));
            if tool.is_empty() || tool.len() > TOOL_NAME_BYTES_MAX {
                return Err(error(path, format!("a tool's name has 1 to {TOOL_NAME_BYTES_MAX} bytes")));
            }
            check_scopes(path, scopes)?;
        }
        Ok(())
    }
}

/// RFC 6749, 3.3: what stands in a header between quotes needs no escape.
fn check_scopes(path: String, scopes: &BTreeSet<String>) -> Result<(), SpecError> {
    if scopes.len() > SCOPES_MAX {
        return Err(error(path, format!("has more than {SCOPES_MAX} elements")));
    }
    let is_scope = |scope: &String| {
        (1..=SCOPE_BYTES_MAX).contains(&scope.len())
            && scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
    };
    match scopes.iter().find(|scope| !is_scope(scope)) {
        Some(scope) => Err(error(
            path,
            format!(
                "{scope:?}: a scope has 1 to {SCOPE_BYTES_MAX} characters, no space, no `\"` and no `\\`"
            ),
        )),
        None => Ok(()),
    }
}
