//! What the pass finds, and where.

use serde_json::json;

use super::*;
use crate::declared::PlaceError;

fn inspection(mode: Mode) -> Result<Inspection, PlaceError> {
    let mut declared = Declared::default();
    declared.add("query", Form::Sql)?;
    declared.add("files", Form::Path)?;
    declared.add("/options/target", Form::Url)?;
    declared.add("command", Form::Shell)?;
    Ok(Inspection { modes: Modes::all(mode), declared, limits: Limits::default() })
}

fn told(findings: &Findings) -> Vec<String> {
    findings.as_slice().iter().map(ToString::to_string).collect()
}

#[test]
fn every_filter_finds_its_own_and_says_where() -> Result<(), PlaceError> {
    let arguments = json!({
        "query": "SELECT 1; DROP TABLE t",
        "files": ["a", "../b"],
        "options": {"target": "http://127.1/"},
        "command": "ls | sh",
        "note": "AKIAIOSFODNN7EXAMPLE",
        "na\u{200b}me": 1,
    });
    let findings = inspection(Mode::Block)?.inspect(&arguments);
    let expected = [
        "sql: stacked statement at /query",
        "traversal: climbs above its start at /files/1",
        "ssrf: loopback address at /options/target",
        "shell: pipe at /command",
        "secrets: key of AWS at /note",
        "unicode: invisible character at /",
    ];
    assert_eq!(told(&findings), expected);
    assert_eq!(findings.blocking().count(), expected.len());
    Ok(())
}

#[test]
fn what_is_declared_of_no_text_is_only_read_as_any_text_is() -> Result<(), PlaceError> {
    let innocent =
        json!({"a": "SELECT 1; DROP TABLE t", "b": "../x", "c": "ls | sh", "d": "file:///x", "e": 1.5});
    assert_eq!(inspection(Mode::Block)?.inspect(&innocent), Findings::default());
    let attack = json!({"a": "http://[::ffff:169.254.169.254]/", "b": "..%2f..%2fx"});
    let expected = ["ssrf: link-local or metadata address at /a", "traversal: encoded climb at /b"];
    assert_eq!(told(&inspection(Mode::Block)?.inspect(&attack)), expected);
    Ok(())
}

#[test]
fn what_is_declared_is_read_as_any_text_is_besides() -> Result<(), PlaceError> {
    let arguments = json!({
        "query": "http://169.254.169.254/",
        "files": ["http://10.0.0.1/"],
        "options": {"target": "https://example.com/?file=%2e%2e%2f%2e%2e%2fetc/passwd"},
        "command": "cat %2e%2e/%2e%2e/etc/passwd",
    });
    let expected = [
        "ssrf: link-local or metadata address at /query",
        "ssrf: private address at /files/0",
        "traversal: encoded climb at /options/target",
        "traversal: encoded climb at /command",
    ];
    assert_eq!(told(&inspection(Mode::Block)?.inspect(&arguments)), expected);
    Ok(())
}

#[test]
fn a_filter_that_is_off_finds_nothing_and_one_that_reports_does_not_block() -> Result<(), PlaceError> {
    let arguments = json!({"query": "a; b", "note": "AKIAIOSFODNN7EXAMPLE"});
    let mut inspection = inspection(Mode::Off)?;
    assert_eq!(inspection.inspect(&arguments), Findings::default());
    inspection.modes =
        Modes::all(Mode::Off).with(Filter::Sql, Mode::Report).with(Filter::Secrets, Mode::Block);
    let findings = inspection.inspect(&arguments);
    assert_eq!(told(&findings), ["sql: stacked statement at /query", "secrets: key of AWS at /note"]);
    let blocking: Vec<_> = findings.blocking().map(|finding| finding.filter).collect();
    assert_eq!(blocking, [Filter::Secrets]);
    Ok(())
}

#[test]
fn what_is_too_large_too_many_or_too_deep_is_found() -> Result<(), PlaceError> {
    let mut inspection = inspection(Mode::Block)?;
    inspection.limits = Limits { text_bytes: 10, bytes: 20, values: 5, depth: 2 };
    let within = json!({"a": ["0123456789", 1, 2]});
    assert_eq!(inspection.inspect(&within), Findings::default());
    let beyond = json!({"a": ["01234567890", [1], 2], "b": "0123456789"});
    let expected =
        ["limits: text at /a/0", "limits: depth at /a/1", "limits: bytes at /", "limits: values at /"];
    assert_eq!(told(&inspection.inspect(&beyond)), expected);
    inspection.modes = inspection.modes.with(Filter::Limits, Mode::Off);
    assert_eq!(inspection.inspect(&beyond), Findings::default());
    // What is not counted, or not kept out, is still looked into.
    let deep = json!({"a": [[["AKIAIOSFODNN7EXAMPLE"]]]});
    assert_eq!(told(&inspection.inspect(&deep)), ["secrets: key of AWS at /a/0/0/0"]);
    inspection.modes = inspection.modes.with(Filter::Limits, Mode::Report);
    inspection.limits = Limits { depth: 2, ..Limits::default() };
    let expected = ["limits: depth at /a/0", "secrets: key of AWS at /a/0/0/0"];
    assert_eq!(told(&inspection.inspect(&deep)), expected);
    Ok(())
}
