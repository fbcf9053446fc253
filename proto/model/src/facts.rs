//! Facts of a call: what parsers read in the arguments that an admin declared as SQL, paths, URLs or command lines.
//!
//! Always holds: facts of several arguments are those of all together, so that one harmless argument hides no other. They
//! are plain values: who reads them from texts, and who decides by them, is elsewhere.

use std::collections::BTreeSet;

/// What policies may know of a call's arguments beside their values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Of SQL.
    pub sql: Sql,
    /// Of paths.
    pub path: Paths,
    /// Of URLs.
    pub url: Urls,
    /// Of command lines.
    pub shell: Shell,
    /// Of all arguments, declared or not.
    pub size: Size,
}

/// What texts of SQL do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sql {
    /// Kinds of statements, such as `select`; `unknown` where a parser cannot tell.
    pub kinds: BTreeSet<String>,
    /// Tables, in lower case.
    pub tables: BTreeSet<String>,
    /// Functions, likewise.
    pub functions: BTreeSet<String>,
    /// How many statements.
    pub statements: usize,
}

/// Where paths lead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paths {
    /// Without `.`, `..` and doubled separators.
    pub normalised: BTreeSet<String>,
    /// Whether one begins at a root, a drive or a share.
    pub is_absolute: bool,
    /// Whether one leads above where it begins.
    pub escapes: bool,
    /// Whether one leads elsewhere once escapes are undone.
    pub is_disguised: bool,
}

/// Where URLs lead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Urls {
    /// In lower case; `unknown` for what is no URL.
    pub schemes: BTreeSet<String>,
    /// In lower case, addresses in their usual notation; `unknown` for what is no URL.
    pub hosts: BTreeSet<String>,
    /// Whether one leads to what is not public, or is no URL.
    pub is_private: bool,
}

/// What command lines have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shell {
    /// Words that name a command.
    pub commands: BTreeSet<String>,
    /// Words.
    pub words: BTreeSet<String>,
    /// What is more than words.
    pub metacharacters: BTreeSet<String>,
}

/// How large arguments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Bytes of all texts and of the names of all fields.
    pub bytes: usize,
    /// Bytes of the longest text.
    pub longest: usize,
    /// Values of all kinds.
    pub values: usize,
    /// Levels of lists and objects.
    pub depth: usize,
}
