//! Which crate may name which, and what every crate takes from the workspace.
//!
//! Dependencies point one way: model <- policy <- wire <- node <- control-state <- planes <- cli <- tests. The two planes
//! never name each other, not in their tests either: they meet in the protocol. A new edge is a row here, in a commit
//! of its own that says why.

use crate::finding::{Finding, expect_none};
use crate::manifest::{Dependency, Manifest, Use};
use crate::source::Source;
use crate::tree::tree;

/// The contract between processes, which the tests of everything that stands on it may use.
const PROTO: [&str; 4] = ["gantry-model", "gantry-node", "gantry-policy", "gantry-wire"];

/// A crate of ours, its folder, and which others of ours it may name.
struct Edges {
    name: &'static str,
    folder: &'static str,
    /// In its code.
    code: &'static [&'static str],
    /// In its tests, besides those of its code.
    tests: &'static [&'static str],
}

const EDGES: [Edges; 13] = [
    Edges { name: "gantry-model", folder: "proto/model", code: &[], tests: &[] },
    Edges { name: "gantry-policy", folder: "proto/policy", code: &["gantry-model"], tests: &PROTO },
    Edges { name: "gantry-wire", folder: "proto/wire", code: &["gantry-model"], tests: &PROTO },
    // A process joins by the protocol.
    Edges {
        name: "gantry-node",
        folder: "proto/node",
        code: &["gantry-model", "gantry-wire"],
        tests: &PROTO,
    },
    // What a token says is for each plane to make something of, so it knows none of the words of ours.
    Edges { name: "gantry-token", folder: "proto/token", code: &[], tests: &[] },
    Edges {
        name: "gantry-control-state",
        folder: "control-plane/state",
        code: &["gantry-model", "gantry-policy", "gantry-wire"],
        tests: &PROTO,
    },
    Edges {
        name: "gantry-control-plane",
        folder: "control-plane",
        code: &[
            "gantry-control-state",
            // What nodes find odd about definitions, for admins to see.
            "gantry-inspect",
            "gantry-model",
            "gantry-node",
            "gantry-policy",
            // Admins by the tokens of an issuer.
            "gantry-token",
            "gantry-wire",
        ],
        tests: &PROTO,
    },
    // What is looked for in calls and answers has the words of the model, and knows nothing of how they come.
    Edges { name: "gantry-inspect", folder: "data-plane/inspect", code: &["gantry-model"], tests: &[] },
    // Who lends what to whom is the same in simulations and on nodes, so it has no words but its own.
    Edges { name: "gantry-limits", folder: "data-plane/limits", code: &[], tests: &[] },
    Edges {
        name: "gantry-data-plane",
        folder: "data-plane",
        code: &[
            "gantry-inspect",
            "gantry-limits",
            "gantry-model",
            "gantry-node",
            "gantry-policy",
            // Agents by the tokens of a provider.
            "gantry-token",
            "gantry-wire",
        ],
        tests: &PROTO,
    },
    Edges {
        name: "gantry",
        folder: "cli",
        code: &[
            "gantry-control-plane",
            "gantry-control-state",
            "gantry-data-plane",
            // What policies are told of arguments, when they are tested offline.
            "gantry-inspect",
            "gantry-model",
            "gantry-node",
            "gantry-policy",
            // It asks an issuer of admins.
            "gantry-token",
            "gantry-wire",
        ],
        tests: &[],
    },
    Edges {
        name: "gantry-tests",
        folder: "tests",
        code: &[
            "gantry",
            "gantry-control-plane",
            "gantry-control-state",
            "gantry-data-plane",
            "gantry-loadtest",
            "gantry-model",
            "gantry-node",
            "gantry-policy",
            "gantry-token",
            "gantry-wire",
        ],
        tests: &[],
    },
    // The yardstick knows Gantry from outside only, as it knows nginx: by the protocol where it stands for a thousand
    // nodes and for admins.
    Edges {
        name: "gantry-loadtest",
        folder: "loadtest",
        code: &["gantry-model", "gantry-node", "gantry-wire"],
        tests: &[],
    },
];

/// A crate that others wrote and that only one part of ours may name.
struct Confined {
    /// As Cargo names it.
    package: &'static str,
    /// As code names it.
    name: &'static str,
    /// The folder of the one crate that depends on it.
    folder: &'static str,
    /// How the paths of the files begin that name it.
    files: &'static str,
    reason: &'static str,
}

const CONFINED: [Confined; 5] = [
    Confined {
        package: "sled",
        name: "sled",
        folder: "control-plane",
        files: "control-plane/src/store",
        reason: "what is durable, and when, is decided in one place",
    },
    Confined {
        package: "openraft",
        name: "openraft",
        folder: "control-plane",
        files: "control-plane/src/raft",
        reason: "its types are mapped at the edge of that module",
    },
    Confined {
        package: "cedar-policy",
        name: "cedar_policy",
        folder: "proto/policy",
        files: "proto/policy",
        reason: "everybody decides by the one evaluator",
    },
    Confined {
        package: "cedar-policy-core",
        name: "cedar_policy_core",
        folder: "proto/policy",
        files: "proto/policy",
        reason: "everybody decides by the one evaluator",
    },
    Confined {
        package: "quinn",
        name: "quinn",
        folder: "data-plane",
        files: "data-plane/src/mesh",
        reason: "peers are reached by name, and what carries a message is nobody else's concern",
    },
];

#[test]
fn our_crates_name_only_those_that_they_may() {
    let findings = tree().manifests.iter().flat_map(forbidden_edges).collect();
    expect_none(
        findings,
        "turn the dependency around, or add it to EDGES in tests/tests/tidy/crates.rs and say why",
    );
}

#[test]
fn every_crate_is_a_member_and_has_its_row() {
    let members = tree().workspace.value("workspace", "members").unwrap_or_default();
    let mut findings = Vec::new();
    for manifest in &tree().manifests {
        if !members.contains(&format!("\"{}\"", folder(manifest))) {
            findings.push(Finding::new(&manifest.path, 1, "is no member of the workspace"));
        }
        if !EDGES.iter().any(|row| (row.name, row.folder) == (manifest.package(), folder(manifest))) {
            findings.push(Finding::new(&manifest.path, 1, "has no row in EDGES"));
        }
    }
    let is_there = |row: &&Edges| tree().manifests.iter().any(|manifest| folder(manifest) == row.folder);
    let gone = EDGES.iter().filter(|row| !is_there(row));
    findings
        .extend(gone.map(|row| Finding::new(row.folder, 1, format!("{} is in EDGES, but gone", row.name))));
    expect_none(findings, "keep Cargo.toml and EDGES in tests/tests/tidy/crates.rs as the folders are");
}

#[test]
fn every_crate_takes_its_settings_from_the_workspace() {
    let inherited = [
        ("package", "version.workspace"),
        ("package", "edition.workspace"),
        ("package", "rust-version.workspace"),
        ("package", "license.workspace"),
        ("package", "publish.workspace"),
        ("lints", "workspace"),
    ];
    let missing = |manifest: &'static Manifest| {
        let missing = inherited.iter().filter(|(section, key)| manifest.value(section, key) != Some("true"));
        missing.map(|(section, key)| {
            Finding::new(&manifest.path, 1, format!("[{section}] lacks `{key} = true`"))
        })
    };
    expect_none(tree().manifests.iter().flat_map(missing).collect(), "add the line");
}

#[test]
fn every_version_stands_in_the_workspace() {
    let own_versions = |manifest: &'static Manifest| {
        let own = manifest.dependencies().into_iter().filter(|dependency| !dependency.is_inherited);
        own.map(|found| Finding::new(&manifest.path, found.line, format!("{} is not inherited", found.name)))
    };
    let renamed = listed().filter(|(_, entry)| entry.value.replace(' ', "").contains("package="));
    let renamed =
        renamed.map(|(name, entry)| Finding::new("Cargo.toml", entry.line, format!("{name} is renamed")));
    let findings = tree().manifests.iter().flat_map(own_versions).chain(renamed).collect();
    expect_none(
        findings,
        "name version and features in [workspace.dependencies], and use `name.workspace = true`",
    );
}

#[test]
fn every_dependency_of_the_workspace_is_used() {
    let used: Vec<Dependency> = tree().manifests.iter().flat_map(Manifest::dependencies).collect();
    let is_used = |name: &str| used.iter().any(|dependency| dependency.name == name);
    let findings = listed()
        .filter(|(name, _)| !is_used(name))
        .map(|(name, entry)| Finding::new("Cargo.toml", entry.line, format!("no crate uses {name}")))
        .collect();
    expect_none(findings, "remove it from [workspace.dependencies]");
}

#[test]
fn crates_of_others_stay_where_they_are_confined() {
    let in_manifests = tree().manifests.iter().flat_map(|manifest| {
        let dependencies = manifest.dependencies().into_iter();
        dependencies.filter_map(|found| {
            let confined = CONFINED.iter().find(|confined| confined.package == found.name)?;
            let is_elsewhere = confined.folder != folder(manifest);
            is_elsewhere.then(|| Finding::new(&manifest.path, found.line, out_of_place(confined)))
        })
    });
    let in_code = tree().sources.iter().flat_map(names_out_of_place);
    expect_none(
        in_manifests.chain(in_code).collect(),
        "use what the part that owns it offers, or extend that",
    );
}

fn folder(manifest: &Manifest) -> &str {
    manifest.path.strip_suffix("/Cargo.toml").unwrap_or_default()
}

/// The dependencies of the workspace by name.
fn listed() -> impl Iterator<Item = (&'static str, &'static crate::manifest::Entry)> {
    let entries = tree().workspace.entries.iter().filter(|entry| entry.section == "workspace.dependencies");
    entries.map(|entry| (entry.key.split('.').next().unwrap_or(&entry.key), entry))
}

fn forbidden_edges(manifest: &Manifest) -> Vec<Finding> {
    let row = EDGES.iter().find(|row| row.name == manifest.package());
    let (code, tests) = row.map_or((&[][..], &[][..]), |row| (row.code, row.tests));
    let is_allowed = |dependency: &Dependency| {
        let name = dependency.name.as_str();
        code.contains(&name) || dependency.used_by == Use::Tests && tests.contains(&name)
    };
    manifest
        .dependencies()
        .into_iter()
        .filter(|dependency| dependency.name == "gantry" || dependency.name.starts_with("gantry-"))
        .filter(|dependency| !is_allowed(dependency))
        .map(|found| {
            Finding::new(&manifest.path, found.line, format!("{} names {}", manifest.package(), found.name))
        })
        .collect()
}

fn names_out_of_place(source: &Source) -> Vec<Finding> {
    let elsewhere = CONFINED.iter().filter(|confined| !source.path.starts_with(confined.files));
    elsewhere
        .flat_map(|confined| {
            source.places(&[], confined.name, "").map(|at| source.finding(at, out_of_place(confined)))
        })
        .collect()
}

fn out_of_place(confined: &Confined) -> String {
    format!("{} is named outside of {}: {}", confined.name, confined.files, confined.reason)
}

#[cfg(test)]
mod tests {
    use super::{forbidden_edges, names_out_of_place};
    use crate::finding::Finding;
    use crate::manifest::Manifest;
    use crate::source::Source;

    #[test]
    fn an_edge_that_is_not_in_the_table_is_found_in_tests_too() {
        let text = "[package]\nname = \"gantry-data-plane\"\n[dependencies]\ngantry-model.workspace = true\n\
                    gantry-control-state.workspace = true\n[dev-dependencies]\ngantry-wire.workspace = true\n\
                    gantry-control-plane.workspace = true\n";
        let expected = [
            Finding::new("data-plane/Cargo.toml", 5, "gantry-data-plane names gantry-control-state"),
            Finding::new("data-plane/Cargo.toml", 8, "gantry-data-plane names gantry-control-plane"),
        ];
        assert_eq!(forbidden_edges(&Manifest::new("data-plane/Cargo.toml", text)), expected);
    }

    #[test]
    fn a_confined_name_is_found_in_code_but_not_in_words() {
        let text = "// sled is slow\nuse sled::Db;\nfn f() { let sledge = \"sled\"; }\n";
        let found: Vec<_> = names_out_of_place(&Source::new("data-plane/src/a.rs", text));
        let places: Vec<_> = found.iter().map(|finding| (finding.path.as_str(), finding.line)).collect();
        assert_eq!(places, [("data-plane/src/a.rs", 2)]);
        assert_eq!(names_out_of_place(&Source::new("control-plane/src/store/log.rs", text)), []);
    }
}
