//! The facts of all arguments that are declared, together.
//!
//! Always holds: every text at a declared place, or below one, is read, or none is: with more than [`TEXTS_MAX`] there are
//! no facts, so that nothing is decided by some of them. What cannot be read is of the kind or scheme `unknown`.

use gantry_model::facts::Facts;
use gantry_model::inspection::Form;
use serde_json::Value;

use crate::declared::{Declared, Node};
use crate::{path, shell, target};

/// Declared texts of one call. SQL takes longest: a text of [`super::sql::TOKENS_MAX`] tokens about a millisecond.
pub const TEXTS_MAX: usize = 64;

/// Said of what no parser reads.
const UNKNOWN: &str = "unknown";

/// There are no facts of these arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactsError {
    /// More than [`TEXTS_MAX`] texts are declared.
    Texts,
}

impl std::fmt::Display for FactsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "more than {TEXTS_MAX} texts of the arguments are declared")
    }
}

impl std::error::Error for FactsError {}

/// The facts of a call's arguments. It recurses: whoever reads values bounds their depth.
pub fn of(declared: &Declared, arguments: &Value) -> Result<Facts, FactsError> {
    let mut reader = Reader { facts: Facts { size: super::size(arguments), ..Facts::default() }, texts: 0 };
    reader.value(arguments, Some(declared.root()), None)?;
    Ok(reader.facts)
}

struct Reader {
    facts: Facts,
    texts: usize,
}

impl Reader {
    fn value(&mut self, value: &Value, node: Option<&Node>, form: Option<Form>) -> Result<(), FactsError> {
        let form = node.and_then(Node::form).or(form);
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
            Value::String(text) => form.map_or(Ok(()), |form| self.text(text, form)),
            Value::Array(elements) => elements
                .iter()
                .try_for_each(|element| self.value(element, node.and_then(|node| node.below("*")), form)),
            Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
                self.value(value, node.and_then(|node| node.below(name)), form)
            }),
        }
    }

    fn text(&mut self, text: &str, form: Form) -> Result<(), FactsError> {
        if self.texts == TEXTS_MAX {
            return Err(FactsError::Texts);
        }
        self.texts += 1;
        match form {
            Form::Sql => self.sql(text),
            Form::Path => self.path(text),
            Form::Url => self.url(text),
            Form::Shell => self.shell(text),
        }
        Ok(())
    }

    fn sql(&mut self, text: &str) {
        let (all, sql) = (&mut self.facts.sql, super::sql::read(text));
        all.kinds.extend(sql.kinds.into_iter().map(str::to_owned));
        all.tables.extend(sql.tables);
        all.functions.extend(sql.functions);
        all.statements += sql.statements;
    }

    fn path(&mut self, text: &str) {
        let (all, path) = (&mut self.facts.path, path::read(text));
        all.normalised.insert(path.normalised);
        all.is_absolute |= path.is_absolute;
        all.escapes |= path.escapes;
        all.is_disguised |= path.is_disguised;
    }

    fn url(&mut self, text: &str) {
        let all = &mut self.facts.url;
        let (scheme, host, is_private) = match target::read(text) {
            Some(target) => (target.scheme, target.host, target.is_private),
            None => (UNKNOWN.to_owned(), UNKNOWN.to_owned(), true),
        };
        all.schemes.insert(scheme);
        all.hosts.insert(host);
        all.is_private |= is_private;
    }

    fn shell(&mut self, text: &str) {
        let (all, line) = (&mut self.facts.shell, shell::read(text));
        all.commands.extend(line.commands);
        all.words.extend(line.words);
        all.metacharacters.extend(line.metacharacters.into_iter().map(str::to_owned));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use gantry_model::facts::Size;
    use serde_json::json;

    use super::*;
    use crate::declared::PlaceError;

    fn declared(places: &[(&str, Form)]) -> Result<Declared, PlaceError> {
        let mut declared = Declared::default();
        places.iter().try_for_each(|(place, form)| declared.add(place, *form))?;
        Ok(declared)
    }

    fn set(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn facts_are_of_all_declared_arguments_together() -> Result<(), PlaceError> {
        let declared = declared(&[
            ("query", Form::Sql),
            ("/files/*/path", Form::Path),
            ("to", Form::Url),
            ("run", Form::Shell),
        ])?;
        let arguments = json!({
            "query": ["SELECT a FROM t", "drop table u"],
            "files": [{"path": "a/./b"}, {"path": "../c", "other": "/d"}],
            "to": {"first": "https://Example.com/x", "second": "no url"},
            "run": "ls -l; rm x",
            "said": "DELETE FROM v",
        });
        let facts = of(&declared, &arguments).expect("facts");
        assert_eq!((facts.sql.kinds, facts.sql.tables), (set(&["drop", "select"]), set(&["t", "u"])));
        assert_eq!(facts.sql.statements, 2);
        assert_eq!(facts.path.normalised, set(&["a/b", "../c"]));
        assert_eq!(
            (facts.path.escapes, facts.path.is_absolute, facts.path.is_disguised),
            (true, false, false)
        );
        assert_eq!(facts.url.schemes, set(&["https", "unknown"]));
        assert_eq!((facts.url.hosts, facts.url.is_private), (set(&["example.com", "unknown"]), true));
        assert_eq!(
            (facts.shell.commands, facts.shell.metacharacters),
            (set(&["ls", "rm"]), set(&["separator"]))
        );
        assert_eq!(facts.size, super::super::size(&arguments));
        Ok(())
    }

    #[test]
    fn where_nothing_is_declared_there_is_nothing_but_the_size() {
        let arguments = json!({"query": "SELECT 1"});
        let expected =
            Facts { size: Size { bytes: 13, longest: 8, values: 2, depth: 1 }, ..Facts::default() };
        assert_eq!(of(&Declared::default(), &arguments), Ok(expected));
    }

    #[test]
    fn there_are_facts_of_all_texts_or_of_none() -> Result<(), PlaceError> {
        let declared = declared(&[("paths", Form::Path)])?;
        let facts = |count: usize| of(&declared, &json!({"paths": vec!["a"; count]}));
        assert!(facts(TEXTS_MAX).is_ok());
        assert_eq!(facts(TEXTS_MAX + 1), Err(FactsError::Texts));
        Ok(())
    }
}
