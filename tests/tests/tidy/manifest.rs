//! What a `Cargo.toml` says, as far as the rules need it: which key of which section has which value, and where.
//!
//! It reads the TOML that is written here by hand: keys bare or quoted, values on one line or in brackets over
//! several. Multi-line strings are absent.

/// A `Cargo.toml`.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// The file, seen from the root of the repository.
    pub(crate) path: String,
    pub(crate) entries: Vec<Entry>,
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) section: String,
    pub(crate) key: String,
    pub(crate) value: String,
    /// The line of the key, counted from one.
    pub(crate) line: usize,
}

/// When a dependency is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// By the crate itself, or to build it.
    Code,
    /// By its tests, examples and benches only.
    Tests,
}

/// A crate that another one names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) used_by: Use,
    pub(crate) is_inherited: bool,
    pub(crate) line: usize,
}

impl Manifest {
    pub(crate) fn new(path: &str, text: &str) -> Manifest {
        let mut entries = Vec::new();
        let mut section = String::new();
        let mut lines = text.lines().map(without_comment).enumerate();
        while let Some((index, line)) = lines.next() {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']).to_owned();
            } else if let Some((key, value)) = line.split_once('=') {
                let mut value = value.trim().to_owned();
                while depth(&value) > 0 {
                    let Some((_, next)) = lines.next() else { break };
                    value.push_str(next);
                }
                let key = key.trim().replace('"', "");
                entries.push(Entry { section: section.clone(), key, value, line: index + 1 });
            }
        }
        Manifest { path: path.to_owned(), entries }
    }

    /// The value of a key; `None` if it is not there.
    pub(crate) fn value(&self, section: &str, key: &str) -> Option<&str> {
        let found = self.entries.iter().find(|entry| entry.section == section && entry.key == key)?;
        Some(&found.value)
    }

    /// The name of its package; empty if it has none.
    pub(crate) fn package(&self) -> &str {
        self.value("package", "name").unwrap_or_default().trim_matches('"')
    }

    /// Every crate that it names, once for each line that says something of it.
    pub(crate) fn dependencies(&self) -> Vec<Dependency> {
        self.entries.iter().filter_map(dependency).collect()
    }
}

fn dependency(entry: &Entry) -> Option<Dependency> {
    let (used_by, table) = dependency_section(&entry.section)?;
    let (name, rest) = match table {
        "" => entry.key.split_once('.').unwrap_or((&entry.key, "")),
        name => (name, entry.key.as_str()),
    };
    let value: String = entry.value.split_whitespace().collect();
    let is_inherited = match rest {
        "" => value.contains("workspace=true") && !value.contains("package="),
        "features" | "optional" => true,
        rest => rest == "workspace" && value == "true",
    };
    Some(Dependency { name: name.to_owned(), used_by, is_inherited, line: entry.line })
}

/// Who uses the crates of a section, and the crate that all of the section is about, if it is about one.
fn dependency_section(section: &str) -> Option<(Use, &str)> {
    let mut parts = section.split('.').skip_while(|part| !part.ends_with("dependencies"));
    let used_by = match parts.next()? {
        "dependencies" | "build-dependencies" => Use::Code,
        "dev-dependencies" => Use::Tests,
        _ => return None,
    };
    // The workspace's own table only says which versions there are.
    (!section.starts_with("workspace.")).then(|| (used_by, parts.next().unwrap_or("")))
}

/// How many brackets of a value are still open.
fn depth(value: &str) -> usize {
    let count = |brackets: [char; 2]| outside_of_strings(value).filter(|(_, c)| brackets.contains(c)).count();
    count(['[', '{']).saturating_sub(count([']', '}']))
}

fn without_comment(line: &str) -> &str {
    let end = outside_of_strings(line).find(|(_, c)| *c == '#').map_or(line.len(), |(at, _)| at);
    line[..end].trim()
}

fn outside_of_strings(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quote = None;
    text.char_indices().filter(move |(_, c)| {
        match quote {
            Some(open) if open == *c => quote = None,
            None if matches!(c, '"' | '\'') => quote = Some(*c),
            _ => return quote.is_none(),
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::{Dependency, Entry, Manifest, Use};

    #[test]
    fn entries_keep_their_section_and_line() {
        let text = "[package] # x\nname = \"a#b\" # y\n\nversion.workspace = true\n[workspace]\nmembers = [\n  \"x]\", # z\n  \"y\",\n]\nlast = 1\n";
        let entry = |section: &str, key: &str, value: &str, line| Entry {
            section: section.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
            line,
        };
        let expected = [
            entry("package", "name", "\"a#b\"", 2),
            entry("package", "version.workspace", "true", 4),
            entry("workspace", "members", "[\"x]\",\"y\",]", 6),
            entry("workspace", "last", "1", 10),
        ];
        assert_eq!(Manifest::new("Cargo.toml", text).entries, expected);
        assert_eq!(Manifest::new("Cargo.toml", text).package(), "a#b");
    }

    #[test]
    fn dependencies_are_found_in_every_form() {
        let text = "[dependencies]\na.workspace = true\nb = { workspace = true, features = [\"x\"] }\nc = \"1\"\n\
                    [dev-dependencies]\nd = { workspace = true, package = \"sled\" }\n\
                    [build-dependencies]\ne.workspace = true\n\
                    [target.'cfg(target_os = \"linux\")'.dependencies]\nf.workspace = true\n\
                    [dependencies.g]\nworkspace = true\nfeatures = [\"x\"]\n[features]\nh = []\n";
        let dependency = |name: &str, used_by, is_inherited, line| Dependency {
            name: name.to_owned(),
            used_by,
            is_inherited,
            line,
        };
        let expected = [
            dependency("a", Use::Code, true, 2),
            dependency("b", Use::Code, true, 3),
            dependency("c", Use::Code, false, 4),
            dependency("d", Use::Tests, false, 6),
            dependency("e", Use::Code, true, 8),
            dependency("f", Use::Code, true, 10),
            dependency("g", Use::Code, true, 12),
            dependency("g", Use::Code, true, 13),
        ];
        assert_eq!(Manifest::new("Cargo.toml", text).dependencies(), expected);
    }
}
