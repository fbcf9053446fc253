//! Whether a text that is said to be SQL has a second statement behind the first.
//!
//! Always holds: the text is read as the dialects read it that differ in what ends a string or a comment (MySQL takes `\`
//! in strings, `#` and `/*! */` for what others do not, and `--` only before a blank; PostgreSQL has `$tag$`, `E'\''` and
//! comments in comments; SQL Server and SQLite have names in `[]`), and a second statement in any reading is one. A text
//! without `;` and quotes costs one search for them.
//!
//! It does not parse ([`crate::facts`] does), and does not find what needs no `;`: T-SQL takes two statements without one,
//! and a single statement may do enough harm.

/// Says that there is a second statement.
pub(crate) fn stacked(text: &str) -> Option<&'static str> {
    memchr::memchr3(b';', b'\'', b'"', text.as_bytes()).or_else(|| memchr::memchr(b'`', text.as_bytes()))?;
    let read = Reading::ALL.map(|reading| Scan::new(text, reading).run());
    if read.contains(&Found::Stacked) {
        return Some("stacked statement");
    }
    // What no dialect can end is the end of what the tool puts around it.
    (read == [Found::OpenQuote; Reading::ALL.len()]).then_some("open quote")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Stacked,
    OpenQuote,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Postgres,
    MySql,
    /// SQL Server, SQLite and what else has names in brackets.
    Brackets,
}

impl Reading {
    const ALL: [Reading; 3] = [Reading::Postgres, Reading::MySql, Reading::Brackets];
}

/// Tags that may begin no quote: each is searched for to the end of the text. Beyond, `$` begins none, so that what may
/// be quoted counts as not.
const OPEN_TAGS_MAX: u32 = 16;

struct Scan<'t> {
    text: &'t [u8],
    at: usize,
    reading: Reading,
    open_tags: u32,
    /// No `]` is left.
    has_no_bracket: bool,
}

impl<'t> Scan<'t> {
    fn new(text: &'t str, reading: Reading) -> Scan<'t> {
        Scan { text: text.as_bytes(), at: 0, reading, open_tags: 0, has_no_bracket: false }
    }

    fn run(mut self) -> Found {
        let mut has_ended = false;
        while let Some(byte) = self.peek(0) {
            match (byte, self.peek(1)) {
                (b' ' | b'\t' | b'\n' | b'\r' | 0x0c, _) => self.at += 1,
                (b'-', Some(b'-')) if self.is_comment() => self.line(),
                (b'#', _) if self.reading == Reading::MySql => self.line(),
                (b'/', Some(b'*')) if !self.is_executed() => self.comment(),
                (b'/', Some(b'*')) => self.at += 3,
                // The end of a comment that is executed.
                (b'*', Some(b'/')) if self.reading == Reading::MySql => self.at += 2,
                (b';', _) => {
                    has_ended = true;
                    self.at += 1;
                }
                _ if has_ended => return Found::Stacked,
                (b'\'' | b'"' | b'`', _) if !self.quoted(byte, false) => return Found::OpenQuote,
                (b'\'' | b'"' | b'`', _) => {}
                (b'$', _) if self.reading == Reading::Postgres && self.open_tags < OPEN_TAGS_MAX => {
                    self.dollar()
                }
                (b'[', _) if self.reading == Reading::Brackets => self.bracketed(),
                (b'e' | b'E', Some(b'\'')) if self.reading == Reading::Postgres => {
                    self.at += 1;
                    if !self.quoted(b'\'', true) {
                        return Found::OpenQuote;
                    }
                }
                _ if is_letter(byte) => self.name(),
                _ => self.at += 1,
            }
        }
        Found::Nothing
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// MySQL executes what stands in `/*! */`; MariaDB also in `/*M! */`.
    fn is_executed(&self) -> bool {
        let ahead = (self.peek(2), self.peek(3));
        self.reading == Reading::MySql && matches!(ahead, (Some(b'!'), _) | (Some(b'M'), Some(b'!')))
    }

    /// Whether `--` begins a comment.
    fn is_comment(&self) -> bool {
        self.reading != Reading::MySql || self.peek(2).is_none_or(|byte| byte <= b' ' || byte == 0x7f)
    }

    fn line(&mut self) {
        let end = match self.reading {
            Reading::Postgres => memchr::memchr2(b'\n', b'\r', self.rest()),
            Reading::MySql | Reading::Brackets => memchr::memchr(b'\n', self.rest()),
        };
        self.at = end.map_or(self.text.len(), |offset| self.at + offset + 1);
    }

    /// A name or a word, in which `$` is a letter.
    fn name(&mut self) {
        let is_end = |byte: &u8| !(is_letter(*byte) || byte.is_ascii_digit() || *byte == b'$');
        self.at += self.rest().iter().position(is_end).unwrap_or(self.rest().len());
    }

    /// A name in brackets; a `[` that nothing closes is a letter.
    fn bracketed(&mut self) {
        let end = match self.has_no_bracket {
            true => None,
            false => memchr::memchr(b']', self.rest()),
        };
        self.has_no_bracket = end.is_none();
        self.at += end.map_or(1, |offset| offset + 1);
    }

    fn comment(&mut self) {
        let nests = self.reading == Reading::Postgres;
        let mut depth = 0_usize;
        while let Some(offset) = memchr::memchr2(b'*', b'/', self.rest()) {
            self.at += offset;
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) if depth == 0 || nests => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.at = self.text.len();
    }

    /// Whether the string ends. A quote that is doubled ends one and begins the next, which comes to the same.
    fn quoted(&mut self, quote: u8, escapes: bool) -> bool {
        self.at += 1;
        let escapes = escapes || (self.reading == Reading::MySql && quote != b'`');
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\\' if escapes => self.at += 2,
                _ if byte == quote => {
                    self.at += 1;
                    return true;
                }
                _ => self.at += 1,
            }
        }
        false
    }

    /// `$tag$ ... $tag$`; a `$` that begins none is a letter.
    fn dollar(&mut self) {
        let rest = self.rest();
        let end = rest.iter().skip(1).position(|byte| !(is_letter(*byte) || byte.is_ascii_digit()));
        let Some(end) = end.map(|offset| offset + 1).filter(|end| rest.get(*end) == Some(&b'$')) else {
            self.at += 1;
            return;
        };
        let (tag, body) = rest.split_at(end + 1);
        // A parameter, such as `$1$`, is no tag.
        if tag.get(1).is_some_and(u8::is_ascii_digit) {
            self.at += tag.len();
            return;
        }
        let closed = memchr::memmem::find(body, tag).map(|offset| offset + 2 * tag.len());
        // What is not closed may not have been meant as a quote by whoever reads it.
        let step = closed.unwrap_or(tag.len());
        self.open_tags += u32::from(closed.is_none());
        self.at += step;
    }
}

/// What names and tags begin with.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_statement_is_one_however_many_semicolons_its_texts_have() {
        for text in [
            "SELECT 1",
            "SELECT 1;",
            "SELECT 1;;; -- done; really",
            "SELECT ';' AS a, \"b;c\" FROM `t;u`;",
            "SELECT 'it''s; fine' /* one; two */ FROM t",
            "SELECT $$a b$$, $x$c d$x$;",
            "SELECT 1 -- a; b\n + 2;",
            "SELECT a[1], ARRAY['b;c'], E'it\\'s fine' FROM t;",
            "SELECT 1 -- it's; fine",
            "SELECT 1 -- it's",
            "",
            ";",
        ] {
            assert_eq!(stacked(text), None, "{text}");
        }
    }

    #[test]
    fn a_second_statement_is_found_in_the_reading_of_either_dialect() {
        for text in [
            "SELECT 1; DROP TABLE t",
            "SELECT 1;/**/DELETE FROM t",
            "SELECT '\\'; DROP TABLE t; --'",
            "SELECT 'a\\'; DROP TABLE t; --'",
            "SELECT 1 /* /* */ */; DROP TABLE t",
            "SELECT 1 /* /* */ ' */; DROP TABLE t -- '",
            "SELECT 1; /*! DROP TABLE t */",
            "SELECT 1; /*!50000 DROP TABLE t */",
            "SELECT $a$ x $a$; DELETE FROM t",
            "SELECT $a$ x; DELETE FROM t",
            // A quote to PostgreSQL, and a name to MySQL.
            "SELECT 1 AS $$; DROP TABLE t -- $$",
            // A comment to all but MySQL, which wants a blank behind it.
            "SELECT 1--1; DROP TABLE t",
            // A comment of PostgreSQL ends here.
            "SELECT 1;--\rDROP TABLE t",
            "SELECT 1 --\r'\n; DROP TABLE t -- '",
            // What `#` begins is a comment to MySQL only.
            "SELECT E'\\'', 1 # 2; DROP TABLE t -- '",
            "SELECT 1 # 1 AS a$$; DROP TABLE t -- $$",
            "SELECT $é$'$é$ # 1; DROP TABLE t --'",
            // A name of SQL Server and SQLite.
            "SELECT [']; DROP TABLE t --']",
        ] {
            assert_eq!(stacked(text), Some("stacked statement"), "{text}");
        }
    }

    #[test]
    fn a_quote_that_no_dialect_can_end_is_found() {
        for text in ["x'; DROP TABLE t; --", "1\" ; DELETE FROM t #", "x' OR 1=1 --"] {
            assert_eq!(stacked(text), Some("open quote"), "{text}");
        }
    }

    #[test]
    fn what_never_ends_costs_no_more_than_its_length() {
        for part in ["'", "$a$", "$", "/*", "--", "\\", "`", "$a", "*/", ";", "\"'", "[", "E'"] {
            let text = format!(";{}", part.repeat(200_000));
            let began = std::time::Instant::now();
            stacked(&text);
            assert!(began.elapsed().as_secs() < 5, "{part}");
        }
        let tags: String = (0..100_000).map(|index| format!("$a{index}$")).collect();
        let began = std::time::Instant::now();
        stacked(&format!("{tags};"));
        assert!(began.elapsed().as_secs() < 5);
    }
}
