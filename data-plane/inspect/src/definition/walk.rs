//! The way through one definition.
//!
//! Always holds: what a field means is known by where it stands: `pattern` is one in a schema, and a name like any other
//! among the properties of one. Nothing is passed over; of a picture only its encoding is.

use std::ops::Range;

use serde_json::{Map, Value};

use super::fold::Folded;
use super::mentions::{self, MENTIONS_MAX, Mention};
use super::{ODDITIES_MAX, Oddity, Reader, encoded, excerpt, markup, names, pattern, places};
use crate::finding::Place;
use crate::unicode;

/// Longest text of a definition. The longest that are known to be meant well have 11 KiB.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Where a value stands, which says what its fields are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// The protocol says what its fields are: a definition, or an argument of a prompt.
    Definition,
    /// Pictures of it.
    Icons,
    /// A schema, or a list of schemas.
    Schema,
    /// Schemas by names that the server chooses: `properties` and its like.
    Properties,
    /// Other schemas by such names.
    Named,
    /// Schemas by patterns.
    Patterns,
    /// Anything else: its fields mean nothing here.
    Data,
}

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Text,
    /// By which something is called.
    Name,
    /// It may name characters that nobody sees.
    Pattern,
    /// A picture, or where it is.
    Picture,
}

impl Position {
    /// Of the value of a field.
    fn below(self, field: &str) -> Position {
        match (self, field) {
            (Position::Definition, "inputSchema" | "outputSchema") => Position::Schema,
            (Position::Definition, "icons") => Position::Icons,
            (Position::Definition, "arguments") => Position::Definition,
            (Position::Schema, "properties") => Position::Properties,
            (Position::Schema, "patternProperties") => Position::Patterns,
            (Position::Schema, "$defs" | "definitions" | "dependentSchemas") => Position::Named,
            (Position::Schema, field) if has_schemas(field) => Position::Schema,
            (Position::Properties | Position::Named | Position::Patterns, _) => Position::Schema,
            (Position::Definition | Position::Icons | Position::Schema | Position::Data, _) => Position::Data,
        }
    }

    /// Of a text that is the value of a field.
    fn role(self, field: &str) -> Role {
        match (self, field) {
            (Position::Definition, "name") => Role::Name,
            (Position::Icons, "src") => Role::Picture,
            (Position::Schema, "pattern") => Role::Pattern,
            _ => Role::Text,
        }
    }
}

/// Keywords whose value is a schema, or a list of them.
fn has_schemas(keyword: &str) -> bool {
    matches!(
        keyword,
        "additionalItems"
            | "additionalProperties"
            | "allOf"
            | "anyOf"
            | "contains"
            | "contentSchema"
            | "else"
            | "if"
            | "items"
            | "not"
            | "oneOf"
            | "prefixItems"
            | "propertyNames"
            | "then"
            | "unevaluatedItems"
            | "unevaluatedProperties"
    )
}

pub(super) struct Walk<'w> {
    reader: &'w Reader,
    pub(super) oddities: Vec<Oddity>,
    pub(super) mentions: Vec<Mention>,
    pub(super) unread: Option<Oddity>,
}

impl<'w> Walk<'w> {
    pub(super) fn new(reader: &'w Reader) -> Walk<'w> {
        Walk { reader, oddities: Vec::new(), mentions: Vec::new(), unread: None }
    }

    pub(super) fn definition(&mut self, definition: &Value) {
        self.value(definition, &Place::ROOT, Position::Definition, Role::Text);
    }

    pub(super) fn instructions(&mut self, texts: &Value) {
        self.value(texts, &Place::ROOT, Position::Data, Role::Text);
    }

    /// As deep as it was parsed, which is bounded.
    fn value(&mut self, value: &Value, place: &Place<'_>, position: Position, role: Role) {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::String(text) => self.text(text, place, role),
            Value::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    self.value(element, &place.element(index), position, role);
                }
            }
            Value::Object(fields) => self.fields(fields, place, position),
        }
    }

    fn fields(&mut self, fields: &Map<String, Value>, place: &Place<'_>, position: Position) {
        for (name, value) in fields {
            let below = place.field(name);
            if position == Position::Properties
                && let Some(what) = names::of_context(name)
            {
                self.found(what, &below, name, 0..name.len());
            }
            let is_pattern = position == Position::Patterns;
            self.text(name, &below, if is_pattern { Role::Pattern } else { Role::Name });
            self.value(value, &below, position.below(name), position.role(name));
        }
    }

    fn text(&mut self, text: &str, place: &Place<'_>, role: Role) {
        let hidden = match role {
            Role::Pattern => pattern::hidden(text),
            Role::Text | Role::Name | Role::Picture => unicode::hidden(text),
        };
        if let Some(what) = hidden {
            let is_escape = what == unicode::CONTROL && text.contains(['\u{1b}', '\u{9b}']);
            let what = if is_escape { "terminal escape" } else { what };
            self.found(what, place, text, 0..text.len());
        }
        if role == Role::Name
            && let Some(what) = names::look_alike(text)
        {
            self.found(what, place, text, 0..text.len());
        }
        // A picture is long and encoded.
        if role != Role::Picture {
            if text.len() > TEXT_BYTES_MAX {
                self.found("very long text", place, text, 0..text.len());
            }
            if let Some(range) = encoded::hidden_text(text) {
                self.found("encoded text", place, text, range);
            }
        }
        if let Some(range) = encoded::padding(text) {
            self.found("padding", place, text, range);
        }
        self.words(text, place);
    }

    fn words(&mut self, text: &str, place: &Place<'_>) {
        let folded = Folded::new(text);
        for (what, range) in markup::find(&folded) {
            self.found(what, place, text, folded.original(range));
        }
        for (what, range) in self.reader.phrases.find(&folded) {
            self.found(what, place, text, folded.original(range));
        }
        if let Some(range) = places::read(&folded) {
            self.found(places::READ, place, text, folded.original(range));
        }
        let (names, is_cut) = mentions::find(&folded);
        for (name, range) in names {
            let is_known =
                self.reader.own.contains(&name) || self.mentions.iter().any(|known| known.name == name);
            if is_known {
                continue;
            }
            if self.mentions.len() == MENTIONS_MAX {
                self.leave_unread(place, text, folded.original(range));
                break;
            }
            let oddity = Oddity {
                what: mentions::ELSEWHERE,
                place: place.pointer(),
                excerpt: excerpt::around(text, folded.original(range)),
            };
            self.mentions.push(Mention { name, oddity });
        }
        if is_cut {
            self.leave_unread(place, text, 0..text.len());
        }
    }

    /// Says that there are names which nobody looks up.
    fn leave_unread(&mut self, place: &Place<'_>, text: &str, range: Range<usize>) {
        self.unread.get_or_insert_with(|| Oddity {
            what: mentions::UNREAD,
            place: place.pointer(),
            excerpt: excerpt::around(text, range),
        });
    }

    fn found(&mut self, what: &'static str, place: &Place<'_>, text: &str, range: Range<usize>) {
        let place = place.pointer();
        let is_known = self.oddities.iter().any(|known| known.what == what && known.place == place);
        if !is_known && self.oddities.len() < ODDITIES_MAX {
            self.oddities.push(Oddity { what, place, excerpt: excerpt::around(text, range) });
        }
    }
}
