//! What a shell makes of a text: words, operators, and what has another command in it.
//!
//! Always holds: quoting is read as POSIX has it, so that a `;` in quotes is a letter; a quote that does not end is found,
//! because it ends in what the tool puts around the text. It expands nothing.

/// Says what of it a shell takes for more than words.
pub(crate) fn metacharacter(text: &str) -> Option<&'static str> {
    let is_special = |byte: u8| b";|&<>()`$\\'\"\n\r".contains(&byte);
    // Words of letters are the rule.
    if !text.bytes().any(is_special) {
        return None;
    }
    let mut first = None;
    Lexer::new(text).run(&mut |part| {
        if let Part::Special(what) = part
            && first.is_none()
        {
            first = Some(what);
        }
    });
    first
}

/// Words of a line that are kept: more than any line has that is written to be read.
const WORDS_MAX: usize = 256;

/// A command line as a shell would read it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line {
    /// Its words without quotes, the first 256.
    pub words: Vec<String>,
    /// The words that name a command: the first, and the first behind each operator that begins another.
    pub commands: Vec<String>,
    /// What it has that is more than words, sorted, each once.
    pub metacharacters: Vec<&'static str>,
}

/// Reads a command line. What a substitution has in it is no word of the line; that there is one is told.
pub fn read(text: &str) -> Line {
    let mut line = Line::default();
    let mut begins = true;
    Lexer::new(text).run(&mut |part| match part {
        Part::Word(word) => {
            if line.words.len() < WORDS_MAX {
                if std::mem::take(&mut begins) {
                    line.commands.push(word.clone());
                }
                line.words.push(word);
            }
        }
        Part::Special(what) => {
            begins |= !matches!(what, REDIRECTION | EXPANSION | SUBSTITUTION | QUOTE);
            line.metacharacters.push(what);
        }
    });
    line.metacharacters.sort_unstable();
    line.metacharacters.dedup();
    line
}

const SEPARATOR: &str = "separator";
const PIPE: &str = "pipe";
const BACKGROUND: &str = "ampersand";
const REDIRECTION: &str = "redirection";
const GROUP: &str = "parenthesis";
const SUBSTITUTION: &str = "substitution";
const EXPANSION: &str = "expansion";
const QUOTE: &str = "open quote";
const NEWLINE: &str = "line break";

enum Part {
    Word(String),
    Special(&'static str),
}

struct Lexer<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
    word: Option<String>,
}

impl<'t> Lexer<'t> {
    fn new(text: &'t str) -> Lexer<'t> {
        // A last line break is how lines end.
        Lexer { rest: text.trim_end_matches(['\n', '\r', ' ', '\t']).chars().peekable(), word: None }
    }

    fn run(mut self, see: &mut dyn FnMut(Part)) {
        while let Some(letter) = self.rest.next() {
            let special = match letter {
                ' ' | '\t' => {
                    self.end_word(see);
                    continue;
                }
                '\'' => self.quoted(),
                '"' => self.double_quoted(see),
                '\\' => {
                    match self.rest.next() {
                        Some('\n') => {}
                        Some(escaped) => self.letter(escaped),
                        None => see(Part::Special(QUOTE)),
                    }
                    None
                }
                '$' => self.dollar(),
                '`' => Some(SUBSTITUTION),
                ';' => Some(SEPARATOR),
                '|' => Some(PIPE),
                '&' => Some(BACKGROUND),
                '<' | '>' => Some(REDIRECTION),
                '(' | ')' => Some(GROUP),
                '\n' | '\r' => Some(NEWLINE),
                other => {
                    self.letter(other);
                    None
                }
            };
            if let Some(what) = special {
                self.end_word(see);
                see(Part::Special(what));
            }
        }
        self.end_word(see);
    }

    fn letter(&mut self, letter: char) {
        self.word.get_or_insert_default().push(letter);
    }

    fn end_word(&mut self, see: &mut dyn FnMut(Part)) {
        if let Some(word) = self.word.take() {
            see(Part::Word(word));
        }
    }

    fn quoted(&mut self) -> Option<&'static str> {
        self.word.get_or_insert_default();
        loop {
            match self.rest.next() {
                Some('\'') => return None,
                Some(letter) => self.letter(letter),
                None => return Some(QUOTE),
            }
        }
    }

    fn double_quoted(&mut self, see: &mut dyn FnMut(Part)) -> Option<&'static str> {
        self.word.get_or_insert_default();
        loop {
            match self.rest.next() {
                Some('"') => return None,
                Some('\\') => match self.rest.next() {
                    Some(letter) => self.letter(letter),
                    None => return Some(QUOTE),
                },
                Some('`') => see(Part::Special(SUBSTITUTION)),
                Some('$') => {
                    if let Some(what) = self.dollar() {
                        see(Part::Special(what));
                    }
                }
                Some(letter) => self.letter(letter),
                None => return Some(QUOTE),
            }
        }
    }

    /// `$(`; `${`; `$'`, in which anything may be written as an escape; `$IFS`, which is a space that looks like none.
    /// A plain variable runs nothing.
    fn dollar(&mut self) -> Option<&'static str> {
        match self.rest.peek().copied() {
            Some('(') => Some(SUBSTITUTION),
            Some('{' | '\'') => Some(EXPANSION),
            Some('I') if self.rest.clone().take(3).eq("IFS".chars()) => Some(EXPANSION),
            _ => {
                self.letter('$');
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_words_in_whatever_quotes() {
        for text in [
            "ls -la /tmp",
            "grep 'a;b|c' file",
            "echo \"one & two\" three\\;four",
            "git commit -m 'it is (done)'\n",
            "echo $HOME",
            "",
        ] {
            assert_eq!(metacharacter(text), None, "{text}");
        }
    }

    #[test]
    fn what_runs_another_command_is_found() {
        for (text, what) in [
            ("8.8.8.8; cat /etc/passwd", SEPARATOR),
            ("a | sh", PIPE),
            ("a && b", BACKGROUND),
            ("a > /etc/passwd", REDIRECTION),
            ("$(id)", SUBSTITUTION),
            ("\"$(id)\"", SUBSTITUTION),
            ("`id`", SUBSTITUTION),
            ("\"`id`\"", SUBSTITUTION),
            ("a\nid", NEWLINE),
            ("x' ; id #", QUOTE),
            ("don't", QUOTE),
            ("cat${IFS}/etc/passwd", EXPANSION),
            ("cat$IFS/etc/passwd", EXPANSION),
            ("$'\\x69d'", EXPANSION),
            ("a\\", QUOTE),
        ] {
            assert_eq!(metacharacter(text), Some(what), "{text}");
        }
    }

    #[test]
    fn a_line_is_read_into_words_commands_and_metacharacters() {
        let line = read("cat 'a b' | grep -v x\\ y > out; rm \"-rf\" z");
        assert_eq!(line.words, ["cat", "a b", "grep", "-v", "x y", "out", "rm", "-rf", "z"]);
        assert_eq!(line.commands, ["cat", "grep", "rm"]);
        assert_eq!(line.metacharacters, [PIPE, REDIRECTION, SEPARATOR]);
        assert_eq!(read(&"a ".repeat(10_000)).words.len(), WORDS_MAX);
    }
}
