//! What is fuzzed is what is shipped: the fuzz targets are a workspace of their own, with a lock file of its own.

use std::collections::BTreeSet;

use crate::finding::{Finding, expect_none};
use crate::tree::tree;

const PRODUCT: &str = "Cargo.lock";
const FUZZ: &str = "tests/fuzz/Cargo.lock";

#[test]
fn fuzz_targets_lock_the_versions_of_the_product() {
    let text = |path: &str| {
        let file = tree().texts.iter().find(|file| file.path == path);
        file.map(|file| file.text.as_str()).expect("the lock file is there")
    };
    let findings = differences(text(PRODUCT), text(FUZZ));
    expect_none(
        findings,
        "cp Cargo.lock tests/fuzz/ && cargo update --workspace --manifest-path tests/fuzz/Cargo.toml",
    );
}

/// The packages that both lock files have, and not in the same version.
fn differences(product: &str, fuzz: &str) -> Vec<Finding> {
    let product: BTreeSet<_> = packages(product).map(|(_, name, version)| (name, version)).collect();
    let is_shipped = |name: &str| product.iter().any(|(shipped, _)| *shipped == name);
    packages(fuzz)
        .filter(|(_, name, version)| is_shipped(name) && !product.contains(&(*name, *version)))
        .map(|(line, name, version)| Finding::new(FUZZ, line, format!("{name} {version} is not shipped")))
        .collect()
}

/// Line, name and version of each package of a lock file.
fn packages(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    (1..lines.len()).filter_map(move |at| {
        let name = lines[at - 1].strip_prefix("name = ")?.trim_matches('"');
        Some((at, name, lines[at].strip_prefix("version = ")?.trim_matches('"')))
    })
}

#[cfg(test)]
mod tests {
    use super::differences;
    use crate::finding::Finding;

    #[test]
    fn a_package_in_another_version_is_found_and_one_that_is_not_shipped_is_not() {
        let package = |name: &str, version: &str| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n\n")
        };
        let product = package("a", "1.0.0") + &package("a", "2.0.0") + &package("b", "1.0.0");
        let fuzz = package("a", "2.0.0") + &package("b", "1.0.1") + &package("c", "1.0.0");
        let expected = [Finding::new("tests/fuzz/Cargo.lock", 6, "b 1.0.1 is not shipped")];
        assert_eq!(differences(&product, &fuzz), expected);
    }
}
