//! Text to resources: YAML with several documents, or JSON with one document or an array of them.
//!
//! Always holds: a key that stands twice in a mapping is refused, at any depth; an empty document is passed over
//! and still counts.

use std::fmt;

use gantry_model::document;
use gantry_model::document::DocumentError;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::files::File;
use super::{DOCUMENTS_MAX, Document, Place, label, line};

/// What stands in a file, document by document.
pub(super) fn values(file: &File) -> Vec<Result<Value, String>> {
    if file.is_json { json_values(&file.text) } else { yaml_values(&file.text) }
}

/// Adds the documents of a file, and a line for everything that is wrong with one.
pub(super) fn parse_file(file: &File, documents: &mut Vec<Document>, problems: &mut Vec<String>) {
    for (index, value) in values(file).into_iter().enumerate() {
        let place = Place { file: file.name.clone(), document: index + 1 };
        match value {
            Err(message) => problems.push(line(&place.to_string(), "", &message, None)),
            Ok(Value::Null) => {}
            Ok(value) => {
                let called = what_it_calls_itself(&value);
                match document::parse(value) {
                    Ok(resource) => documents.push(Document { place, resource }),
                    Err(error) => problems.push(problem(&place, called.as_deref(), &error)),
                }
            }
        }
    }
}

fn yaml_values(text: &str) -> Vec<Result<Value, String>> {
    let mut values: Vec<Result<Value, String>> = Vec::new();
    // A document past the bound is refused by the set; it only has to be counted.
    for document in serde_yaml_ng::Deserializer::from_str(text).take(DOCUMENTS_MAX + 1) {
        let value = Strict::deserialize(document).map(|strict| strict.0).map_err(|error| error.to_string());
        // The parser gives a syntax error again and again instead of an end. Nothing can be read behind it.
        if value.is_err() && values.last() == Some(&value) {
            break;
        }
        values.push(value);
    }
    values
}

fn json_values(text: &str) -> Vec<Result<Value, String>> {
    match serde_json::from_str::<Strict>(text) {
        Ok(Strict(Value::Array(values))) => values.into_iter().map(Ok).collect(),
        Ok(Strict(value)) => vec![Ok(value)],
        Err(error) => vec![Err(error.to_string())],
    }
}

fn problem(place: &Place, called: Option<&str>, error: &DocumentError) -> String {
    let label = match called {
        Some(called) => label(place, called),
        None => place.to_string(),
    };
    line(&label, &error.path, &error.message, error.nearest.as_deref())
}

/// `Kind tenant/name` as far as the document says it.
fn what_it_calls_itself(value: &Value) -> Option<String> {
    let text = |field: &str| value.get(field).and_then(Value::as_str);
    match (text("kind")?, text("tenant"), text("name")) {
        (kind, Some(tenant), Some(name)) => Some(format!("{kind} {tenant}/{name}")),
        (kind, None, Some(name)) => Some(format!("{kind} {name}")),
        (kind, _, None) => Some(kind.to_owned()),
    }
}

/// A JSON value whose mappings have every key once.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a mapping, a list, a text, a number, true, false or null")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = elements.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} stands twice")));
            }
            let Strict(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, is_json: bool) -> (Vec<String>, Vec<String>) {
        let file = File { name: "f".to_owned(), text: text.to_owned(), is_json, is_cases: false };
        let (mut documents, mut problems) = (Vec::new(), Vec::new());
        parse_file(&file, &mut documents, &mut problems);
        let documents = documents
            .iter()
            .map(|document| label(&document.place, &document.resource.id().to_string()))
            .collect();
        (documents, problems)
    }

    #[test]
    fn every_document_of_a_file_is_read_and_empty_ones_count() {
        let text =
            "# a comment\n---\nkind: Tenant\nname: acme\n---\n---\nkind: Agent\ntenant: acme\nname: bot\n";
        let (documents, problems) = parse(text, false);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(documents, ["f:document 1 (Tenant acme)", "f:document 3 (Agent acme/bot)"]);
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_with_its_line() {
        let text = "kind: Server\ntenant: a\nname: b\nspec:\n  url: http://x/\n  url: http://y/\n";
        assert_eq!(
            parse(text, false).1,
            ["f:document 1: spec: the key \"url\" stands twice at line 5 column 3"]
        );
        assert_eq!(
            parse("{\"kind\": \"Tenant\", \"kind\": \"Agent\"}", true).1,
            ["f:document 1: the key \"kind\" stands twice at line 1 column 25"]
        );
    }

    #[test]
    fn a_json_file_has_one_document_or_an_array_of_them() {
        let text = r#"[{"kind": "Tenant", "name": "a"}, {"kind": "Tenant", "name": "b"}]"#;
        assert_eq!(parse(text, true).0, ["f:document 1 (Tenant a)", "f:document 2 (Tenant b)"]);
    }

    #[test]
    fn a_syntax_error_is_told_once_and_ends_the_file() {
        let (documents, problems) =
            parse("kind: Tenant\nname: a\n---\nkind: [\n---\nkind: Tenant\nname: b\n", false);
        assert_eq!(documents, ["f:document 1 (Tenant a)"]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(parse("# a comment alone\n", false), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_tag_is_refused() {
        let (documents, problems) = parse("kind: Tenant\nname: !secret x\n", false);
        assert_eq!(documents, Vec::<String>::new());
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
}
