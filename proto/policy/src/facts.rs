//! Facts of a call's arguments as policies read them: `context.facts`.
//!
//! Always holds: the value has the type that [`crate::SCHEMA`] gives it, whatever was declared; where nothing was, its sets
//! are empty.

use std::collections::BTreeSet;

use cedar_policy_core::ast::Value;
use gantry_model::facts::{Facts, Paths, Shell, Size, Sql, Urls};

/// The value of `context.facts`.
pub(crate) fn value(facts: &Facts) -> Value {
    let Facts { sql, path, url, shell, size } = facts;
    record([
        ("sql", sql_value(sql)),
        ("path", path_value(path)),
        ("url", url_value(url)),
        ("shell", shell_value(shell)),
        ("size", size_value(*size)),
    ])
}

fn sql_value(sql: &Sql) -> Value {
    record([
        ("kinds", texts(&sql.kinds)),
        ("tables", texts(&sql.tables)),
        ("functions", texts(&sql.functions)),
        ("statements", count(sql.statements)),
    ])
}

fn path_value(path: &Paths) -> Value {
    record([
        ("normalised", texts(&path.normalised)),
        ("absolute", path.is_absolute.into()),
        ("escapes", path.escapes.into()),
        ("disguised", path.is_disguised.into()),
    ])
}

fn url_value(url: &Urls) -> Value {
    record([
        ("schemes", texts(&url.schemes)),
        ("hosts", texts(&url.hosts)),
        ("private", url.is_private.into()),
    ])
}

fn shell_value(shell: &Shell) -> Value {
    record([
        ("commands", texts(&shell.commands)),
        ("words", texts(&shell.words)),
        ("metacharacters", texts(&shell.metacharacters)),
    ])
}

fn size_value(size: Size) -> Value {
    record([
        ("bytes", count(size.bytes)),
        ("longest", count(size.longest)),
        ("values", count(size.values)),
        ("depth", count(size.depth)),
    ])
}

fn record<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::record(pairs, None)
}

fn texts(texts: &BTreeSet<String>) -> Value {
    Value::set(texts.iter().map(|text| Value::from(text.as_str())), None)
}

fn count(count: usize) -> Value {
    Value::from(i64::try_from(count).unwrap_or(i64::MAX))
}
