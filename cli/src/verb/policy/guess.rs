//! What an argument is made of, guessed from its schema: its format, pattern, name, description and examples.
//!
//! Always holds: a guess says what it rests on and how sure it is; one that only sounds so is told as that. What may be one of
//! a few given texts is never guessed to be anything, since nothing can be hidden in it. It declares nothing. Schemas are what
//! servers sent: whatever leads where in one, looking ends after [`SCHEMAS_MAX`] of them and says so.

use gantry_model::inspection::Form;
use gantry_model::resource::{ARGUMENT_PLACES_MAX, PLACE_BYTES_MAX, PLACE_STEPS_MAX};
use serde_json::{Map, Value};

/// Deepest nesting that is looked into.
const DEPTH_MAX: usize = 8;
/// Most schemas within a tool's that are looked at: references lead to one as often as a server likes. Large tools have a
/// hundred arguments.
const SCHEMAS_MAX: usize = 4_096;
/// Most characters of a description or a pattern that are read at each of them: what something is stands at the beginning.
const TEXT_CHARS_MAX: usize = 1_024;
/// Most examples, types and the like of one schema that are read.
const LIST_MAX: usize = 16;
/// Points of a guess that counts as sure, and as likely.
const SURE: u32 = 4;
const LIKELY: u32 = 2;

/// How sure a guess is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// One weak sign.
    Perhaps,
    /// A name or a description that is rarely meant otherwise.
    Likely,
    /// The schema says so.
    Sure,
}

/// What an argument may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guess {
    /// As `inspection.arguments` names it.
    pub(super) place: String,
    pub(super) form: Form,
    pub(super) trust: Trust,
    pub(super) reasons: Vec<String>,
}

/// What was found in a definition.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order of the schema.
    pub(super) guesses: Vec<Guess>,
    /// Whether its schema leads to more than was looked at.
    pub(super) is_cut: bool,
}

impl Trust {
    /// The word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Trust::Perhaps => "perhaps",
            Trust::Likely => "likely",
            Trust::Sure => "sure",
        }
    }
}

/// A sign that something is of a form: how much it counts, and what it is.
type Sign = (Form, u32, String);

/// Guesses for the arguments of a tool, by its definition.
pub(super) fn guesses(definition: &Value) -> Found {
    let text = |field: &str| text(definition, field).unwrap_or_default();
    let about = format!("{} {} {}", text("name"), text("title"), text("description")).to_lowercase();
    let Some(schema) = definition.get("inputSchema") else { return Found::default() };
    let definitions = schema.get("$defs").or_else(|| schema.get("definitions")).and_then(Value::as_object);
    let mut reader = Reader { definitions, about, found: Vec::new(), left: SCHEMAS_MAX, is_cut: false };
    reader.object(schema, &mut Vec::new(), 0);
    Found { guesses: reader.found, is_cut: reader.is_cut }
}

/// The beginning of a text that a server sent.
fn text<'a>(schema: &'a Value, field: &str) -> Option<&'a str> {
    let text = schema.get(field)?.as_str()?;
    Some(text.char_indices().nth(TEXT_CHARS_MAX).map_or(text, |(end, _)| &text[..end]))
}

struct Reader<'a> {
    definitions: Option<&'a Map<String, Value>>,
    /// What the tool says of itself, in lower case.
    about: String,
    found: Vec<Guess>,
    /// How many schemas may still be looked at.
    left: usize,
    /// Whether there were more.
    is_cut: bool,
}

impl<'a> Reader<'a> {
    fn object(&mut self, schema: &'a Value, path: &mut Vec<String>, depth: usize) {
        let Some(Value::Object(properties)) = schema.get("properties") else { return };
        // What is named longer cannot be declared.
        for (name, property) in properties.iter().filter(|(name, _)| name.len() <= PLACE_BYTES_MAX) {
            if self.is_cut {
                return;
            }
            path.push(name.clone());
            self.value(property, name, path, depth + 1);
            path.pop();
        }
    }

    fn value(&mut self, schema: &'a Value, name: &str, path: &mut Vec<String>, depth: usize) {
        if self.left == 0 {
            self.is_cut = true;
            return;
        }
        self.left -= 1;
        if depth > DEPTH_MAX || self.found.len() == ARGUMENT_PLACES_MAX {
            return;
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let of = reference.strip_prefix("#/$defs/").or_else(|| reference.strip_prefix("#/definitions/"));
            let definition = of.and_then(|name| self.definitions?.get(name));
            return definition.map_or((), |schema| self.value(schema, name, path, depth + 1));
        }
        for choice in
            ["anyOf", "oneOf", "allOf"].iter().filter_map(|word| schema.get(word)?.as_array()).flatten()
        {
            if self.is_cut {
                return;
            }
            self.value(choice, name, path, depth + 1);
        }
        if is_of(schema, "object") || schema.get("properties").is_some() {
            self.object(schema, path, depth);
        }
        if is_of(schema, "array")
            && let Some(items) = schema.get("items")
        {
            path.push("*".to_owned());
            self.value(items, name, path, depth + 1);
            path.pop();
        }
        if is_of(schema, "string") && schema.get("enum").is_none() && schema.get("const").is_none() {
            self.text(schema, name, path);
        }
    }

    fn text(&mut self, schema: &Value, name: &str, path: &[String]) {
        let Some(place) = place(path) else { return };
        if self.found.iter().any(|guess| guess.place == place) {
            return;
        }
        let mut signs: Vec<Sign> = Vec::new();
        of_keywords(schema, &mut signs);
        of_examples(schema, &mut signs);
        of_description(text(schema, "description").unwrap_or_default(), &mut signs);
        of_name(name, &self.about, &mut signs);
        let points =
            |form: Form| -> u32 { signs.iter().filter(|sign| sign.0 == form).map(|sign| sign.1).sum() };
        let forms = [Form::Sql, Form::Path, Form::Url, Form::Shell];
        let Some(form) = forms.into_iter().max_by_key(|form| points(*form)).filter(|form| points(*form) > 0)
        else {
            return;
        };
        let rivals = forms.iter().filter(|other| **other != form && points(**other) == points(form)).count();
        let trust = match points(form) {
            // Two that are as likely are neither.
            _ if rivals > 0 => Trust::Perhaps,
            SURE.. => Trust::Sure,
            LIKELY.. => Trust::Likely,
            _ => Trust::Perhaps,
        };
        let reasons = signs.into_iter().filter(|sign| sign.0 == form).map(|sign| sign.2).collect();
        self.found.push(Guess { place, form, trust, reasons });
    }
}

fn is_of(schema: &Value, kind: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(name)) => name == kind,
        Some(Value::Array(names)) => names.iter().take(LIST_MAX).any(|name| name == kind),
        _ => false,
    }
}

/// The place as `inspection.arguments` has it; `None` where it cannot be named there.
fn place(path: &[String]) -> Option<String> {
    let place = match path {
        [only] if !only.starts_with('/') => only.clone(),
        // A text in a list is below the list's own place.
        [only, rest @ ..] if rest.iter().all(|step| step == "*") && !only.starts_with('/') => only.clone(),
        steps => {
            steps.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect()
        }
    };
    let is_number = |step: &String| step.bytes().all(|byte| byte.is_ascii_digit());
    let is_pointer = place.starts_with('/');
    let is_good = (1..=PLACE_BYTES_MAX).contains(&place.len())
        && path.len() <= PLACE_STEPS_MAX
        && path.iter().all(|step| !step.is_empty())
        && !(is_pointer && path.iter().any(is_number));
    is_good.then_some(place)
}

fn of_keywords(schema: &Value, signs: &mut Vec<Sign>) {
    let text = |field: &str| text(schema, field);
    if let Some(format) = text("format") {
        let form = match format.to_lowercase().as_str() {
            "uri" | "url" | "iri" | "uri-reference" | "iri-reference" | "http-url" => Some(Form::Url),
            "path" | "file-path" | "filepath" | "directory-path" | "file" => Some(Form::Path),
            "sql" => Some(Form::Sql),
            "shell" | "command" | "bash" => Some(Form::Shell),
            _ => None,
        };
        signs.extend(form.map(|form| (form, SURE, format!("its format is {format}"))));
    }
    if let Some(media) = text("contentMediaType") {
        let form = match media.to_lowercase().as_str() {
            "application/sql" | "text/x-sql" => Some(Form::Sql),
            "application/x-sh" | "text/x-shellscript" => Some(Form::Shell),
            _ => None,
        };
        signs.extend(form.map(|form| (form, SURE, format!("its media type is {media}"))));
    }
    if let Some(pattern) = text("pattern") {
        let start = pattern.trim_start_matches('^').replace('\\', "");
        if start.starts_with("http") || start.starts_with("(http") {
            signs.push((Form::Url, SURE, "its pattern begins as a URL".to_owned()));
        } else if pattern.starts_with("^/") || pattern.starts_with("^\\/") {
            signs.push((Form::Path, LIKELY, "its pattern begins with /".to_owned()));
        }
    }
}

fn of_examples(schema: &Value, signs: &mut Vec<Sign>) {
    let examples = schema.get("examples").and_then(Value::as_array).into_iter().flatten().take(LIST_MAX);
    let texts = examples.chain(schema.get("default")).chain(schema.get("example")).filter_map(Value::as_str);
    for text in texts {
        let lower = text.chars().take(TEXT_CHARS_MAX).collect::<String>().trim_start().to_lowercase();
        let begins = |starts: &[&str]| starts.iter().any(|start| lower.starts_with(start));
        let form = if begins(&["http://", "https://"]) {
            Form::Url
        } else if begins(&["select ", "insert ", "update ", "delete from ", "with "]) {
            Form::Sql
        } else if begins(&["/", "./", "../", "~/", "c:\\"]) {
            Form::Path
        } else {
            continue;
        };
        // However many there are.
        return signs.push((form, LIKELY, "an example or default of it is one".to_owned()));
    }
}

fn of_description(description: &str, signs: &mut Vec<Sign>) {
    let lower = description.to_lowercase();
    let words: [(Form, u32, &[&str]); 8] = [
        (Form::Sql, LIKELY, &["sql query", "sql statement", "sql to ", "sql command", "sql text"]),
        (Form::Sql, 1, &["sql"]),
        (
            Form::Shell,
            LIKELY,
            &["shell command", "command line", "bash command", "command to run", "command to execute"],
        ),
        (Form::Shell, 1, &["shell", "bash", "terminal"]),
        (Form::Url, LIKELY, &["url of", "url to", "the url", "http://", "https://", "web address"]),
        (Form::Url, 1, &["url", "uri"]),
        (
            Form::Path,
            LIKELY,
            &[
                "file path",
                "path to",
                "path of",
                "absolute path",
                "relative path",
                "directory to",
                "path where",
            ],
        ),
        (Form::Path, 1, &["directory", "folder", "filename", "file name", "path"]),
    ];
    for (form, points, phrases) in words {
        let has = |phrase: &&&str| lower.contains(**phrase);
        if signs.iter().any(|sign| sign.0 == form && sign.2.starts_with("its description")) {
            continue;
        }
        if let Some(phrase) = phrases.iter().find(has) {
            signs.push((form, points, format!("its description says {:?}", phrase.trim())));
        }
    }
}

fn of_name(name: &str, about: &str, signs: &mut Vec<Sign>) {
    let words = words(name);
    let has = |wanted: &[&str]| words.iter().any(|word| wanted.contains(&word.as_str()));
    let tells = |wanted: &[&str]| wanted.iter().any(|word| about.contains(word));
    let named = || format!("it is named {name}");
    let both = |what: &str| format!("it is named {name}, and its tool tells of {what}");
    if has(&["sql"]) {
        signs.push((Form::Sql, SURE, named()));
    } else if has(&["query", "statement", "stmt"])
        && tells(&["sql", "database", "postgres", "sqlite", "table"])
    {
        signs.push((Form::Sql, LIKELY, both("a database")));
    }
    if has(&["path", "paths", "filepath", "dir", "directory", "cwd", "workdir", "folder"]) {
        signs.push((Form::Path, LIKELY, named()));
    } else if has(&["file", "files", "filename", "root", "source", "destination", "src", "dest"])
        && tells(&["file", "director", "folder"])
    {
        signs.push((Form::Path, 1, both("files")));
    }
    if has(&["url", "urls", "href"]) {
        signs.push((Form::Url, LIKELY, named()));
    } else if has(&["uri", "uris", "link", "endpoint", "webhook", "callback"]) {
        signs.push((Form::Url, 1, named()));
    }
    if has(&["cmd", "command", "commandline", "shell", "bash"]) {
        let is_told = tells(&["shell", "bash", "terminal", "execut", "run ", "command"]);
        signs.push(match is_told {
            true => (Form::Shell, LIKELY, both("commands")),
            false => (Form::Shell, 1, named()),
        });
    } else if has(&["script", "args"]) && tells(&["shell", "bash", "terminal"]) {
        signs.push((Form::Shell, 1, both("a shell")));
    }
}

/// The words of a name: `repoPath`, `repo_path` and `repo-path` have two.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for character in name.chars() {
        let is_break = !character.is_alphanumeric();
        if is_break || character.is_uppercase() && was_lower {
            words.push(String::new());
        }
        was_lower = character.is_lowercase();
        if !is_break && let Some(word) = words.last_mut() {
            word.extend(character.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Place, form and trust of each guess.
    fn guessed(about: &str, properties: Value) -> Vec<String> {
        let tool = json!({"name": "t", "description": about, "inputSchema": {
            "type": "object", "properties": properties, "$defs": {"Link": {"type": "string", "format": "uri"}}}});
        let told = |guess: Guess| {
            format!(
                "{} {} {}",
                guess.place,
                json!(guess.form).as_str().unwrap_or_default(),
                guess.trust.as_str()
            )
        };
        guesses(&tool).guesses.into_iter().map(told).collect()
    }

    #[test]
    fn what_a_schema_says_is_sure_and_what_it_is_called_is_likely() {
        let found = guessed(
            "",
            json!({
                "page": {"type": "string", "format": "uri"},
                "base": {"type": ["string", "null"], "pattern": "^https?://"},
                "raw_sql": {"type": "string"},
                "repoPath": {"type": "string"},
                "url": {"type": "string"},
                "where": {"type": "string", "description": "Path to the file"},
                "link": {"$ref": "#/$defs/Link"},
                "anchor": {"type": "string", "description": "a folder, if any"},
            }),
        );
        assert_eq!(
            found,
            [
                "page url sure",
                "base url sure",
                "raw_sql sql sure",
                "repoPath path likely",
                "url url likely",
                "where path likely",
                "link url sure",
                "anchor path perhaps",
            ]
        );
    }

    #[test]
    fn what_a_tool_is_about_tells_queries_and_commands_apart_from_others() {
        let both = json!({"query": {"type": "string"}, "command": {"type": "string"}});
        assert_eq!(guessed("Searches the web", both.clone()), ["command shell perhaps"]);
        assert_eq!(
            guessed("Queries the Postgres database", both.clone()),
            ["query sql likely", "command shell perhaps"]
        );
        assert_eq!(guessed("Runs a bash command", both), ["command shell likely"]);
    }

    #[test]
    fn nested_arguments_are_named_as_inspection_names_them_and_others_not_at_all() {
        let found = guessed(
            "",
            json!({
                "paths": {"type": "array", "items": {"type": "string"}},
                "edits": {"type": "array", "items": {"type": "object", "properties": {"file/path": {"type": "string"}}}},
                "options": {"type": "object", "properties": {"url": {"type": "string"}, "depth": {"type": "integer"}}},
                "pairs": {"type": "object", "properties": {"0": {"type": "object", "properties": {"url": {"type": "string"}}}}},
                "path": {"type": "string", "enum": ["/a", "/b"]},
                "url": {"type": "integer"},
            }),
        );
        assert_eq!(
            found,
            ["paths path likely", "/edits/*/file~1path path likely", "/options/url url likely"]
        );
    }

    #[test]
    fn a_guess_says_what_it_rests_on_and_two_that_are_as_likely_are_neither() {
        let tool = json!({"name": "t", "inputSchema": {"type": "object", "properties": {
            "path": {"type": "string", "description": "The URL of the page", "default": "https://example.com"},
            "url_path": {"type": "string"}}}});
        let found = guesses(&tool).guesses;
        assert_eq!((found[0].form, found[0].trust), (Form::Url, Trust::Sure));
        assert_eq!(
            found[0].reasons,
            ["an example or default of it is one", "its description says \"url of\""]
        );
        assert_eq!(found[1].trust, Trust::Perhaps);
    }

    #[test]
    fn a_schema_that_leads_into_itself_ends() {
        let tool = json!({"name": "t", "inputSchema": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}},
            "$defs": {"A": {"type": "object", "properties": {"path": {"type": "string"}, "a": {"$ref": "#/$defs/A"}}}}}});
        let Found { guesses: found, is_cut } = guesses(&tool);
        assert!(!is_cut);
        assert_eq!(found.first().map(|guess| guess.place.as_str()), Some("/a/path"));
        assert!(found.len() <= DEPTH_MAX, "{found:?}");
        for none in [json!({"inputSchema": 5}), json!([])] {
            assert!(guesses(&none).guesses.is_empty());
        }
    }

    #[test]
    fn a_schema_that_leads_everywhere_from_everywhere_is_looked_at_for_as_long_as_others_and_told() {
        let properties = |count: usize, schema: &Value| -> Value {
            (0..count).map(|number| (format!("p{number}"), schema.clone())).collect::<Map<_, _>>().into()
        };
        let schema = |of: Value| {
            json!({"name": "t", "inputSchema": {"type": "object", "properties": of, "$defs": {
                "A": {"anyOf": vec![json!({"$ref": "#/$defs/A"}); 1_000]},
                "B": {"type": "object", "properties": properties(1_000, &json!({"$ref": "#/$defs/B"}))},
                "C": {"type": "string", "description": "x".repeat(100_000), "pattern": "^".repeat(100_000)},
            }}})
        };
        for name in ["A", "B"] {
            let found = guesses(&schema(
                json!({"url": {"type": "string"}, "a": {"$ref": format!("#/$defs/{name}")}, "path": {"type": "string"}}),
            ));
            assert!(found.is_cut, "{name}");
            assert_eq!(found.guesses.len(), 1, "what stands before it was looked at: {:?}", found.guesses);
        }
        // Each counts, and so does each reference to it.
        let long = json!({"$ref": "#/$defs/C"});
        assert!(!guesses(&schema(properties(SCHEMAS_MAX / 2, &long))).is_cut);
        assert!(guesses(&schema(properties(SCHEMAS_MAX / 2 + 1, &long))).is_cut);
    }
}
