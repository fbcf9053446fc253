//! Nothing in the repository depends on where it was written: no paths of one machine, no hosts of registries.
//!
//! Packages are named, and every machine fetches them from where it is told to. Patterns are written in two parts, so
//! that this file does not find itself.

use crate::finding::{Finding, expect_none};
use crate::tree::{Text, tree};

/// Folders that stand on one machine only.
const MACHINE_PATHS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// Hosts that packages are fetched from.
const REGISTRY_HOSTS: [&str; 11] = [
    concat!("archive.ubuntu", ".com"),
    concat!("deb.debian", ".org"),
    concat!("files.pythonhosted", ".org"),
    concat!("index.crates", ".io"),
    concat!("proxy.golang", ".org"),
    concat!("pypi", ".org"),
    concat!("registry.npmjs", ".org"),
    concat!("registry.npmmirror", ".com"),
    concat!("registry.yarnpkg", ".com"),
    concat!("security.debian", ".org"),
    concat!("static.crates", ".io"),
];

/// Options that tell an installer where to fetch from.
const REGISTRY_OPTIONS: [&str; 4] = ["--index-url", "--extra-index-url", "--find-links", "--registry"];

/// How Cargo names its own registry, whatever machine it fetches from.
const CARGO_REGISTRY: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

#[test]
fn no_file_names_a_path_of_one_machine() {
    let findings = tree().texts.iter().flat_map(machine_paths).collect();
    expect_none(findings, "name it relative to the repository, or take it from an option");
}

#[test]
fn no_file_says_where_packages_are_fetched_from() {
    let findings = tree().texts.iter().flat_map(registries).collect();
    expect_none(findings, "name package and version only");
}

#[test]
fn locked_packages_come_from_the_default_registry_of_each_machine() {
    let findings = tree().texts.iter().flat_map(locked_origins).collect();
    expect_none(
        findings,
        "for npm, lock with `--omit-lockfile-registry-resolved`; for Cargo, use a released version from crates.io",
    );
}

fn machine_paths(file: &Text) -> Vec<Finding> {
    lines_with(file, |line| MACHINE_PATHS.iter().any(|path| names_path(line, path)))
}

/// Whether a line holds a path that begins at the root, and not only one that has such a part.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && !"._-/}".contains(before))
    })
}

fn registries(file: &Text) -> Vec<Finding> {
    if file.path == "tests/tests/tidy/origins.rs" {
        return Vec::new();
    }
    lines_with(file, |line| {
        REGISTRY_HOSTS.iter().chain(&REGISTRY_OPTIONS).any(|pattern| line.contains(pattern))
    })
}

fn locked_origins(file: &Text) -> Vec<Finding> {
    match file.path.rsplit('/').next() {
        Some("package-lock.json" | "npm-shrinkwrap.json") => {
            lines_with(file, |line| line.contains("\"resolved\""))
        }
        Some("Cargo.lock") => {
            lines_with(file, |line| line.starts_with("source = ") && line.trim_end() != CARGO_REGISTRY)
        }
        _ => Vec::new(),
    }
}

fn lines_with(file: &Text, is_found: impl Fn(&str) -> bool) -> Vec<Finding> {
    let found = file.text.lines().enumerate().filter(|(_, line)| is_found(line));
    found.map(|(index, line)| Finding::new(&file.path, index + 1, shortened(line))).collect()
}

/// A line that fits into a message.
fn shortened(line: &str) -> String {
    const CHARACTERS_MAX: usize = 100;
    line.trim().chars().take(CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::{locked_origins, machine_paths, registries};
    use crate::tree::Text;

    fn file(path: &str, text: &str) -> Text {
        Text { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_path_is_found_where_it_begins_at_the_root_only() {
        let root = concat!("/wo", "rk/");
        let found = |text: String| machine_paths(&file("a.md", &text)).len();
        assert_eq!(found(format!("see {root}x and `{root}y`\nand \"{root}z\"\n")), 2);
        assert_eq!(found(format!("{root}x")), 1);
        assert_eq!(found(format!("src{root}x ..{root}y ${{home}}{root}z")), 0);
    }

    #[test]
    fn hosts_and_options_of_registries_are_found() {
        let host = concat!("pypi", ".org");
        let text = format!("a==1\nhttps://{host}/simple\n{} x\n", super::REGISTRY_OPTIONS[0]);
        let found: Vec<_> =
            registries(&file("requirements.txt", &text)).iter().map(|found| found.line).collect();
        assert_eq!(found, [2, 3]);
    }

    #[test]
    fn a_lock_file_names_no_host() {
        let cargo = format!("{}\nsource = \"git+https://a\"\n", super::CARGO_REGISTRY);
        let lines = |path: &str, text: &str| -> Vec<usize> {
            locked_origins(&file(path, text)).iter().map(|found| found.line).collect()
        };
        assert_eq!(lines("Cargo.lock", &cargo), [2]);
        assert_eq!(lines("a/package-lock.json", "{\n\"resolved\": \"x\"\n}"), [2]);
        assert_eq!(lines("a/package.json", "{\n\"resolved\": \"x\"\n}"), Vec::<usize>::new());
    }
}
