//! One tool of a server, compiled: its definition, its argument schema, the arguments that headers mirror.
//!
//! Always holds: the schema is compiled once per definition; it reads no file and no network (remote `$ref` are
//! refused), and its patterns run in linear time. A tool whose schema does not compile stays listed and is refused
//! when it is called: an unchecked call would be worse than a refused one.

use std::collections::HashSet;
use std::sync::Arc;

use gantry_model::Definition;
use gantry_policy::{Hints, Shape};
use http::HeaderName;
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use crate::mcp::headers::PARAM_PREFIX;

/// Most memory of one compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;
/// Deepest chain of `properties` that is searched for mirrored arguments.
const MIRROR_DEPTH_MAX: usize = 16;

/// A tool, ready to be listed and called.
pub(crate) struct Tool {
    /// What the server calls it.
    pub(crate) name: Arc<str>,
    /// Its definition as JSON, as the server sent it.
    pub(crate) json: Arc<str>,
    /// Of what the definition means.
    pub(crate) hash: [u8; 32],
    /// What the server claims of it.
    pub(crate) hints: Hints,
    /// The arguments that policies can read.
    pub(crate) shape: Shape,
    /// Checks arguments, or says why nothing can.
    pub(crate) schema: Result<Validator, String>,
    /// Arguments that a header repeats (2026-07-28, `x-mcp-header`).
    pub(crate) mirrored: Vec<Mirrored>,
}

/// An argument that a header repeats.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mirrored {
    /// `mcp-param-...`
    pub(crate) header: HeaderName,
    /// Field names from the arguments down to the value.
    pub(crate) path: Vec<String>,
}

/// A tool may not be offered because of its definition.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ToolError {
    /// The definition is not an object with an input schema.
    #[error("the definition is not valid JSON")]
    Definition,
    /// An `x-mcp-header` annotation breaks the rules; the specification has clients drop such a tool.
    #[error("x-mcp-header of {path}: {reason}")]
    Mirror {
        /// The property.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl Tool {
    /// Compiles a definition.
    pub(crate) fn compile(definition: &Definition) -> Result<Tool, ToolError> {
        let parsed: Value = serde_json::from_str(&definition.json).map_err(|_| ToolError::Definition)?;
        let empty = Value::Object(serde_json::Map::new());
        let input = parsed.get("inputSchema").unwrap_or(&empty);
        let mut mirrored = Vec::new();
        find_mirrored(input, &mut Vec::new(), &mut mirrored)?;
        let mut seen = HashSet::new();
        if let Some(double) = mirrored.iter().find(|mirror| !seen.insert(&mirror.header)) {
            return Err(ToolError::Mirror { path: double.path.join("."), reason: "names a header twice" });
        }
        if count_annotations(input) != mirrored.len() {
            let reason = "stands where no header can repeat the value";
            return Err(ToolError::Mirror { path: "inputSchema".to_owned(), reason });
        }
        Ok(Tool {
            name: definition.name.clone(),
            json: definition.json.clone(),
            hash: definition.hash,
            hints: Hints::from_definition(&definition.json),
            shape: Shape::from_schema(input),
            schema: compile_schema(input),
            mirrored,
        })
    }
}

fn compile_schema(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .offline()
        .with_pattern_options(
            PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX),
        )
        .build(schema)
        .map_err(|error| error.to_string())
}

fn find_mirrored(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Mirrored>) -> Result<(), ToolError> {
    let Some(Value::Object(properties)) = schema.get("properties") else { return Ok(()) };
    if path.len() >= MIRROR_DEPTH_MAX {
        return Ok(());
    }
    for (name, property) in properties {
        path.push(name.clone());
        if let Some(annotation) = property.get("x-mcp-header") {
            let refuse = |reason| ToolError::Mirror { path: path.join("."), reason };
            let text = annotation.as_str().filter(|text| !text.is_empty());
            let text = text.ok_or_else(|| refuse("is not a header name"))?;
            let header = HeaderName::try_from(format!("{PARAM_PREFIX}{text}"))
                .map_err(|_| refuse("is not a header name"))?;
            match property.get("type").and_then(Value::as_str) {
                Some("string" | "integer" | "boolean") => found.push(Mirrored { header, path: path.clone() }),
                _ => return Err(refuse("is on a type that no header repeats")),
            }
        }
        find_mirrored(property, path, found)?;
        path.pop();
    }
    Ok(())
}

/// Annotations anywhere in a schema; instance data under `default`, `const`, `enum`, `examples` is none, nor is a
/// property that merely has the annotation's name.
fn count_annotations(schema: &Value) -> usize {
    match schema {
        Value::Array(elements) => elements.iter().map(count_annotations).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match (name.as_str(), value) {
                ("default" | "const" | "enum" | "examples" | "required" | "dependentRequired", _) => 0,
                (
                    "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas",
                    Value::Object(map),
                ) => map.values().map(count_annotations).sum(),
                ("x-mcp-header", _) => 1,
                _ => count_annotations(value),
            })
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compile(schema: Value) -> Result<Tool, ToolError> {
        Tool::compile(&Definition::new("t", json!({"name": "t", "inputSchema": schema}).to_string()))
    }

    #[test]
    fn annotated_arguments_are_found_down_the_chain_of_properties() -> Result<(), ToolError> {
        let tool = compile(json!({"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "x-mcp-header": {"type": "string"},
            "inner": {"type": "object", "properties": {"id": {"type": "integer", "x-mcp-header": "Id"}}}
        }}))?;
        let found: Vec<_> =
            tool.mirrored.iter().map(|mirror| (mirror.header.as_str(), mirror.path.join("."))).collect();
        assert_eq!(
            found,
            [("mcp-param-region", "region".to_owned()), ("mcp-param-id", "inner.id".to_owned())]
        );
        Ok(())
    }

    #[test]
    fn a_tool_with_a_bad_annotation_is_not_offered() {
        let refused = |schema| compile(schema).err().map(|error| error.to_string()).unwrap_or_default();
        let property = |property: Value| json!({"properties": {"a": property}});
        assert_eq!(
            refused(property(json!({"type": "string", "x-mcp-header": ""}))),
            "x-mcp-header of a: is not a header name"
        );
        assert_eq!(
            refused(property(json!({"type": "string", "x-mcp-header": "a b"}))),
            "x-mcp-header of a: is not a header name"
        );
        assert_eq!(
            refused(property(json!({"type": "number", "x-mcp-header": "A"}))),
            "x-mcp-header of a: is on a type that no header repeats"
        );
        assert_eq!(
            refused(
                json!({"properties": {"a": {"type": "string", "x-mcp-header": "X"}, "b": {"type": "string", "x-mcp-header": "x"}}})
            ),
            "x-mcp-header of b: names a header twice"
        );
        assert_eq!(
            refused(property(json!({"type": "array", "items": {"type": "string", "x-mcp-header": "X"}}))),
            "x-mcp-header of inputSchema: stands where no header can repeat the value"
        );
    }

    #[test]
    fn a_schema_that_reaches_out_does_not_compile() -> Result<(), ToolError> {
        let tool = compile(json!({"$ref": "https://example.com/schema.json"}))?;
        assert!(tool.schema.is_err());
        Ok(())
    }
}
