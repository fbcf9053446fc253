//! JSON from strangers, read strictly.
//!
//! Always holds: no member stands twice in an object, so that nobody else can have read another one; nothing is nested
//! deeper than [`DEPTH_MAX`]. The caller bounds the bytes.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Objects and lists within each other. Claims of the providers that are known have four.
const DEPTH_MAX: usize = 16;

/// The object in `bytes`; `None`: there is none, or it is not one that may be believed.
pub(crate) fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict(DEPTH_MAX).deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    match value {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

/// Reads a value, with so many levels left.
struct Strict(usize);

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Strict {
    fn deeper<E: Error>(&self) -> Result<usize, E> {
        self.0.checked_sub(1).ok_or_else(|| E::custom("nested too deep"))
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("no number"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let (depth, mut list) = (self.deeper()?, Vec::new());
        while let Some(item) = items.next_element_seed(Strict(depth))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let (depth, mut object) = (self.deeper()?, Map::new());
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Strict(depth))?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a member stands twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_without_doubles_that_is_not_nested_deep_is_read() {
        let text = br#"{"a": [1, -1, 1.5, null, true, "b"], "c": {"a": 2}}"#;
        let read = object(text).map(Value::Object);
        assert_eq!(read, serde_json::from_slice(text).ok());
        let deep = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(object(deep(DEPTH_MAX - 1).as_bytes()).is_some());
        let refused = [
            "",
            "[]",
            "1",
            r#"{"a":1,"a":1}"#,
            r#"{"c":{"a":1,"a":2}}"#,
            "{} {}",
            "{}x",
            "{\"a\":\"\u{1}\"}",
        ];
        for text in refused {
            assert_eq!(object(text.as_bytes()), None, "{text}");
        }
        assert_eq!(object(deep(DEPTH_MAX).as_bytes()), None);
        assert_eq!(object(b"{\"a\":\"\xff\"}"), None);
    }
}
