//! Keys and tokens of well-known formats.
//!
//! Always holds: a key stands at the beginning of a word, so a text is compared with prefixes at its words only; what
//! follows a prefix must have the length and the letters of that format, and digits where words have none. It does not
//! know keys without a format: any 32 hexadecimal digits may be one, or a hash.

mod forms;

use std::ops::Range;

use forms::{FORMS, Form, Tail};

/// Bytes in which a prefix has to prove to be of a key: no format needs more, and a text of prefixes only is not read
/// more often than that.
const PROOF_BYTES_MAX: usize = 512;
/// Longest private key in bytes.
const PEM_BYTES_MAX: usize = 16 * 1024;

/// A key in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Where it stands, in bytes.
    pub range: Range<usize>,
    /// Whose format it has.
    pub what: &'static str,
}

/// Says whose format the first has, or that a URL has a password.
pub(crate) fn first(text: &str) -> Option<&'static str> {
    let bytes = text.as_bytes();
    prefixed(bytes, 0).or_else(|| password_in_url(bytes, 0)).map(|secret| secret.what)
}

/// All keys in a text, and all passwords in URLs; each kind in order.
pub fn all(text: &str, found: &mut dyn FnMut(Secret)) {
    for next in [prefixed, password_in_url] {
        let mut at = 0;
        while let Some(secret) = next(text.as_bytes(), at) {
            at = secret.range.end;
            found(secret);
        }
    }
}

/// Which first three letters prefixes have, by [`slot`]: few words of a text begin like any.
const BEGINS: [bool; SLOTS] = {
    let mut begins = [false; SLOTS];
    let mut index = 0;
    while index < FORMS.len() {
        let prefix = FORMS[index].prefix.as_bytes();
        begins[slot(prefix[0], prefix[1], prefix[2])] = true;
        index += 1;
    }
    begins
};
const SLOTS: usize = 4_096;

const fn slot(first: u8, second: u8, third: u8) -> usize {
    (first as usize * 961 + second as usize * 31 + third as usize) % SLOTS
}

fn prefixed(bytes: &[u8], from: usize) -> Option<Secret> {
    let mut is_in_word =
        from.checked_sub(1).and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_alphanumeric);
    for (offset, three) in bytes.get(from..)?.windows(3).enumerate() {
        if !is_in_word
            && BEGINS[slot(three[0], three[1], three[2])]
            && let Some(secret) = at_word(bytes, from + offset)
        {
            return Some(secret);
        }
        is_in_word = three[0].is_ascii_alphanumeric();
    }
    None
}

fn at_word(bytes: &[u8], at: usize) -> Option<Secret> {
    let rest = bytes.get(at..)?;
    FORMS.iter().filter(|form| rest.starts_with(form.prefix.as_bytes())).find_map(|form| {
        let tail = rest.get(form.prefix.len()..)?;
        let length = form.prefix.len() + form.tail_length(tail)?;
        Some(Secret { range: at..at + length, what: form.what })
    })
}

impl Form {
    /// How long what follows the prefix is; `None`: it is not of this format.
    fn tail_length(&self, whole: &[u8]) -> Option<usize> {
        let rest = whole.get(..PROOF_BYTES_MAX.min(whole.len()))?;
        match self.tail {
            Tail::Exactly(letters, length) => {
                let found = run(rest, letters.test());
                (found == length).then_some(length)
            }
            Tail::AtLeast(letters, least) => {
                let found = run(rest, letters.test());
                (found >= least && is_drawn(rest.get(..found)?)).then(|| run(whole, letters.test()))
            }
            Tail::Parts(letters, lengths, separator) => parts(rest, letters.test(), lengths, separator),
            Tail::Sk => sk(rest).then(|| run(whole, is_url_letter)),
            Tail::Jwt => jwt(whole),
            Tail::Pem => pem(whole.get(..PEM_BYTES_MAX.min(whole.len()))?),
            Tail::Credentials => credentials(rest).then(|| run(whole, is_credential)),
        }
    }
}

fn run(bytes: &[u8], is_letter: fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| !is_letter(*byte)).unwrap_or(bytes.len())
}

/// Whether letters are drawn, not written: words joined by hyphens have no digits among their letters.
fn is_random(letters: &[u8]) -> bool {
    letters.iter().any(u8::is_ascii_digit) && letters.iter().any(u8::is_ascii_alphabetic)
}

/// The same where the prefix says enough: letters of both cases are drawn as well.
fn is_drawn(letters: &[u8]) -> bool {
    let is_mixed = letters.iter().any(u8::is_ascii_uppercase) && letters.iter().any(u8::is_ascii_lowercase);
    is_mixed || is_random(letters)
}

fn parts(rest: &[u8], is_letter: fn(u8) -> bool, lengths: &[usize], separator: u8) -> Option<usize> {
    let mut at = 0;
    for (index, length) in lengths.iter().enumerate() {
        if index > 0 {
            (rest.get(at) == Some(&separator)).then_some(())?;
            at += 1;
        }
        (run(rest.get(at..)?, is_letter) == *length).then_some(())?;
        at += length;
    }
    Some(at)
}

/// OpenAI's, Anthropic's and those of who followed them: a name of the kind perhaps, then at least 20 drawn letters
/// without a break, or a break now and then where the kind says that it is one.
fn sk(rest: &[u8]) -> bool {
    let body = rest.get(..run(rest, is_url_letter)).unwrap_or_default();
    let is_named = [&b"ant-"[..], b"proj-", b"svcacct-", b"admin-", b"or-v1-", b"lf-"];
    let is_named = is_named.iter().any(|kind| body.starts_with(kind)) && body.len() >= 24;
    let has_drawn_word =
        || body.split(|byte| matches!(byte, b'-' | b'_')).any(|word| word.len() >= 20 && is_random(word));
    (is_named && is_random(body)) || has_drawn_word()
}

/// The rest of a token behind `eyJ`: the end of a header, claims that are an object too, and a signature.
fn jwt(rest: &[u8]) -> Option<usize> {
    let header = run(rest.get(..PROOF_BYTES_MAX.min(rest.len()))?, is_url_letter);
    let claims = rest.get(header..)?.strip_prefix(b".")?;
    let claims_length = claims.starts_with(b"eyJ").then(|| run(claims, is_url_letter))?;
    let signature = claims.get(claims_length..)?.strip_prefix(b".")?;
    (header >= 8 && claims_length >= 8).then(|| header + claims_length + 2 + run(signature, is_url_letter))
}

/// Up to the last line of the key, or as far as it goes.
fn pem(rest: &[u8]) -> Option<usize> {
    /// Longest name of a kind of key, such as `ENCRYPTED `.
    const KIND_BYTES_MAX: usize = 24;
    let line = rest.get(..(KIND_BYTES_MAX + 16).min(rest.len()))?;
    let kind = memchr::memmem::find(line, b"PRIVATE KEY")?;
    line.get(..kind)?.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b' ').then_some(())?;
    let end = memchr::memmem::find(rest, b"-----END ").and_then(|end| {
        let close = memchr::memmem::find(rest.get(end + 9..)?, b"-----")?;
        Some(end + 9 + close + 5)
    });
    Some(end.unwrap_or(rest.len()))
}

/// What an `Authorization` header has behind its scheme.
fn credentials(rest: &[u8]) -> bool {
    const LEAST: usize = 20;
    let body = rest.get(..run(rest, is_credential)).unwrap_or_default();
    // A path is none, nor are words.
    body.len() >= LEAST && is_random(body) && !body.contains(&b'/')
}

fn is_credential(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

fn is_url_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// What stands where a password would, in examples.
const PLACEHOLDERS: [&str; 12] = [
    "changeme",
    "example",
    "mypassword",
    "pass",
    "passwd",
    "password",
    "pw",
    "pwd",
    "redacted",
    "secret",
    "xxx",
    "your_password",
];

/// `scheme://user:password@host`.
fn password_in_url(bytes: &[u8], from: usize) -> Option<Secret> {
    /// Longest user and password.
    const BYTES_MAX: usize = 256;
    memchr::memmem::find_iter(bytes.get(from..)?, b"://").find_map(|offset| {
        let begin = from + offset + 3;
        let rest = bytes.get(begin..bytes.len().min(begin + BYTES_MAX))?;
        let end = rest.iter().position(|byte| b"/@ \t\r\n\"'<>?#`\\".contains(byte))?;
        (rest[end] == b'@').then_some(())?;
        let colon = memchr::memchr(b':', rest.get(..end)?)?;
        let password = rest.get(colon + 1..end)?;
        let is_variable = password.first().is_none_or(|byte| b"$<{*[%".contains(byte));
        let is_said = |said: &&str| password.eq_ignore_ascii_case(said.as_bytes());
        (!is_variable && !PLACEHOLDERS.iter().any(is_said)).then_some(())?;
        let scheme = bytes
            .get(from..from + offset)?
            .iter()
            .rev()
            .take(16)
            .take_while(|byte| is_scheme(**byte))
            .count();
        Some(Secret { range: from + offset - scheme..begin + end + 1, what: "password in a URL" })
    })
}

fn is_scheme(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(text: &str) -> Vec<(&str, &'static str)> {
        let mut found = Vec::new();
        all(text, &mut |secret| found.push((&text[secret.range], secret.what)));
        found
    }

    #[test]
    fn keys_are_found_with_their_whole_length() {
        let (hex, word) = ("0123456789abcdef".repeat(4), "Ab3".repeat(20));
        for (before, key, after, what) in [
            ("key ", "AKIAIOSFODNN7EXAMPLE".to_owned(), " here", "key of AWS"),
            ("", format!("gantry_0123456789abcdef_{hex}"), "", "key of Gantry"),
            ("t=", format!("ghp_{}", &word[..36]), "\n", "token of GitHub"),
            ("(", format!("glpat-{}", &word[..20]), ")", "token of GitLab"),
            ("x ", format!("sk-{}", &word[..48]), ".", "key of a model's provider"),
            ("x ", "sk-ant-api03-abc_def-0123456789-ABCDEF".to_owned(), ".", "key of a model's provider"),
            ("\"", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc".to_owned(), "\"", "JSON Web Token"),
            ("Authorization: ", "Bearer abcdefghijklmnop12345".to_owned(), "", "authorization"),
            ("see ", "postgres://bob:hunter2@".to_owned(), "db/x", "password in a URL"),
            ("k ", format!("SG.{}.{}", &word[..22], &word[..43]), " ", "key of SendGrid"),
            (
                "a\n",
                "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----".to_owned(),
                "\nb",
                "private key",
            ),
        ] {
            let text = format!("{before}{key}{after}");
            assert_eq!(every(&text), [(key.as_str(), what)], "{text}");
            assert_eq!(first(&text), Some(what), "{text}");
        }
    }

    #[test]
    fn what_only_begins_like_a_key_is_none() {
        for text in [
            "task-sk-learn-for-beginners-and-others",
            "sk-learn-pipeline-and-model-version2",
            "AKIA is how they begin",
            "AKIAIOSFODNN7EXAMPLELONGER",
            "xAKIAIOSFODNN7EXAMPLE",
            "bearer of bad news-from-1999",
            "Basic understanding of things",
            "eyJ is how tokens begin. eyJ.",
            "-----BEGIN CERTIFICATE-----",
            "-----BEGIN PUBLIC KEY-----",
            "https://example.com:8080/@ann",
            "postgres://user:password@localhost/db",
            "postgres://user:${PASSWORD}@localhost/db",
            "https://ann@example.com/",
            "ghp_short",
        ] {
            assert_eq!(every(text), [], "{text}");
            assert_eq!(first(text), None, "{text}");
        }
    }

    #[test]
    fn all_keys_of_a_text_are_found_and_then_all_passwords() {
        let text = "https://a:b4@c AKIAIOSFODNN7EXAMPLE AKIAIOSFODNN7EXAMPL2 https://d:e4@f";
        let found: Vec<_> = every(text).into_iter().map(|(key, _)| key).collect();
        assert_eq!(found, ["AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPL2", "https://a:b4@", "https://d:e4@"]);
    }

    #[test]
    fn a_text_of_beginnings_costs_little_more_than_its_length() {
        for part in [
            "eyJ-",
            "eyJaaaaaaaa.",
            "xoxa-",
            "sk-",
            "://a:b",
            "://a:b4@c",
            "-----BEGIN ",
            "-----BEGIN PRIVATE KEY",
            "Bearer ",
            "ghp_",
        ] {
            let text = part.repeat(1_000_000 / part.len());
            let began = std::time::Instant::now();
            all(&text, &mut |_| {});
            assert!(began.elapsed().as_secs() < 20, "{part}: {:?}", began.elapsed());
        }
    }
}
