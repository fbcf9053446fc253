//! The hash of a definition: what counts as the same definition.
//!
//! It is blake3 over `gantry definition v1`, a line feed, and a canonical JSON object of the definition's fields that
//! [`MEANINGFUL`] names: those by which a model or a person chooses and calls it. Object keys are sorted at every
//! depth, there is no white space, a field that is `null` counts as absent.
//!
//! Always holds: two definitions that differ in a meaningful field have different hashes, and a different order of
//! fields, other white space, or a change of any other field (`_meta`, `icons`, `size`, `annotations.lastModified`)
//! leaves the hash as it is. It depends on the bytes of the definition only, not on the build's maps.

use serde_json::Value;

/// The fields that make a definition what it is, sorted. A tool has the first of them, a prompt `arguments`, a resource
/// `uri`, a template `uriTemplate`; no kind gives a field of another a meaning, so one list serves all.
const MEANINGFUL: [&str; 10] = [
    "annotations",
    "arguments",
    "description",
    "inputSchema",
    "mimeType",
    "name",
    "outputSchema",
    "title",
    "uri",
    "uriTemplate",
];

/// Says when the content was changed, not the definition.
const VOLATILE_ANNOTATION: &str = "lastModified";

const DOMAIN: &[u8] = b"gantry definition v1\n";
const DOMAIN_OF_BYTES: &[u8] = b"gantry definition v1, as bytes\n";

/// The hash of a definition's JSON. What is no JSON object is hashed byte by byte.
pub(super) fn of_definition(json: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    match serde_json::from_str(json) {
        Ok(Value::Object(mut fields)) => {
            if let Some(Value::Object(annotations)) = fields.get_mut("annotations") {
                annotations.remove(VOLATILE_ANNOTATION);
            }
            let mut canonical = Vec::with_capacity(json.len());
            let fields = MEANINGFUL.iter().filter_map(|name| Some((*name, fields.get(*name)?)));
            write_object(&mut canonical, fields.filter(|(_, value)| !value.is_null()));
            hasher.update(DOMAIN).update(&canonical);
        }
        _ => {
            hasher.update(DOMAIN_OF_BYTES).update(json.as_bytes());
        }
    }
    *hasher.finalize().as_bytes()
}

/// Writes a value with sorted keys. The parser bounds the depth.
fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value)).collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            write_object(out, sorted.into_iter());
        }
        Value::Array(elements) => {
            out.push(b'[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(out, element);
            }
            out.push(b']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            out.extend_from_slice(value.to_string().as_bytes())
        }
        Value::String(text) => write_text(out, text),
    }
}

fn write_object<'v>(out: &mut Vec<u8>, fields: impl Iterator<Item = (&'v str, &'v Value)>) {
    out.push(b'{');
    for (index, (name, value)) in fields.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(out, name);
        out.push(b':');
        write(out, value);
    }
    out.push(b'}');
}

/// A text in JSON's own form, so that no text can look like the structure around it.
fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(Value::from(text).to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_hash_is_that_of_the_documented_form() {
        let json =
            r#"{"inputSchema":{"type":"object","properties":{"b":{},"a":[1,true,null]}},"name":"r\"x"}"#;
        let canonical = concat!(
            "gantry definition v1\n",
            r#"{"inputSchema":{"properties":{"a":[1,true,null],"b":{}},"type":"object"},"name":"r\"x"}"#
        );
        assert_eq!(of_definition(json), *blake3::hash(canonical.as_bytes()).as_bytes());
    }

    #[test]
    fn a_change_of_a_meaningful_field_changes_the_hash_and_no_other_does() {
        let base = json!({"name": "read", "description": "Reads.", "inputSchema": {"type": "object"},
            "annotations": {"readOnlyHint": true}});
        let hash = |change: Value| {
            let mut definition = base.clone();
            for (name, value) in change.as_object().expect("an object") {
                definition[name] = value.clone();
            }
            of_definition(&definition.to_string())
        };
        let same = hash(json!({}));
        for change in [
            json!({"_meta": {"a": 1}}),
            json!({"icons": [{"src": "x"}]}),
            json!({"size": 5}),
            json!({"title": null}),
            json!({"annotations": {"readOnlyHint": true, "lastModified": "2026-01-01T00:00:00Z"}}),
        ] {
            assert_eq!(hash(change.clone()), same, "{change}");
        }
        let changes = MEANINGFUL.map(|name| hash(json!({name: {"changed": true}})));
        for (index, changed) in changes.iter().enumerate() {
            assert_ne!(*changed, same);
            assert!(!changes[..index].contains(changed), "{}", MEANINGFUL[index]);
        }
        assert_ne!(of_definition("[]"), of_definition("{}"));
        assert_ne!(of_definition("not JSON"), of_definition("not JSON either"));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-c]{1,2}", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn reversed(value: &Value) -> Value {
        match value {
            Value::Object(fields) => Value::Object(
                fields.iter().rev().map(|(name, value)| (name.clone(), reversed(value))).collect(),
            ),
            Value::Array(elements) => Value::Array(elements.iter().map(reversed).collect()),
            leaf => leaf.clone(),
        }
    }

    proptest! {
        #[test]
        fn the_order_of_keys_and_the_white_space_do_not_count_and_the_content_does(
            schema in values(), other in values()
        ) {
            let tool = |schema: &Value| json!({"name": "t", "inputSchema": schema});
            let hash = of_definition(&tool(&schema).to_string());
            prop_assert_eq!(of_definition(&format!("{:#}", reversed(&tool(&schema)))), hash);
            let absent = |value: &Value| value.is_null();
            if schema != other && !(absent(&schema) && absent(&other)) {
                prop_assert_ne!(of_definition(&tool(&other).to_string()), hash);
            }
        }
    }
}
