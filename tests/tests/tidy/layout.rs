//! Where files are, and what they are called.

use std::collections::BTreeSet;

use crate::finding::{Finding, expect_none};
use crate::tree::tree;

/// What stands at the top of the repository, besides dotfiles.
const TOP_LEVEL: [&str; 11] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "cli",
    "control-plane",
    "data-plane",
    "deploy",
    "loadtest",
    "proto",
    "tests",
];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 10] =
    ["common", "helper", "helpers", "manager", "managers", "misc", "types", "util", "utilities", "utils"];

#[test]
fn the_top_level_is_what_the_layout_says() {
    let found: BTreeSet<_> = tree().paths.iter().map(|path| path.split('/').next().unwrap_or(path)).collect();
    let extra = found.iter().filter(|name| !TOP_LEVEL.contains(name) && !name.starts_with('.'));
    let missing = TOP_LEVEL.iter().filter(|name| !found.contains(**name));
    let findings = extra
        .map(|name| Finding::new(name, 1, "does not belong at the top level"))
        .chain(missing.map(|name| Finding::new(name, 1, "is missing")))
        .collect();
    expect_none(findings, "move it into one of the folders, or ignore it; an empty folder holds a README.md");
}

#[test]
fn names_say_what_is_inside() {
    let in_path = |path: &String| {
        let empty =
            path.split('/').find(|part| EMPTY_NAMES.contains(&part.split('.').next().unwrap_or(part)))?;
        Some(Finding::new(path, 1, format!("is named {empty:?}")))
    };
    let in_code = tree().sources.iter().flat_map(|source| {
        EMPTY_NAMES.iter().flat_map(move |name| {
            let declared = source.places(&["mod "], name, "");
            declared.map(move |at| source.finding(at, format!("a module is named {name:?}")))
        })
    });
    let findings = tree().paths.iter().filter_map(in_path).chain(in_code).collect();
    expect_none(
        findings,
        "name it for the one thing that it is about, and move what is about something else",
    );
}

#[test]
fn modules_stand_beside_their_folders() {
    let is_mod = |path: &&String| path.as_str() == "mod.rs" || path.ends_with("/mod.rs");
    let findings =
        tree().paths.iter().filter(is_mod).map(|path| Finding::new(path, 1, "is a mod.rs")).collect();
    expect_none(findings, "move `name/mod.rs` to `name.rs`");
}
