//! The words of inspection: what is looked for in arguments and in answers, and what becomes of what is found.
//!
//! Always holds: the order of a `match` over these is the order in which they are told. How each looks is no concern of
//! this crate.

use serde::{Deserialize, Serialize};

/// What is looked for in the arguments of a call, and in the definitions of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Metacharacters of a shell, in what is said to be of a command line.
    Shell,
    /// A path that leaves where it begins, and one that is written so that this is not seen.
    Traversal,
    /// A second statement behind the first, in what is said to be SQL.
    Sql,
    /// A URL of what only the server's own network reaches.
    Ssrf,
    /// Keys and tokens of well-known formats.
    Secrets,
    /// Characters that nobody sees, and that turn the direction of others.
    Unicode,
    /// Size, number and depth.
    Limits,
    /// What servers say of their tools to models alone: of definitions, not of calls.
    Definitions,
}

impl Filter {
    /// How many there are.
    pub const COUNT: usize = 8;
    /// All of them.
    pub const ALL: [Filter; Filter::COUNT] = [
        Filter::Shell,
        Filter::Traversal,
        Filter::Sql,
        Filter::Ssrf,
        Filter::Secrets,
        Filter::Unicode,
        Filter::Limits,
        Filter::Definitions,
    ];
    /// Those that look at calls.
    pub const OF_CALLS: [Filter; Filter::COUNT - 1] = [
        Filter::Shell,
        Filter::Traversal,
        Filter::Sql,
        Filter::Ssrf,
        Filter::Secrets,
        Filter::Unicode,
        Filter::Limits,
    ];

    /// The word for it, as in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Filter::Shell => "shell",
            Filter::Traversal => "traversal",
            Filter::Sql => "sql",
            Filter::Ssrf => "ssrf",
            Filter::Secrets => "secrets",
            Filter::Unicode => "unicode",
            Filter::Limits => "limits",
            Filter::Definitions => "definitions",
        }
    }
}

/// What becomes of a call in which a filter finds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing is looked for.
    Off,
    /// It passes, and its record says what was found.
    Report,
    /// It is refused.
    Block,
}

/// What an argument is made of, as an admin declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A statement of SQL.
    Sql,
    /// A path of files.
    Path,
    /// A URL that the tool goes to.
    Url,
    /// A command line, or a part of one.
    Shell,
}

impl Form {
    /// The word for it, as in documents and in what policies read of it (`context.facts`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Form::Sql => "sql",
            Form::Path => "path",
            Form::Url => "url",
            Form::Shell => "shell",
        }
    }
}

/// What is looked for in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Detector {
    /// Keys and tokens of well-known formats.
    Keys,
    /// Addresses of mail.
    Emails,
    /// Numbers of payment cards, by their check digit.
    Cards,
    /// Numbers of bank accounts, by their check digits.
    Ibans,
}

impl Detector {
    /// The word for it, as in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Detector::Keys => "keys",
            Detector::Emails => "emails",
            Detector::Cards => "cards",
            Detector::Ibans => "ibans",
        }
    }
}
