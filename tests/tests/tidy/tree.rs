//! The files of the repository: those that git tracks, and new ones that it does not ignore.
//!
//! Without git, as in an unpacked archive, it is every file but what builds and runs leave behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::finding::{Finding, expect_none};
use crate::manifest::Manifest;
use crate::source::{Role, Source};

/// What runs leave behind in any folder, and git's own.
const LEFT_BEHIND: [&str; 3] = [".gantry", ".git", "node_modules"];

/// What builds leave behind at the top; further down it is a name like any other.
const BUILD_FOLDER: &str = "target";

/// Workspaces of their own, which are no part of the product; their manifests are not among those below.
const OTHER_WORKSPACES: [&str; 1] = ["tests/fuzz/Cargo.toml"];

/// All files of the repository.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Every file, seen from the root of the repository, in order.
    pub(crate) paths: Vec<String>,
    /// Files that are text.
    pub(crate) texts: Vec<Text>,
    /// Rust files.
    pub(crate) sources: Vec<Source>,
    /// The `Cargo.toml` of the workspace.
    pub(crate) workspace: Manifest,
    /// The `Cargo.toml` of every crate of the workspace.
    pub(crate) manifests: Vec<Manifest>,
}

/// A file that is text.
#[derive(Debug)]
pub(crate) struct Text {
    /// The file, seen from the root of the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The repository that this test was built from, read once.
pub(crate) fn tree() -> &'static Tree {
    static TREE: OnceLock<Tree> = OnceLock::new();
    TREE.get_or_init(|| {
        let mut paths = from_git(root()).unwrap_or_else(|| from_disk(root()));
        paths.sort();
        Tree::read(root(), paths)
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the repository")
}

impl Tree {
    fn read(root: &Path, paths: Vec<String>) -> Tree {
        let text = |path: &String| {
            let bytes = fs::read(root.join(path)).ok()?;
            Some(Text { path: path.clone(), text: String::from_utf8(bytes).ok()? })
        };
        let texts: Vec<Text> = paths.iter().filter_map(text).collect();
        let ending = |ending: &'static str| texts.iter().filter(move |file| file.path.ends_with(ending));
        let mut sources: Vec<_> = ending(".rs").map(|file| Source::new(&file.path, &file.text)).collect();
        let for_tests: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
        for source in &mut sources {
            let belongs = |module: &String| {
                source
                    .path
                    .strip_prefix(module.as_str())
                    .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
            };
            if for_tests.iter().any(belongs) {
                source.role = Role::Test;
            }
        }
        let (workspace, manifests) = ending("Cargo.toml")
            .filter(|file| !OTHER_WORKSPACES.contains(&file.path.as_str()))
            .map(|file| Manifest::new(&file.path, &file.text))
            .partition::<Vec<_>, _>(|manifest| manifest.path == "Cargo.toml");
        let workspace = workspace.into_iter().next().expect("the workspace has a Cargo.toml");
        Tree { paths, texts, sources, workspace, manifests }
    }
}

/// `None` where git is absent or knows no repository here.
fn from_git(root: &Path) -> Option<Vec<String>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .ok()?;
    let names = String::from_utf8(listed.stdout).ok().filter(|_| listed.status.success())?;
    let paths: Vec<_> = names.split_terminator('\0').map(str::to_owned).collect();
    // An archive may have been unpacked into some other repository.
    if !paths.iter().any(|path| path == "Cargo.toml") {
        return None;
    }
    // A tracked file that is deleted is still listed, and one in conflict is listed more than once.
    let mut paths: Vec<_> = paths.into_iter().filter(|path| root.join(path).exists()).collect();
    paths.sort();
    paths.dedup();
    Some(paths)
}

fn from_disk(root: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).expect("a folder can be read") {
            let entry = entry.expect("a folder can be read to its end");
            let name = entry.file_name();
            let path = folder.join(&name);
            if LEFT_BEHIND.iter().any(|left| name == *left) || path == Path::new(BUILD_FOLDER) {
                continue;
            }
            if entry.file_type().expect("a file has a type").is_dir() {
                folders.push(path);
            } else {
                paths.push(path.to_str().expect("a file's name is UTF-8").to_owned());
            }
        }
    }
    paths
}

#[test]
fn nothing_that_is_written_by_hand_is_ignored() {
    let is_written =
        |path: &String| [".md", ".proto", ".rs", ".toml"].iter().any(|ending| path.ends_with(ending));
    let is_ignored = |path: &String| is_written(path) && !tree().paths.contains(path);
    let ignored = from_disk(root()).into_iter().filter(is_ignored);
    let findings = ignored.map(|path| Finding::new(&path, 1, "is ignored by git, so that a clone lacks it"));
    expect_none(
        findings.collect(),
        "let .gitignore name the folder that is meant from its root, as `/target/`",
    );
}

#[test]
fn the_scan_sees_the_repository() {
    let seen = |path: &str| tree().paths.iter().any(|seen| seen == path);
    for path in ["Cargo.toml", "tests/tests/tidy.rs", "proto/model/src/lib.rs", ".gitignore"] {
        assert!(seen(path), "{path}");
    }
    assert!(!tree().paths.iter().any(|path| path.starts_with("target/")));
}

#[test]
fn a_module_for_tests_only_makes_its_file_a_test() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder can be made");
        fs::write(path, text).expect("a file can be written");
    };
    write("Cargo.toml", "[workspace]\n");
    write("a/src/store.rs", "#[cfg(test)]\nmod faults;\n");
    write("a/src/store/faults.rs", "");
    write("a/src/store/faults/disk.rs", "");
    write("a/src/store/log.rs", "");
    write("a/src/target/nginx.rs", "");
    write("target/debug/out.rs", "");
    let mut paths = from_disk(folder.path());
    paths.sort();
    let roles: Vec<_> =
        Tree::read(folder.path(), paths).sources.into_iter().map(|s| (s.path, s.role)).collect();
    let expected = [
        ("a/src/store.rs", Role::Library),
        ("a/src/store/faults.rs", Role::Test),
        ("a/src/store/faults/disk.rs", Role::Test),
        ("a/src/store/log.rs", Role::Library),
        ("a/src/target/nginx.rs", Role::Library),
    ];
    assert_eq!(roles, expected.map(|(path, role)| (path.to_owned(), role)));
}
