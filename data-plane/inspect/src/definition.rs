//! What a server says of its tools, prompts and resources, searched for what is meant for a model alone: text that
//! nobody sees, and instructions of somebody who has none to give.
//!
//! Always holds: every text of a definition is read, and every name in it, but for pictures and addresses of schemas; a
//! scan is of the catalog alone, so that whoever has the same catalog finds the same; it takes time by the length of the
//! catalog; of one definition at most [`ODDITIES_MAX`] are kept, each kind once per text, with an excerpt that is safe to
//! print: of bounded length, of visible characters, without keys.
//!
//! It reads words and not meaning: an instruction in words of its own passes, and so does a language that
//! [`languages`] does not have.

mod encoded;
mod english;
mod excerpt;
mod fold;
mod languages;
mod markup;
mod mentions;
mod names;
mod phrases;
mod places;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use fold::Folded;
use gantry_model::inspection::{Filter, Mode};
use gantry_model::resource::Inspection;
use gantry_model::{Catalog, Definition, DefinitionKind};
use mentions::Mention;
use phrases::Phrases;
use serde_json::Value;

use crate::finding::Place;
use crate::unicode;

/// Of one definition: enough to judge it by, few enough for a line of a table each.
pub const ODDITIES_MAX: usize = 8;
/// Names of tools in one definition that may turn out to be another server's.
const MENTIONS_MAX: usize = 16;
/// How deep a definition is looked into: as deep as it can be parsed.
const DEPTH_MAX: usize = 128;
/// Longest text of a definition. The longest that are known to be meant well have 11 KiB.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// What is searched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// What the server says of itself to every model: its `instructions`.
    Instructions,
    /// One definition, by its kind and name.
    Definition(DefinitionKind, Arc<str>),
}

/// Something odd in a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oddity {
    /// What it is, in words of a fixed set.
    pub what: &'static str,
    /// A JSON pointer into the definition, shortened.
    pub place: String,
    /// What stands there, as far as it may be printed.
    pub excerpt: String,
}

/// What is odd about one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Which it is.
    pub subject: Subject,
    /// Never empty.
    pub oddities: Vec<Oddity>,
}

/// All that can be said of a catalog by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    subjects: Vec<Scanned>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Scanned {
    subject: Subject,
    oddities: Vec<Oddity>,
    /// Names in sentences that steer, which are odd where another server has a tool of that name.
    mentions: Vec<Mention>,
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Instructions => formatter.write_str("instructions"),
            Subject::Definition(kind, name) => write!(formatter, "{kind} {}", excerpt::safe(name)),
        }
    }
}

impl fmt::Display for Oddity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.place.is_empty() { "/" } else { &self.place };
        write!(formatter, "{} at {place}: {:?}", self.what, self.excerpt)
    }
}

impl Scan {
    /// Reads what is in force of a catalog.
    pub fn of(catalog: &Catalog) -> Scan {
        let own = own_names(catalog);
        let reader = Reader { phrases: Phrases::new(), own: &own };
        let kinds = DefinitionKind::ALL.into_iter();
        let definitions =
            kinds.flat_map(|kind| catalog.definitions(kind).iter().map(move |definition| (kind, definition)));
        let mut subjects: Vec<Scanned> =
            definitions.filter_map(|(kind, definition)| reader.definition(kind, definition)).collect();
        subjects.extend(reader.instructions(catalog));
        Scan { subjects }
    }

    /// Reads what is withheld of a catalog, in its order.
    pub fn of_quarantined(catalog: &Catalog) -> Scan {
        let own = own_names(catalog);
        let reader = Reader { phrases: Phrases::new(), own: &own };
        let held = catalog.quarantined.iter();
        Scan { subjects: held.filter_map(|held| reader.definition(held.kind, &held.definition)).collect() }
    }

    /// Whether what is odd hangs on the tools of other servers.
    pub fn mentions_tools(&self) -> bool {
        self.subjects.iter().any(|scanned| !scanned.mentions.is_empty())
    }

    /// What is odd, where `is_elsewhere` says whether another server of the tenant has a tool of a name (in lower case).
    pub fn suspects(&self, is_elsewhere: &dyn Fn(&str) -> bool) -> Vec<Suspect> {
        let suspect = |scanned: &Scanned| {
            let mut oddities = scanned.oddities.clone();
            let elsewhere = scanned.mentions.iter().find(|mention| is_elsewhere(&mention.name));
            oddities.extend(elsewhere.map(|mention| mention.oddity.clone()));
            (!oddities.is_empty()).then(|| Suspect { subject: scanned.subject.clone(), oddities })
        };
        self.subjects.iter().filter_map(suspect).collect()
    }
}

/// What becomes of what is odd about a subject: the last word of tenant, server and tool. Reported where nobody says.
pub fn mode_of(tenant: &Inspection, server: &Inspection, subject: &Subject) -> Mode {
    let tool = match subject {
        Subject::Definition(DefinitionKind::Tool, name) => server.tools.get(&**name),
        Subject::Definition(..) | Subject::Instructions => None,
    };
    let layers = [Some(tenant), Some(server), tool].into_iter().flatten();
    let mut said = layers.filter_map(|layer| layer.filters.get(&Filter::Definitions).copied());
    said.next_back().unwrap_or(Mode::Report)
}

/// What a server calls its own, in lower case: sentences may speak of that.
fn own_names(catalog: &Catalog) -> HashSet<String> {
    let held = catalog.quarantined.iter().map(|held| &held.definition);
    let names = catalog.tools.iter().chain(&catalog.prompts).chain(held);
    names.map(|definition| definition.name.to_lowercase()).collect()
}

struct Reader<'r> {
    phrases: Phrases,
    own: &'r HashSet<String>,
}

impl Reader<'_> {
    fn definition(&self, kind: DefinitionKind, definition: &Definition) -> Option<Scanned> {
        let subject = Subject::Definition(kind, definition.name.clone());
        match serde_json::from_str(&definition.json) {
            Ok(json) => self.read(subject, &json),
            // A node offers none that it cannot read.
            Err(_) => None,
        }
    }

    fn instructions(&self, catalog: &Catalog) -> Option<Scanned> {
        let said = [&catalog.discover_result, &catalog.initialize_result].into_iter().flatten();
        let read = said.filter_map(|text| serde_json::from_str::<Value>(text).ok());
        let texts: Vec<Value> =
            read.filter_map(|mut result| result.get_mut("instructions").map(Value::take)).collect();
        match texts.as_slice() {
            [one, other] if one == other => self.read(Subject::Instructions, one),
            [one] => self.read(Subject::Instructions, one),
            _ => self.read(Subject::Instructions, &Value::Array(texts)),
        }
    }

    fn read(&self, subject: Subject, json: &Value) -> Option<Scanned> {
        let mut walk = Walk { reader: self, oddities: Vec::new(), mentions: Vec::new() };
        walk.value(json, &Place::ROOT, Role::Text, 0);
        let Walk { oddities, mentions, .. } = walk;
        (!oddities.is_empty() || !mentions.is_empty()).then_some(Scanned { subject, oddities, mentions })
    }
}

/// What a text is in a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// To be read.
    Text,
    /// By which something is called.
    Name,
    /// A pattern: it may name characters that nobody sees.
    Pattern,
    /// For programs only.
    Unread,
}

impl Role {
    /// Of the value of a field of an object whose fields an argument list names, or the protocol.
    fn of(field: &str, names_arguments: bool) -> Role {
        match field {
            _ if names_arguments => Role::Text,
            "name" => Role::Name,
            "pattern" => Role::Pattern,
            "icons" | "$schema" | "$id" | "$ref" => Role::Unread,
            _ => Role::Text,
        }
    }
}

struct Walk<'w> {
    reader: &'w Reader<'w>,
    oddities: Vec<Oddity>,
    mentions: Vec<Mention>,
}

impl Walk<'_> {
    fn value(&mut self, value: &Value, place: &Place<'_>, role: Role, depth: usize) {
        if depth > DEPTH_MAX || role == Role::Unread {
            return;
        }
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::String(text) => self.text(text, place, role),
            Value::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    self.value(element, &place.element(index), role, depth + 1);
                }
            }
            Value::Object(fields) => {
                let names_arguments = place.is_field("properties");
                for (name, value) in fields {
                    let below = place.field(name);
                    if names_arguments && let Some(what) = names::of_context(name) {
                        self.found(what, &below, name, 0..name.len());
                    }
                    self.text(name, &below, Role::Name);
                    self.value(value, &below, Role::of(name, names_arguments), depth + 1);
                }
            }
        }
    }

    fn text(&mut self, text: &str, place: &Place<'_>, role: Role) {
        if role != Role::Pattern
            && let Some(what) = unicode::hidden(text)
        {
            let is_escape = what == unicode::CONTROL && text.contains(['\u{1b}', '\u{9b}']);
            let what = if is_escape { "terminal escape" } else { what };
            self.found(what, place, text, 0..text.len());
        }
        if role == Role::Name {
            if let Some(what) = names::look_alike(text) {
                self.found(what, place, text, 0..text.len());
            }
            return self.words(text, place);
        }
        if text.len() > TEXT_BYTES_MAX {
            self.found("very long text", place, text, 0..text.len());
        }
        if let Some(range) = encoded::padding(text) {
            self.found("padding", place, text, range);
        }
        if let Some(range) = encoded::hidden_text(text) {
            self.found("encoded text", place, text, range);
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
        for (name, range) in mentions::find(&folded) {
            let is_known = self.reader.own.contains(&name)
                || self.mentions.len() == MENTIONS_MAX
                || self.mentions.iter().any(|known| known.name == name);
            if !is_known {
                let oddity = Oddity {
                    what: mentions::ELSEWHERE,
                    place: place.pointer(),
                    excerpt: excerpt::around(text, folded.original(range)),
                };
                self.mentions.push(Mention { name, oddity });
            }
        }
    }

    fn found(&mut self, what: &'static str, place: &Place<'_>, text: &str, range: std::ops::Range<usize>) {
        let place = place.pointer();
        let is_known = self.oddities.iter().any(|known| known.what == what && known.place == place);
        if !is_known && self.oddities.len() < ODDITIES_MAX {
            self.oddities.push(Oddity { what, place, excerpt: excerpt::around(text, range) });
        }
    }
}

#[cfg(test)]
mod tests;
