//! Reading JSON without trusting it.
//!
//! Always holds: what passed [`check_text`] is UTF-8, balanced as far as counting goes, and nested at most
//! [`DEPTH_MAX`] deep; [`fields`] and [`strict_value`] refuse an object that says one thing twice, because two
//! readers may each believe another half of it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

/// Deepest nesting of a message. Tools nest a handful of levels; readers that recurse fail at a few hundred.
pub(crate) const DEPTH_MAX: usize = 100;

/// Why a text is not taken as JSON.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JsonError {
    /// Not UTF-8.
    #[error("the body is not UTF-8")]
    Encoding,
    /// Nested too deep.
    #[error("the body is nested more than {DEPTH_MAX} levels deep")]
    Depth,
    /// Not JSON, or not of the form that is needed.
    #[error("{0}")]
    Syntax(#[from] serde_json::Error),
}

/// Checks encoding and nesting in one pass, before anything that recurses sees the text.
pub(crate) fn check_text(body: &[u8]) -> Result<&str, JsonError> {
    let text = std::str::from_utf8(body).map_err(|_| JsonError::Encoding)?;
    let mut depth = 0_usize;
    let mut position = 0;
    while let Some(&byte) = body.get(position) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(JsonError::Depth);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => position = end_of_string(body, position + 1),
            _ => {}
        }
        position += 1;
    }
    Ok(text)
}

/// Position of the quote that ends the string which begins at `position`, or of the end of the text.
fn end_of_string(body: &[u8], mut position: usize) -> usize {
    loop {
        match memchr::memchr2(b'"', b'\\', body.get(position..).unwrap_or_default()) {
            None => return body.len(),
            Some(offset) if body[position + offset] == b'"' => return position + offset,
            Some(offset) => position += offset + 2,
        }
    }
}

/// The values of known fields of an object, in the order of `known`. Other fields are passed over. Refused: a text
/// that is no object, a known field that stands twice, and a field that differs from a known one by case only,
/// because some readers would take it for that.
pub(crate) fn fields<'a, const N: usize>(
    object: &'a str,
    known: &[&'static str; N],
) -> Result<[Option<&'a RawValue>; N], serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    let found = deserializer.deserialize_map(FieldsVisitor { known, lifetime: PhantomData })?;
    deserializer.end()?;
    Ok(found)
}

struct FieldsVisitor<'k, 'a, const N: usize> {
    known: &'k [&'static str; N],
    lifetime: PhantomData<&'a ()>,
}

impl<'a, const N: usize> Visitor<'a> for FieldsVisitor<'_, 'a, N> {
    type Value = [Option<&'a RawValue>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut found = [None; N];
        while let Some(field) = map.next_key_seed(FieldSeed { known: self.known })? {
            match field {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(index) if found[index].is_some() => {
                    return Err(M::Error::custom(format_args!("field `{}` stands twice", self.known[index])));
                }
                Some(index) => found[index] = Some(map.next_value()?),
            }
        }
        Ok(found)
    }
}

struct FieldSeed<'k, const N: usize> {
    known: &'k [&'static str; N],
}

impl<'de, const N: usize> DeserializeSeed<'de> for FieldSeed<'_, N> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<const N: usize> Visitor<'_> for FieldSeed<'_, N> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a field name")
    }

    fn visit_str<E: Error>(self, field: &str) -> Result<Self::Value, E> {
        if let Some(index) = self.known.iter().position(|known| *known == field) {
            return Ok(Some(index));
        }
        match self.known.iter().find(|known| is_alike(known, field)) {
            Some(known) => Err(E::custom(format_args!("field `{field}` must be written `{known}`"))),
            None => Ok(None),
        }
    }
}

/// Whether a reader that ignores the case of letters may take a field for the known one. Some fold more than ASCII:
/// the long s and the Kelvin sign are `s` and `k` to them, and `i` has one form without and one with a dot.
fn is_alike(known: &str, field: &str) -> bool {
    if field.is_ascii() {
        return known.eq_ignore_ascii_case(field);
    }
    let fold = |letter: char| letter.to_uppercase().next().and_then(|upper| upper.to_lowercase().next());
    known.chars().map(fold).eq(field.chars().map(fold))
}

/// Reads a value whole, and refuses an object in it that has a field twice.
pub(crate) fn strict_value(text: &str) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = StrictSeed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

struct StrictSeed;

impl<'de> DeserializeSeed<'de> for StrictSeed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictSeed {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut sequence: S) -> Result<Value, S::Error> {
        let mut elements = Vec::new();
        while let Some(element) = sequence.next_element_seed(StrictSeed)? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Value, M::Error> {
        let mut object = Map::new();
        while let Some(field) = map.next_key::<String>()? {
            let value = map.next_value_seed(StrictSeed)?;
            if object.insert(field.clone(), value).is_some() {
                return Err(M::Error::custom(format_args!("field `{field}` stands twice")));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_strings_do_not_count() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(check_text(deep(DEPTH_MAX).as_bytes()).is_ok());
        assert!(matches!(check_text(deep(DEPTH_MAX + 1).as_bytes()), Err(JsonError::Depth)));
        let quoted = format!(r#"{{"a\"{}":"{}"}}"#, "[".repeat(200), "\\\\".repeat(3));
        assert!(check_text(quoted.as_bytes()).is_ok());
        assert!(matches!(check_text(b"\xff"), Err(JsonError::Encoding)));
        assert!(check_text(b"\"unfinished \\").is_ok(), "syntax is not its subject");
    }

    #[test]
    fn a_field_that_stands_twice_or_in_another_case_is_refused() {
        let read =
            |text| fields(text, &["name", "arguments"]).map(|found| found.map(|raw| raw.map(RawValue::get)));
        assert_eq!(read(r#"{"name":"a","x":[1],"arguments":{}}"#).ok(), Some([Some(r#""a""#), Some("{}")]));
        let message = |text| read(text).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message(r#"{"name":"a","name":"b"}"#).starts_with("field `name` stands twice"));
        assert!(message(r#"{"name":"a","Name":"b"}"#).starts_with("field `Name` must be written `name`"));
        assert!(message(r#"{"n\u0061me":"a","name":"b"}"#).starts_with("field `name` stands twice"));
        for (field, known) in [
            ("argument\u{17f}", "arguments"),
            ("ta\u{17f}\u{212a}id", "taskId"),
            ("ur\u{131}", "uri"),
            ("ur\u{130}", "uri"),
        ] {
            let object = format!("{{\"{field}\":1}}");
            let read = fields(&object, &["arguments", "taskId", "uri"]);
            let message = read.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(message.starts_with(&format!("field `{field}` must be written `{known}`")), "{message}");
        }
        assert_eq!(read("{\"n\u{e4}me\":1}").ok(), Some([None, None]));
        assert!(message("[]").starts_with("invalid type: sequence, expected an object"));
    }

    #[test]
    fn a_strict_value_refuses_doubles_at_any_depth() {
        assert_eq!(
            strict_value(r#"{"a":[1,-2,3.5,null,"x"]}"#).ok(),
            Some(serde_json::json!({"a":[1,-2,3.5,null,"x"]}))
        );
        let doubled = strict_value(r#"{"a":[{"b":1,"b":2}]}"#).err().map(|error| error.to_string());
        assert!(doubled.is_some_and(|message| message.starts_with("field `b` stands twice")));
    }
}
