//! What is looked for in the calls of a tenant, a server or a tool, and taken out of its answers.
//!
//! Always holds after its check: bounds are kept; tools are told of servers only, and not within tools. What is said of
//! a tool counts over what is said of its server, and that over what is said of the tenant; what is taken out of answers
//! adds up.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::check::error;
use super::{LIST_MAX, SpecError};
use crate::inspection::{Detector, Filter, Form, Mode};
use crate::name::TOOL_NAME_BYTES_MAX;

/// Places of arguments that are declared together: more than a tool has arguments.
pub const ARGUMENT_PLACES_MAX: usize = 64;
/// Longest place of an argument, and name of a field, in bytes.
pub const PLACE_BYTES_MAX: usize = 256;
/// Patterns of one tenant, server or tool: each is another pass over its answers.
pub const PATTERNS_MAX: usize = 32;
/// Longest pattern in bytes: a line or two.
pub const PATTERN_BYTES_MAX: usize = 1_024;
/// Longest name of a pattern in bytes.
const PATTERN_NAME_BYTES_MAX: usize = 32;
/// Most bytes of arguments, and of one text of them: what a request may have at all.
const LIMIT_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// Most values: those of a request of nothing but `0,`.
const LIMIT_VALUES_MAX: u32 = 2 * 1024 * 1024;
/// Most levels: as deep as arguments are looked into.
const LIMIT_DEPTH_MAX: u32 = 100;
/// Most steps of a place.
pub const PLACE_STEPS_MAX: usize = 16;

/// What is looked for, and taken out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Inspection {
    /// What becomes of what a filter finds; where nothing is said, it is reported.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub filters: BTreeMap<Filter, Mode>,
    /// Which argument is what: by its name, or by a JSON pointer below the arguments in which `*` is any step.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, Form>,
    /// What is taken out of answers.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub redact: BTreeSet<Detector>,
    /// Names of fields whose values are taken out of answers.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub redact_fields: BTreeSet<String>,
    /// Patterns by their names, by which marks in place of what they find tell them apart. What they are is read where they
    /// are applied, because that takes a reader of patterns, and those of two builds may differ.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub redact_patterns: BTreeMap<String, String>,
    /// What [`Filter::Limits`] takes for too large; each as the layer above has it, where nothing is said.
    #[serde(skip_serializing_if = "InspectionLimits::is_default")]
    pub limits: InspectionLimits,
    /// The same for single tools of a server, as the server names them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, Inspection>,
}

/// How large and how deep arguments may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InspectionLimits {
    /// Bytes of one text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_text_bytes: Option<u32>,
    /// Bytes of all texts and names together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u32>,
    /// Values of all kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_values: Option<u32>,
    /// Levels of lists and objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_depth: Option<u32>,
}

impl InspectionLimits {
    pub(super) fn is_default(&self) -> bool {
        *self == InspectionLimits::default()
    }

    fn check(&self, path: &str) -> Result<(), SpecError> {
        for (name, value, most) in [
            ("max_text_bytes", self.max_text_bytes, LIMIT_BYTES_MAX),
            ("max_bytes", self.max_bytes, LIMIT_BYTES_MAX),
            ("max_values", self.max_values, LIMIT_VALUES_MAX),
            ("max_depth", self.max_depth, LIMIT_DEPTH_MAX),
        ] {
            if value.is_some_and(|value| !(1..=most).contains(&value)) {
                return Err(error(format!("{path}.limits.{name}"), format!("must be from 1 to {most}")));
            }
        }
        Ok(())
    }
}

impl Inspection {
    pub(super) fn is_default(&self) -> bool {
        *self == Inspection::default()
    }

    /// Of a tenant, or of a tool.
    pub(super) fn check_without_tools(&self) -> Result<(), SpecError> {
        match self.tools.is_empty() {
            true => self.check_own("inspection"),
            false => Err(error("inspection.tools", "belongs to a server")),
        }
    }

    /// Of a server.
    pub(super) fn check_of_server(&self) -> Result<(), SpecError> {
        self.check_own("inspection")?;
        if self.tools.len() > LIST_MAX {
            return Err(error("inspection.tools", format!("has more than {LIST_MAX} elements")));
        }
        for (tool, inspection) in &self.tools {
            let path = format!("inspection.tools.{tool}");
            if tool.is_empty() || tool.len() > TOOL_NAME_BYTES_MAX {
                return Err(error(path, format!("a tool's name has 1 to {TOOL_NAME_BYTES_MAX} bytes")));
            }
            if !inspection.tools.is_empty() {
                return Err(error(format!("{path}.tools"), "stands within a tool"));
            }
            inspection.check_own(&path)?;
        }
        Ok(())
    }

    fn check_own(&self, path: &str) -> Result<(), SpecError> {
        if self.arguments.len() > ARGUMENT_PLACES_MAX {
            let message = format!("has more than {ARGUMENT_PLACES_MAX} elements");
            return Err(error(format!("{path}.arguments"), message));
        }
        if self.redact_fields.len() > ARGUMENT_PLACES_MAX {
            let message = format!("has more than {ARGUMENT_PLACES_MAX} elements");
            return Err(error(format!("{path}.redact_fields"), message));
        }
        self.limits.check(path)?;
        self.check_patterns(path)?;
        if let Some(place) = self.arguments.keys().find(|place| !is_place(place)) {
            let message = format!(
                "{place:?}: an argument is named, or is a JSON pointer of at most {PLACE_STEPS_MAX} steps, such as `/files/*/path`"
            );
            return Err(error(format!("{path}.arguments"), message));
        }
        if let Some(place) = self.arguments.keys().find(|place| has_number(place)) {
            let message = format!(
                "{place:?}: elements of a list have no numbers here; `*` is every element, as in `/files/*/path`"
            );
            return Err(error(format!("{path}.arguments"), message));
        }
        let is_name = |name: &String| (1..=PLACE_BYTES_MAX).contains(&name.len());
        match self.redact_fields.iter().find(|name| !is_name(name)) {
            Some(name) => {
                let message = format!("{name:?}: a field's name has 1 to {PLACE_BYTES_MAX} bytes");
                Err(error(format!("{path}.redact_fields"), message))
            }
            None => Ok(()),
        }
    }
}

impl Inspection {
    fn check_patterns(&self, path: &str) -> Result<(), SpecError> {
        if self.redact_patterns.len() > PATTERNS_MAX {
            let message = format!("has more than {PATTERNS_MAX} elements");
            return Err(error(format!("{path}.redact_patterns"), message));
        }
        // It stands in answers, within texts of JSON.
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        for (name, pattern) in &self.redact_patterns {
            if !(1..=PATTERN_NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(is_letter) {
                let message = format!(
                    "{name:?}: a pattern's name has 1 to {PATTERN_NAME_BYTES_MAX} of a-z, 0-9 and `-`, such as employee-id"
                );
                return Err(error(format!("{path}.redact_patterns"), message));
            }
            if pattern.len() > PATTERN_BYTES_MAX {
                let message = format!("has more than {PATTERN_BYTES_MAX} bytes");
                return Err(error(format!("{path}.redact_patterns.{name}"), message));
            }
        }
        Ok(())
    }
}

/// A number says which element of a list is meant, and a tool may get it in another order.
fn has_number(place: &str) -> bool {
    let is_number = |step: &str| step.bytes().all(|byte| byte.is_ascii_digit());
    place.strip_prefix('/').is_some_and(|pointer| pointer.split('/').any(is_number))
}

fn is_place(place: &str) -> bool {
    let steps = place.strip_prefix('/').map(|pointer| pointer.split('/'));
    (1..=PLACE_BYTES_MAX).contains(&place.len())
        && steps.is_none_or(|mut steps| {
            steps.clone().count() <= PLACE_STEPS_MAX && steps.all(|step| !step.is_empty())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Inspection {
        serde_json::from_str(text).expect("it can be read")
    }

    fn refused(result: Result<(), SpecError>) -> String {
        result.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_is_said_of_a_server_and_its_tools_is_read() {
        let inspection = read(
            r#"{"filters": {"sql": "block", "unicode": "off"}, "arguments": {"/files/*/path": "path"},
                "redact": ["cards", "keys"], "redact_fields": ["ssn"],
                "tools": {"query": {"arguments": {"sql": "sql"}}}}"#,
        );
        assert_eq!(inspection.check_of_server(), Ok(()));
        assert_eq!(inspection.filters, [(Filter::Sql, Mode::Block), (Filter::Unicode, Mode::Off)].into());
        assert_eq!(inspection.tools["query"].arguments, [("sql".to_owned(), Form::Sql)].into());
        assert!(Inspection::default().is_default());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_named() {
        assert_eq!(
            refused(read(r#"{"tools": {"a": {}}}"#).check_without_tools()),
            "inspection.tools: belongs to a server"
        );
        assert_eq!(
            refused(read(r#"{"tools": {"a": {"tools": {"b": {}}}}}"#).check_of_server()),
            "inspection.tools.a.tools: stands within a tool"
        );
        assert_eq!(
            refused(read(r#"{"tools": {"a": {"arguments": {"/x//y": "sql"}}}}"#).check_of_server()),
            "inspection.tools.a.arguments: \"/x//y\": an argument is named, or is a JSON pointer of at most 16 steps, \
             such as `/files/*/path`"
        );
        assert_eq!(
            refused(read(r#"{"arguments": {"/rows/0": "sql"}}"#).check_without_tools()),
            "inspection.arguments: \"/rows/0\": elements of a list have no numbers here; `*` is every element, as in \
             `/files/*/path`"
        );
        assert_eq!(read(r#"{"arguments": {"0": "sql", "/rows/a0": "sql"}}"#).check_without_tools(), Ok(()));
        assert_eq!(
            refused(read(r#"{"redact_patterns": {"Employee": "x"}}"#).check_without_tools()),
            "inspection.redact_patterns: \"Employee\": a pattern's name has 1 to 32 of a-z, 0-9 and `-`, such as \
             employee-id"
        );
        assert_eq!(
            refused(read(r#"{"limits": {"max_depth": 101}}"#).check_without_tools()),
            "inspection.limits.max_depth: must be from 1 to 100"
        );
        assert_eq!(
            refused(read(r#"{"redact_fields": [""]}"#).check_without_tools()),
            "inspection.redact_fields: \"\": a field's name has 1 to 256 bytes"
        );
    }
}
