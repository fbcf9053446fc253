//! The text of a policy: its tokens, where its entity literals, ids and slots stand, and whether it is shallow enough.
//!
//! Always holds: a scan never fails, needs memory in proportion to the text, and does not recurse, so it is safe on
//! any text. It does not judge syntax: Cedar does. Cedar's values carry no positions, hence this second look.

use std::borrow::Cow;

/// Deepest nesting of brackets and `if` in a statement. Cedar's parser and validator recurse without a check, and one
/// level took up to 57 KiB of stack (debug build, measured), so this many fit into half of a 2 MiB thread.
pub(crate) const NESTING_MAX: usize = 16;
/// Most operators in a statement. A chain such as `a || b || c` nests one level per operator; the evaluator took
/// 4.3 KiB for a level (release build, measured), so this many fit into a 2 MiB thread with half of it to spare.
pub(crate) const OPERATORS_MAX: usize = 256;

/// An entity as it is written: `Type::"id"`.
pub(crate) struct Literal<'a> {
    pub(crate) type_name: &'a str,
    pub(crate) id: Cow<'a, str>,
    /// Where it begins, in bytes.
    pub(crate) offset: usize,
}

/// What a scan found.
#[derive(Default)]
pub(crate) struct Source<'a> {
    pub(crate) literals: Vec<Literal<'a>>,
    /// Offsets of `?principal` and `?resource`.
    pub(crate) slots: Vec<usize>,
    /// Offsets of the `@id` annotations.
    pub(crate) ids: Vec<usize>,
    /// Offsets of the `permit` and `forbid` with which statements begin, in their order.
    pub(crate) effects: Vec<usize>,
    /// The first place that breaks a bound.
    pub(crate) excess: Option<Excess>,
}

/// A statement that is not shallow enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    Nesting { offset: usize },
    Operators { offset: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token<'a> {
    text: &'a str,
    offset: usize,
}

struct Tokens<'a> {
    source: &'a str,
    offset: usize,
}

/// The nesting of a statement so far.
#[derive(Default)]
struct Shape {
    /// For each open bracket, and for the statement itself, the `if`s that are open in it.
    open: Vec<usize>,
    ifs: usize,
    operators: usize,
}

impl<'a> Source<'a> {
    /// Scans a text.
    pub(crate) fn scan(text: &'a str) -> Source<'a> {
        let mut source = Source::default();
        let mut shape = Shape::default();
        let (mut before_last, mut last) = (None::<Token<'_>>, None::<Token<'_>>);
        for token in (Tokens { source: text, offset: 0 }) {
            source.note(before_last, last, token);
            if source.excess.is_none() {
                source.excess = shape.excess(token);
            }
            (before_last, last) = (last, Some(token));
        }
        source
    }

    fn note(&mut self, before_last: Option<Token<'a>>, last: Option<Token<'a>>, token: Token<'a>) {
        let Some(last) = last else { return };
        // A method or a function of that name follows a dot or an operator, and neither ends a statement or annotation.
        let begins = before_last.is_none_or(|before| {
            matches!(before.text, ";" | ")")
                || (before.is_word() && !matches!(before.text, "in" | "has" | "is"))
        });
        if token.text == "(" && matches!(last.text, "permit" | "forbid") && begins {
            self.effects.push(last.offset);
        }
        if token.text.starts_with('?') {
            self.slots.push(token.offset);
        }
        if token.text == "id" && last.text == "@" {
            self.ids.push(last.offset);
        }
        let Some(name) = before_last else { return };
        if last.text == "::" && token.is_text() && name.is_word() {
            let id = unquote(token.text);
            self.literals.push(Literal { type_name: name.text, id, offset: name.offset });
        }
    }
}

impl Shape {
    /// Takes the next token; tells of it when it breaks a bound.
    fn excess(&mut self, token: Token<'_>) -> Option<Excess> {
        let offset = token.offset;
        match token.text {
            // A semicolon ends a statement at any depth: inside brackets it is a syntax error, from which Cedar's
            // parser goes on with the next statement.
            ";" => *self = Shape::default(),
            "(" | "[" | "{" => {
                self.open.push(std::mem::take(&mut self.ifs));
                self.operators += usize::from(token.text == "[");
            }
            ")" | "]" | "}" => self.ifs = self.open.pop().unwrap_or(0),
            "," => self.ifs = 0,
            "if" => self.ifs += 1,
            "&&" | "||" | "+" | "-" | "*" | "/" | "%" | "!" | "." | "when" | "unless" => self.operators += 1,
            _ => {}
        }
        if self.open.len() + self.open.iter().sum::<usize>() + self.ifs > NESTING_MAX {
            return Some(Excess::Nesting { offset });
        }
        (self.operators > OPERATORS_MAX).then_some(Excess::Operators { offset })
    }
}

impl Token<'_> {
    fn is_text(self) -> bool {
        self.text.starts_with('"')
    }

    fn is_word(self) -> bool {
        self.text.starts_with(is_word_start)
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let rest = self.source.get(self.offset..)?;
            let blank = rest.len() - rest.trim_start().len();
            let comment = if rest[blank..].starts_with("//") {
                rest[blank..].find(['\n', '\r']).unwrap_or(rest.len() - blank)
            } else {
                0
            };
            if blank + comment == 0 {
                break;
            }
            self.offset += blank + comment;
        }
        let rest = &self.source[self.offset..];
        let text = &rest[..token_bytes(rest)?];
        let token = Token { text, offset: self.offset };
        self.offset += text.len();
        Some(token)
    }
}

/// Bytes of the token at the beginning of a text; `None` where nothing is left.
fn token_bytes(rest: &str) -> Option<usize> {
    let first = rest.chars().next()?;
    let word_bytes = |text: &str| text.find(|c: char| !is_word_start(c) && !c.is_ascii_digit());
    Some(match first {
        '"' => text_bytes(rest),
        '?' => 1 + word_bytes(&rest[1..]).unwrap_or(rest.len() - 1),
        _ if is_word_start(first) => word_bytes(rest).unwrap_or(rest.len()),
        _ if ["::", "&&", "||", "!="].iter().any(|mark| rest.starts_with(mark)) => 2,
        _ => first.len_utf8(),
    })
}

/// Bytes of a quoted text with its quotes; all of the rest when it is not closed.
fn text_bytes(rest: &str) -> usize {
    let mut escaped = false;
    for (index, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    rest.len()
}

fn is_word_start(character: char) -> bool {
    character == '_' || character.is_ascii_alphabetic()
}

/// What a quoted text says: Cedar's escapes are those of a Rust string. Others stay as they are; Cedar refuses them.
fn unquote(quoted: &str) -> Cow<'_, str> {
    let inner = quoted.strip_prefix('"').unwrap_or(quoted);
    let mut rest = inner.strip_suffix('"').unwrap_or(inner);
    if !rest.contains('\\') {
        return Cow::Borrowed(rest);
    }
    let mut said = String::with_capacity(rest.len());
    while let Some(at) = rest.find('\\') {
        said.push_str(&rest[..at]);
        let (character, bytes) = escaped(&rest[at + 1..]).unwrap_or(('\\', 0));
        said.push(character);
        rest = &rest[at + 1 + bytes..];
    }
    said.push_str(rest);
    Cow::Owned(said)
}

/// The character that an escape stands for, and the bytes of the escape after its backslash.
fn escaped(rest: &str) -> Option<(char, usize)> {
    let code = |digits: &str| u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
    Some(match rest.chars().next()? {
        'n' => ('\n', 1),
        'r' => ('\r', 1),
        't' => ('\t', 1),
        '0' => ('\0', 1),
        character @ ('\\' | '"' | '\'') => (character, 1),
        'x' => (code(rest.get(1..3)?)?, 3),
        'u' => {
            let digits = rest.strip_prefix("u{")?.split_once('}')?.0;
            (code(&digits.replace('_', ""))?, digits.len() + 3)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literals(text: &str) -> Vec<(String, String, usize)> {
        let of =
            |literal: &Literal<'_>| (literal.type_name.to_owned(), literal.id.to_string(), literal.offset);
        Source::scan(text).literals.iter().map(of).collect()
    }

    fn statement(condition: &str) -> String {
        format!("permit(principal, action, resource) when {{ {condition} }};")
    }

    #[test]
    fn literals_are_found_where_cedar_finds_them_and_nowhere_else() {
        let text = "// Tool::\"comment\"\n@note(\"Tool::\\\"text\\\"\") permit(principal == Agent::\"a\", \
            action, resource) when { [Tool ::\n \"f/x\\\"y\"].contains(resource) && \"//\" != \"\" \
            && resource in Server::\"s\"};";
        let found = literals(text);
        let expected =
            [("Agent", "a", "Agent::"), ("Tool", "f/x\"y", "Tool ::"), ("Server", "s", "Server::")];
        let expected = expected.map(|(name, id, written)| {
            (name.to_owned(), id.to_owned(), text.find(written).expect("it is written so"))
        });
        assert_eq!(found, expected);
        let set: cedar_policy::PolicySet = text.parse().expect("the text is Cedar");
        let cedar: std::collections::BTreeSet<_> = set.policies().flat_map(|p| p.entity_literals()).collect();
        let cedar: Vec<_> = cedar.iter().map(|uid| uid.id().unescaped().to_owned()).collect();
        assert_eq!(cedar, ["a", "s", "f/x\"y"]); // in the order of their types
    }

    #[test]
    fn escapes_say_what_they_say_to_cedar() {
        for id in [r#"\n\r\t\0\\\"\'"#, r"\x41\x7f/\u{e9}\u{1F600}", r"a\u{0_0_2_f}b", "\\\"", "é"] {
            let text = format!("permit(principal == Agent::\"{id}\", action, resource);");
            let set: cedar_policy::PolicySet = text.parse().expect("the text is Cedar");
            let cedar = set.policies().flat_map(|policy| policy.entity_literals()).next();
            let cedar = cedar.expect("there is a literal").id().unescaped().to_owned();
            assert_eq!(literals(&text), [("Agent".to_owned(), cedar, 20)], "{id}");
        }
    }

    #[test]
    fn a_text_that_is_no_policy_is_scanned_to_its_end() {
        for text in [
            "",
            "\"",
            "\"\\",
            "?",
            "Tool::\"",
            "Tool::",
            "//",
            "é::\"x\"",
            "::\"x\"",
            "\u{2028}\\",
            "T::\"\\",
            "T::\"\\xé\"",
            "T::\"\\u{\"",
            "T::\"\\u{110000}\\q\"",
        ] {
            assert!(Source::scan(text).slots.len() <= 1, "{text}");
        }
    }

    #[test]
    fn nesting_is_counted_by_bracket_and_by_if_within_its_bracket() {
        let excess = |condition: &str| Source::scan(&statement(condition)).excess;
        let depth = NESTING_MAX - 1; // the braces of `when` are the first level
        assert_eq!(excess(&format!("{}true{}", "(".repeat(depth), ")".repeat(depth))), None);
        let deep = format!("{}true", "(".repeat(depth + 1));
        assert_eq!(excess(&deep), Some(Excess::Nesting { offset: 43 + depth }));
        assert_eq!(excess(&format!("{}true", "if a then b else ".repeat(depth))), None);
        let deep = format!("{}true", "if a then b else ".repeat(depth + 1));
        assert_eq!(excess(&deep), Some(Excess::Nesting { offset: 43 + 17 * depth }));
        let beside = vec!["(if a then b else c)"; 60].join(" && ");
        assert_eq!(excess(&beside), None);
    }

    #[test]
    fn operators_are_counted_by_statement() {
        let chain = |terms: usize| statement(&vec!["a"; terms].join("||"));
        assert_eq!(Source::scan(&chain(OPERATORS_MAX).repeat(3)).excess, None);
        let long = Source::scan(&chain(OPERATORS_MAX + 1)).excess;
        assert_eq!(long, Some(Excess::Operators { offset: 43 + 3 * (OPERATORS_MAX - 1) + 1 }));
    }
}
