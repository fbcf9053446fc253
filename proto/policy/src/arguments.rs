//! A tool's arguments as policies read them: which have a type, and their values.
//!
//! Always holds: the same shape that a policy is checked against makes the values that it is evaluated with. What a
//! schema leaves open (a union, a number that need not be whole, a map) has no type here, and a policy that names it is
//! refused; a value that has not the type of its shape has no value, which denies. A shape is not the schema: it is
//! bounded, and says nothing of patterns and ranges.

use std::collections::BTreeMap;

use cedar_policy_core::ast;
use serde_json::{Map, Value};

/// Deepest nesting of objects and arrays that policies can read.
const DEPTH_MAX: usize = 8;
/// Most properties of one tool, nested ones included; what comes after them has no type.
const PROPERTIES_MAX: usize = 256;

/// The arguments of a tool that have a type, by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Shape(BTreeMap<String, Property>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Property {
    kind: Kind,
    required: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Text,
    Whole,
    Truth,
    Set(Box<Kind>),
    Record(Shape),
}

/// Reads a schema.
struct Reader<'a> {
    definitions: Option<&'a Map<String, Value>>,
    left: usize,
}

impl Shape {
    /// The shape of a tool's arguments by its definition, which is JSON as the server sent it; empty where that says
    /// nothing that policies can read.
    pub fn from_definition(json: &str) -> Shape {
        let definition: Value = serde_json::from_str(json).unwrap_or_default();
        definition.get("inputSchema").map(Shape::from_schema).unwrap_or_default()
    }

    /// The same by the tool's `inputSchema`.
    pub fn from_schema(schema: &Value) -> Shape {
        let definitions =
            schema.get("$defs").or_else(|| schema.get("definitions")).and_then(Value::as_object);
        let mut reader = Reader { definitions, left: PROPERTIES_MAX };
        match reader.kind(schema, 0) {
            Some((Kind::Record(shape), _)) => shape,
            _ => Shape::default(),
        }
    }

    /// Whether what is reached by these names has a type.
    pub(crate) fn has(&self, path: &[String]) -> bool {
        let Some((name, rest)) = path.split_first() else { return true };
        match self.0.get(name) {
            Some(Property { kind: Kind::Record(inner), .. }) => inner.has(rest),
            found => found.is_some() && rest.is_empty(),
        }
    }

    /// Whether something is given there that has no type.
    pub(crate) fn misses(&self, path: &[String], given: &Value) -> bool {
        let Some((name, rest)) = path.split_first() else { return false };
        let Some(value) = given.get(name).filter(|value| !value.is_null()) else { return false };
        match self.0.get(name) {
            Some(Property { kind: Kind::Record(inner), .. }) => inner.misses(rest, value),
            found => found.is_none(),
        }
    }

    /// The type in Cedar's schema language.
    pub(crate) fn cedar(&self) -> String {
        let property = |(name, property): (&String, &Property)| {
            let optional = if property.required { "" } else { "?" };
            format!("{name:?}{optional}: {}", property.kind.cedar())
        };
        format!("{{ {} }}", self.0.iter().map(property).collect::<Vec<_>>().join(", "))
    }

    /// What policies read of arguments; an error names the argument that is not of its type.
    pub(crate) fn value(&self, arguments: &Value) -> Result<ast::Value, String> {
        let Value::Object(arguments) = arguments else {
            return Err("the arguments are no object".to_owned());
        };
        let mut pairs = Vec::with_capacity(self.0.len());
        for (name, property) in &self.0 {
            match arguments.get(name) {
                // A null stands for an argument that is not given, unless it has to be.
                Some(Value::Null) if !property.required => {}
                None => {}
                Some(value) => {
                    let value = property.kind.value(value).map_err(|wrong| match wrong {
                        None => format!("argument {name:?} is not of its type"),
                        Some(inner) => format!("in argument {name:?}: {inner}"),
                    })?;
                    pairs.push((name.as_str(), value));
                }
            }
        }
        Ok(ast::Value::record(pairs, None))
    }
}

impl Kind {
    fn cedar(&self) -> String {
        match self {
            Kind::Text => "String".to_owned(),
            Kind::Whole => "Long".to_owned(),
            Kind::Truth => "Bool".to_owned(),
            Kind::Set(element) => format!("Set<{}>", element.cedar()),
            Kind::Record(shape) => shape.cedar(),
        }
    }

    /// The value; an error says more where the wrong one lies deeper.
    fn value(&self, value: &Value) -> Result<ast::Value, Option<String>> {
        match (self, value) {
            (Kind::Text, Value::String(text)) => Ok(text.as_str().into()),
            (Kind::Truth, Value::Bool(truth)) => Ok((*truth).into()),
            (Kind::Whole, Value::Number(number)) => whole(number).map(ast::Value::from).ok_or(None),
            (Kind::Set(element), Value::Array(values)) => {
                let values = values.iter().map(|value| element.value(value));
                Ok(ast::Value::set(values.collect::<Result<Vec<_>, _>>()?, None))
            }
            (Kind::Record(shape), Value::Object(_)) => shape.value(value).map_err(Some),
            (Kind::Text | Kind::Truth | Kind::Whole | Kind::Set(_) | Kind::Record(_), _) => Err(None),
        }
    }
}

/// A number that is whole in JSON Schema's sense: `1.0` is 1.
fn whole(number: &serde_json::Number) -> Option<i64> {
    // From here on, a double does not tell neighbours apart.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    number.as_i64().or_else(|| {
        let double = number.as_f64().filter(|double| double.fract() == 0.0 && double.abs() < EXACT)?;
        format!("{double:.0}").parse().ok()
    })
}

impl<'a> Reader<'a> {
    /// The kind of a schema, and whether null is one of its values; `None` where it has no kind.
    fn kind(&mut self, schema: &'a Value, depth: usize) -> Option<(Kind, bool)> {
        if depth > DEPTH_MAX {
            return None;
        }
        let schema = schema.as_object()?;
        if let Some(reference) = schema.get("$ref") {
            let name = reference.as_str()?;
            let name = name.strip_prefix("#/$defs/").or_else(|| name.strip_prefix("#/definitions/"))?;
            return self.kind(self.definitions?.get(name)?, depth + 1);
        }
        if let Some(Value::Array(choices)) = schema.get("anyOf").or_else(|| schema.get("oneOf")) {
            let is_null = |choice: &&Value| choice.get("type").is_some_and(|name| name == "null");
            let mut others = choices.iter().filter(|choice| !is_null(choice));
            let (only, None) = (others.next()?, others.next()) else { return None };
            let nullable = choices.len() > 1;
            return self.kind(only, depth + 1).map(|(kind, null)| (kind, null || nullable));
        }
        let (name, nullable) = match schema.get("type")? {
            Value::String(name) => (name.as_str(), false),
            Value::Array(names) => {
                let mut others = names.iter().filter(|name| *name != "null");
                let (Some(Value::String(name)), None) = (others.next(), others.next()) else { return None };
                (name.as_str(), names.len() > 1)
            }
            _ => return None,
        };
        let kind = match name {
            "string" => Kind::Text,
            "integer" => Kind::Whole,
            "boolean" => Kind::Truth,
            "array" => Kind::Set(Box::new(self.element(schema, depth)?)),
            "object" => Kind::Record(self.record(schema, depth)),
            _ => return None,
        };
        Some((kind, nullable))
    }

    fn element(&mut self, schema: &'a Map<String, Value>, depth: usize) -> Option<Kind> {
        match self.kind(schema.get("items")?, depth + 1)? {
            (kind, false) => Some(kind),
            (_, true) => None,
        }
    }

    fn record(&mut self, schema: &'a Map<String, Value>, depth: usize) -> Shape {
        let mut shape = Shape::default();
        let Some(Value::Object(properties)) = schema.get("properties") else { return shape };
        let required = schema.get("required").and_then(Value::as_array);
        let is_required =
            |name: &str| required.is_some_and(|names| names.iter().any(|required| required == name));
        for (name, property) in properties {
            let Some(left) = self.left.checked_sub(1) else { break };
            self.left = left;
            if let Some((kind, nullable)) = self.kind(property, depth + 1) {
                let required = is_required(name) && !nullable;
                shape.0.insert(name.clone(), Property { kind, required });
            }
        }
        shape
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shape(schema: &Value) -> String {
        Shape::from_schema(schema).cedar()
    }

    #[test]
    fn what_a_schema_says_in_one_way_has_a_type() {
        let schema = json!({"type": "object", "required": ["path", "maybe"], "$defs": {"Who": {"type": "object",
            "properties": {"name": {"type": "string"}}, "required": ["name"]}}, "properties": {
            "path": {"type": "string", "pattern": "^/"},
            "limit": {"type": "integer"},
            "force": {"type": ["boolean", "null"]},
            "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "who": {"$ref": "#/$defs/Who"},
            "odd \"name\"": {"enum": ["a"], "type": "string"}}});
        assert_eq!(
            shape(&schema),
            r#"{ "force"?: Bool, "limit"?: Long, "maybe"?: String, "odd \"name\""?: String, "path": String, "tags"?: Set<String>, "who"?: { "name": String } }"#
        );
    }

    #[test]
    fn what_a_schema_leaves_open_has_no_type() {
        let schema = json!({"type": "object", "properties": {
            "number": {"type": "number"},
            "either": {"type": ["string", "integer"]},
            "union": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
            "any": {},
            "untyped": {"type": "array"},
            "holes": {"type": "array", "items": {"type": ["string", "null"]}},
            "remote": {"$ref": "https://example.com/x"},
            "nobody": {"$ref": "#/$defs/None"},
            "round": {"$ref": "#/definitions/Round"}}, "definitions": {"Round": {"$ref": "#/definitions/Round"}}});
        assert_eq!(shape(&schema), "{  }");
        for other in [json!(null), json!({"type": "string"}), json!({"type": "object", "properties": 1})] {
            assert_eq!(Shape::from_schema(&other), Shape::default(), "{other}");
        }
    }

    #[test]
    fn a_shape_is_bounded() {
        let many: Map<String, Value> =
            (0..1_000).map(|number| (format!("p{number}"), json!({"type": "string"}))).collect();
        let shape = Shape::from_schema(&json!({"type": "object", "properties": many}));
        assert_eq!(shape.0.len(), PROPERTIES_MAX);
        let deep = (0..100).fold(
            json!({"type": "string"}),
            |inner, _| json!({"type": "object", "properties": {"a": inner}}),
        );
        assert_eq!(Shape::from_schema(&deep).cedar().matches('a').count(), DEPTH_MAX);
    }

    #[test]
    fn a_value_is_of_its_type_or_none() {
        let shape = Shape::from_schema(&json!({"type": "object", "required": ["a"], "properties": {
            "a": {"type": "integer"}, "s": {"type": "array", "items": {"type": "string"}},
            "o": {"type": "object", "properties": {"b": {"type": "boolean"}}}}}));
        let value = |arguments: Value| shape.value(&arguments).map(|value| value.to_string());
        assert_eq!(value(json!({})), Ok("{}".to_owned()));
        assert_eq!(
            value(json!({"a": 1.0, "s": ["y", "x", "y"], "o": {"b": true, "c": 1}, "d": {}})),
            Ok(r#"{a: 1, o: {b: true}, s: ["x", "y"]}"#.to_owned())
        );
        assert_eq!(value(json!({"s": null, "o": null})), Ok("{}".to_owned()));
        let wrong = |arguments: Value| shape.value(&arguments).map(|_| ()).unwrap_err();
        assert_eq!(wrong(json!([])), "the arguments are no object");
        for not_whole in [json!("1"), json!(1.5), json!(1e300), json!(u64::MAX), json!(null), json!(true)] {
            assert_eq!(wrong(json!({"a": not_whole})), "argument \"a\" is not of its type");
        }
        assert_eq!(wrong(json!({"s": ["x", 1]})), "argument \"s\" is not of its type");
        assert_eq!(wrong(json!({"o": {"b": 1}})), "in argument \"o\": argument \"b\" is not of its type");
    }
}
