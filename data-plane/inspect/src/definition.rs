//! What a server says of its tools, prompts and resources, searched for what is meant for a model alone: text that
//! nobody sees, and instructions of somebody who has none to give.
//!
//! Always holds: every text of a definition is read, and every name in it; a scan is of the catalog alone, so that
//! whoever has the same catalog finds the same; it takes time by the length of the catalog; of one definition at most
//! [`ODDITIES_MAX`] are kept, each kind once per text, with an excerpt that is safe to print: of bounded length, of visible
//! characters, without keys. What hangs on what other servers offer is told and never withheld for: no server has another's
//! definitions withheld by the names that it gives its own.
//!
//! It reads words and not meaning: an instruction in words of its own passes, and so does a language that
//! [`languages`] does not have.

mod actions;
mod encoded;
mod english;
mod excerpt;
mod fold;
mod languages;
mod markup;
mod mentions;
mod names;
mod owners;
mod pattern;
mod phrases;
mod places;
mod walk;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use gantry_model::inspection::Mode;
use gantry_model::{Catalog, Definition, DefinitionKind};
use mentions::Mention;
use phrases::Phrases;
use serde_json::Value;
use walk::Walk;

pub use actions::Actions;
pub use owners::Owners;

/// Of one definition: enough to judge it by, few enough for a line of a table each.
pub const ODDITIES_MAX: usize = 8;
/// What a definition is told as that cannot be read.
const UNREADABLE: &str = "unreadable definition";

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
    /// Where there are more of them than are looked up.
    unread: Option<Oddity>,
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Instructions => formatter.write_str("instructions"),
            Subject::Definition(kind, name) => write!(formatter, "{kind} {}", excerpt::safe(name)),
        }
    }
}

impl Oddity {
    /// Whether a definition may be withheld for it: not for what other servers can bring about.
    pub fn withholds(&self) -> bool {
        self.what != mentions::ELSEWHERE && self.what != mentions::UNREAD
    }
}

impl Suspect {
    /// What becomes of it.
    pub fn action(&self, actions: &Actions) -> Mode {
        match actions.on(&self.subject) {
            Mode::Block if !self.oddities.iter().any(Oddity::withholds) => Mode::Report,
            mode => mode,
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
        // A name that is not in force yet is nobody's: a server could list it to speak of another's tool.
        let reader = Reader { phrases: Phrases::new(), own: own_names(catalog.tools.iter()) };
        let kinds = DefinitionKind::ALL.into_iter();
        let definitions =
            kinds.flat_map(|kind| catalog.definitions(kind).iter().map(move |definition| (kind, definition)));
        let mut subjects: Vec<Scanned> =
            definitions.filter_map(|(kind, definition)| reader.definition(kind, definition)).collect();
        subjects.extend(reader.instructions(catalog));
        Scan { subjects }
    }

    /// Reads what is withheld of a catalog, in its order, as if it were in force.
    pub fn of_quarantined(catalog: &Catalog) -> Scan {
        let held = catalog.quarantined.iter();
        let tools = held.clone().filter(|held| held.kind == DefinitionKind::Tool);
        let own = own_names(catalog.tools.iter().chain(tools.map(|held| &held.definition)));
        let reader = Reader { phrases: Phrases::new(), own };
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
            oddities.extend(scanned.unread.clone());
            (!oddities.is_empty()).then(|| Suspect { subject: scanned.subject.clone(), oddities })
        };
        self.subjects.iter().filter_map(suspect).collect()
    }
}

/// What a server calls its own, in lower case: sentences may speak of that.
fn own_names<'c>(tools: impl Iterator<Item = &'c Definition>) -> HashSet<String> {
    tools.map(|tool| tool.name.to_lowercase()).collect()
}

struct Reader {
    phrases: Phrases,
    own: HashSet<String>,
}

impl Reader {
    fn definition(&self, kind: DefinitionKind, definition: &Definition) -> Option<Scanned> {
        let subject = Subject::Definition(kind, definition.name.clone());
        match serde_json::from_str(&definition.json) {
            Ok(json) => self.read(subject, &json),
            Err(_) => {
                let excerpt = excerpt::safe(&definition.json);
                let unreadable = Oddity { what: UNREADABLE, place: String::new(), excerpt };
                Some(Scanned { subject, oddities: vec![unreadable], mentions: Vec::new(), unread: None })
            }
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
        let mut walk = Walk::new(self);
        match &subject {
            Subject::Instructions => walk.instructions(json),
            Subject::Definition(..) => walk.definition(json),
        }
        let Walk { oddities, mentions, unread, .. } = walk;
        let is_odd = !oddities.is_empty() || !mentions.is_empty() || unread.is_some();
        is_odd.then_some(Scanned { subject, oddities, mentions, unread })
    }
}

#[cfg(test)]
mod tests;
