//! Places where secrets are kept, in sentences that have a model read them.
//!
//! Always holds: a place that is only named passes (`defaults to ~/.ssh/id_rsa`), and so does a description of what a
//! tool does itself (`reads`, `loads`), and a path that is asked for.

use std::ops::Range;

use super::fold::Folded;

/// What it is told as.
pub(super) const READ: &str = "reading of secrets";
/// Words between the verb and the place.
const WORDS_MAX: usize = 12;

const PLACES: [&str; 22] = [
    "~/.ssh",
    "/.ssh/id_",
    "id_rsa",
    "id_ed25519",
    "id_ecdsa",
    ".aws/credentials",
    ".config/gcloud",
    ".azure/",
    ".kube/config",
    ".docker/config.json",
    ".git-credentials",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".gnupg",
    "/etc/shadow",
    "/etc/passwd",
    "/proc/self/environ",
    ".cursor/mcp.json",
    "claude_desktop_config.json",
    ".claude.json",
    ".env file",
];

/// Behind a place, what makes it one without secrets.
const HARMLESS: [&str; 4] = ["/config", "/known_hosts", "/authorized_keys", ".pub"];

const VERBS: &str = "read|open|cat|load|include|send|pass|copy|attach|fetch|access|print|dump|upload|insert|append|\
                     paste|exfiltrate|content|contents|lies|lese|lis|lisez|lee|leia|leggi";

/// Who is told to give a path reads nothing.
const HARMLESS_WORDS: [&str; 6] = ["path", "paths", "default", "defaults", "public", "location"];

/// Where a text has a place of secrets read.
pub(super) fn read(folded: &Folded) -> Option<Range<usize>> {
    let text = folded.text.as_str();
    // All of them have one of these, and few texts have any.
    memchr::memchr2(b'/', b'.', text.as_bytes()).or_else(|| text.find("id_"))?;
    let mut words = None;
    PLACES.iter().find_map(|place| {
        text.match_indices(place).find_map(|(at, _)| {
            let behind = &text[at + place.len()..];
            if HARMLESS.iter().any(|harmless| behind.starts_with(harmless)) {
                return None;
            }
            let words = words.get_or_insert_with(|| folded.words());
            let before = words.partition_point(|word| word.start < at);
            let sentence = words.get(before).or(words.last())?.sentence;
            let mut start = None;
            for word in words[..before].iter().rev().take(WORDS_MAX) {
                let said = &text[word.start..word.end];
                if word.sentence != sentence || HARMLESS_WORDS.contains(&said) {
                    break;
                }
                if VERBS.split('|').any(|verb| verb == said) {
                    start = Some(word.start);
                    break;
                }
            }
            start.map(|start| start..at + place.len())
        })
    })
}
