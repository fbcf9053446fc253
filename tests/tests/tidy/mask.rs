//! Rust source without what is not code.
//!
//! Always holds: the masked text has the same bytes at the same offsets as the source, except that comments and the
//! insides of string and character literals are blanks. Line breaks stay.

/// Returns `text` with comments and the insides of literals blanked out.
pub(crate) fn mask(text: &str) -> String {
    let mut masker = Masker { bytes: text.as_bytes(), at: 0, masked: Vec::with_capacity(text.len()) };
    while masker.at < masker.bytes.len() {
        masker.step();
    }
    String::from_utf8(masker.masked).expect("characters are kept or blanked as a whole")
}

/// Whether a byte can be part of an identifier.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

struct Masker<'a> {
    bytes: &'a [u8],
    at: usize,
    masked: Vec<u8>,
}

impl Masker<'_> {
    /// Takes the next token, or one byte of what is none of those that matter here.
    fn step(&mut self) {
        match (self.peek(0), self.peek(1)) {
            (b'/', b'/') => self.line_comment(),
            (b'/', b'*') => self.block_comment(),
            (b'"', _) => self.quoted(b'"'),
            (b'\'', _) => self.character_or_lifetime(),
            (first, _) if is_word(first) => self.word(),
            _ => self.keep(1),
        }
    }

    /// The byte `ahead` of the current one; zero past the end.
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn keep(&mut self, count: usize) {
        let end = (self.at + count).min(self.bytes.len());
        self.masked.extend_from_slice(&self.bytes[self.at..end]);
        self.at = end;
    }

    fn blank(&mut self, count: usize) {
        let end = (self.at + count).min(self.bytes.len());
        let blanks = self.bytes[self.at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' });
        self.masked.extend(blanks);
        self.at = end;
    }

    fn line_comment(&mut self) {
        while self.at < self.bytes.len() && self.peek(0) != b'\n' {
            self.blank(1);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => depth += 1,
                (b'*', b'/') => depth -= 1,
                _ => {
                    self.blank(1);
                    continue;
                }
            }
            self.blank(2);
            if depth == 0 {
                return;
            }
        }
    }

    /// A literal with escapes; the current byte is the quote that opens it.
    fn quoted(&mut self, quote: u8) {
        self.keep(1);
        while self.at < self.bytes.len() && self.peek(0) != quote {
            self.blank(if self.peek(0) == b'\\' { 2 } else { 1 });
        }
        self.keep(1);
    }

    fn character_or_lifetime(&mut self) {
        let width = match self.peek(1) {
            b'\\' => return self.quoted(b'\''),
            byte if byte.is_ascii() => 1,
            // The length of a character stands in its first byte in UTF-8.
            byte => byte.leading_ones() as usize,
        };
        if self.peek(1 + width) == b'\'' { self.quoted(b'\'') } else { self.keep(1) }
    }

    /// An identifier, a keyword, a number, or the prefix of a literal.
    fn word(&mut self) {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
        let word = &rest[..length];
        self.keep(length);
        match word {
            b"r" | b"br" | b"cr" => self.raw(),
            b"b" if self.peek(0) == b'\'' => self.quoted(b'\''),
            // `b"` and `c"` go on as an ordinary literal in the next step.
            _ => {}
        }
    }

    /// A raw literal after its prefix; a raw identifier is left for the next step.
    fn raw(&mut self) {
        let hashes = self.bytes[self.at..].iter().take_while(|byte| **byte == b'#').count();
        if self.peek(hashes) != b'"' {
            return;
        }
        self.keep(hashes + 1);
        let closing = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
        while self.at < self.bytes.len() && !self.bytes[self.at..].starts_with(&closing) {
            self.blank(1);
        }
        self.keep(closing.len());
    }
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn comments_are_blanked_also_nested_ones() {
        assert_eq!(mask("a // } b\nc"), "a       \nc");
        assert_eq!(mask("a /* { /* x */ \n } */ b"), "a              \n      b");
        assert_eq!(mask("/// todo!()\nfn f() {}"), "           \nfn f() {}");
    }

    #[test]
    fn literals_are_blanked_between_their_quotes() {
        assert_eq!(mask(r#"f("a { \" } b", x)"#), r#"f("          ", x)"#);
        assert_eq!(mask("f(r##\"{ \"# \"##, x)"), "f(r##\"     \"##, x)");
        assert_eq!(mask("(b\"{\", br\"\\\", c\"}\", cr#\"\"\"#)"), "(b\" \", br\" \", c\" \", cr#\" \"#)");
        assert_eq!(mask("\"a\\\n}\" }"), "\"  \n \" }");
        assert_eq!(mask("\"ü{\" ü"), "\"   \" ü");
    }

    #[test]
    fn characters_are_blanked_and_lifetimes_stay() {
        assert_eq!(mask(r"('{', '\'', '\u{7b}', b'}', '\\')"), r"(' ', '  ', '      ', b' ', '  ')");
        assert_eq!(mask("f::<'a, 'static>(&'b x, '€')"), "f::<'a, 'static>(&'b x, '   ')");
        assert_eq!(mask("'outer: loop { break 'outer }"), "'outer: loop { break 'outer }");
    }

    #[test]
    fn raw_identifiers_and_names_that_end_like_a_prefix_are_code() {
        assert_eq!(mask("r#type { var\"}\" }"), "r#type { var\" \" }");
    }

    #[test]
    fn what_is_not_closed_ends_with_the_file() {
        for text in ["/* {", "\"{", "r#\"{", "'\\", "\"\\", "b'"] {
            assert_eq!(mask(text).len(), text.len(), "{text}");
            assert!(!mask(text).contains('{'), "{text}");
        }
    }
}
