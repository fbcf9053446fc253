//! A JSON object of which some members are changed: the rest stays byte for byte as it came, in its order.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object as raw JSON.
#[derive(Debug, Clone, Default)]
pub(crate) struct Object<'a> {
    members: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Object<'a> {
    /// Reads an object. Of a member that stands twice both are kept, as they came.
    pub(crate) fn parse(text: &'a str) -> Result<Object<'a>, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let object = deserializer.deserialize_map(ObjectVisitor)?;
        deserializer.end()?;
        Ok(object)
    }

    /// A member as raw JSON.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.members.iter().find(|(member, _)| member == name).map(|(_, value)| value.as_ref())
    }

    /// A member that is a string.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?).ok()
    }

    /// A member that is an object; an empty one when it is not there or is none.
    pub(crate) fn object(&self, name: &str) -> Object<'_> {
        self.get(name).and_then(|value| Object::parse(value).ok()).unwrap_or_default()
    }

    /// Sets a member to raw JSON, where it first stood or at the end. It stands once then.
    pub(crate) fn set(&mut self, name: &'a str, raw: impl Into<Cow<'a, str>>) {
        let place = self.members.iter().position(|(member, _)| member == name);
        self.members.retain(|(member, _)| member != name);
        let place = place.unwrap_or(self.members.len());
        self.members.insert(place, (Cow::Borrowed(name), raw.into()));
    }

    /// Sets a member to a string.
    pub(crate) fn set_text(&mut self, name: &'a str, text: &str) {
        self.set(name, quote(text));
    }

    /// Takes members out that a test is true of.
    pub(crate) fn remove(&mut self, mut unwanted: impl FnMut(&str) -> bool) {
        self.members.retain(|(member, _)| !unwanted(member));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Names and raw values, in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("{")?;
        for (index, (name, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(formatter, "{comma}{}:{value}", quote(name))?;
        }
        formatter.write_str("}")
    }
}

/// A text as a JSON string.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

struct ObjectVisitor;

impl<'a> Visitor<'a> for ObjectVisitor {
    type Value = Object<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Object<'a>, M::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = map.next_entry::<Cow<'a, str>, &'a RawValue>()? {
            members.push((Cow::Owned(name.into_owned()), Cow::Borrowed(value.get())));
        }
        Ok(Object { members })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_stays_as_it_came() -> Result<(), serde_json::Error> {
        let mut object = Object::parse(r#"{ "b" : [1,  2], "a\n":"x", "gone":1, "b":7 }"#)?;
        object.set("b", "3");
        object.set_text("new", "say \"hi\"");
        object.remove(|name| name == "gone");
        assert_eq!(object.to_string(), r#"{"b":3,"a\n":"x","new":"say \"hi\""}"#);
        assert_eq!((object.text("a\n").as_deref(), object.text("b")), (Some("x"), None));
        assert_eq!(Object::parse("{}")?.to_string(), "{}");
        assert!(Object::parse("[]").is_err());
        Ok(())
    }
}
