//! Characters that nobody sees, and that show a text in another order than it is read in.
//!
//! Always holds: text of ASCII without control characters is told in one pass of plain comparisons. What scripts need
//! passes where they need it: joiners between emoji and in Arabic and Indic words, marks of direction beside letters that
//! are written from right to left, breaks between words that have no spaces, selectors behind what they select, flags
//! spelled with tags.
//!
//! It does not compare letters that look alike, and says nothing of private characters.

/// Says what of it nobody sees.
pub(crate) fn hidden(text: &str) -> Option<&'static str> {
    if is_plain(text.as_bytes()) {
        return None;
    }
    Scan::new(text).run()
}

/// Whether every byte is visible ASCII, or white space. In blocks, which a compiler makes wide comparisons of.
fn is_plain(bytes: &[u8]) -> bool {
    let plain = |byte: u8| (0x20..0x7f).contains(&byte) || matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c);
    bytes.chunks(64).all(|block| block.iter().fold(true, |all, byte| all & plain(*byte)))
}

struct Scan<'t> {
    text: &'t str,
    /// The character before, and behind which text it stands.
    previous: Option<char>,
    /// Changes of direction that are open in this line.
    open: u32,
    /// Known once it is asked for.
    has_right_to_left: Option<bool>,
    soft_hyphens: usize,
    letters: usize,
}

pub(crate) const CONTROL: &str = "control character";
const DIRECTION: &str = "direction";
pub(crate) const INVISIBLE: &str = "invisible character";
const TAG: &str = "tag character";
const SELECTOR: &str = "variation selector";

/// A word with more soft hyphens than one in so many letters is not hyphenated, but broken up.
const LETTERS_PER_SOFT_HYPHEN: usize = 2;

impl<'t> Scan<'t> {
    fn new(text: &'t str) -> Scan<'t> {
        Scan { text, previous: None, open: 0, has_right_to_left: None, soft_hyphens: 0, letters: 0 }
    }

    fn run(mut self) -> Option<&'static str> {
        let mut rest = self.text.chars();
        while let Some(letter) = rest.next() {
            if let Some(what) = self.judge(letter, &mut rest) {
                return Some(what);
            }
            self.previous = Some(letter);
        }
        if self.open > 0 {
            return Some(DIRECTION);
        }
        (self.soft_hyphens > 0 && self.soft_hyphens * LETTERS_PER_SOFT_HYPHEN > self.letters)
            .then_some(INVISIBLE)
    }

    fn judge(&mut self, letter: char, rest: &mut std::str::Chars<'_>) -> Option<&'static str> {
        match letter {
            '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                let open = std::mem::take(&mut self.open);
                (open > 0).then_some(DIRECTION)
            }
            '\t' | '\u{c}' => None,
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => Some(CONTROL),
            ' '..='~' => {
                self.letters += 1;
                None
            }
            '\u{ad}' => {
                self.soft_hyphens += 1;
                None
            }
            '\u{200b}'..='\u{200f}' | '\u{61c}' | '\u{2060}' | '\u{feff}' => {
                self.joiner_or_mark(letter, rest)
            }
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => self.direction(letter),
            '\u{2061}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{fff0}'..='\u{fffb}' => Some(INVISIBLE),
            '\u{34f}' | '\u{3164}' | '\u{ffa0}' | '\u{17b4}' | '\u{17b5}' => Some(INVISIBLE),
            '\u{115f}' | '\u{1160}' => unless(self.is_after(is_jamo) || next_is(rest, is_jamo), INVISIBLE),
            '\u{180b}'..='\u{180f}' => unless(self.is_after(is_mongolian), SELECTOR),
            '\u{fe00}'..='\u{fe0f}' => unless(self.is_after(takes_selector), SELECTOR),
            '\u{e0100}'..='\u{e01ef}' => unless(self.is_after(is_ideograph), SELECTOR),
            '\u{e0000}'..='\u{e00ff}' => unless(self.is_after_flag() && skip_flag(letter, rest), TAG),
            '\u{1d173}'..='\u{1d17a}' | '\u{e01f0}'..='\u{e0fff}' => Some(INVISIBLE),
            _ => {
                self.letters += 1;
                None
            }
        }
    }

    /// Characters of no width, which scripts need in their places.
    fn joiner_or_mark(&mut self, letter: char, rest: &std::str::Chars<'_>) -> Option<&'static str> {
        let is_fit = match letter {
            // Between emoji; and as its fellow, in the words of scripts that join letters.
            '\u{200d}' => {
                (self.is_after(is_emoji) && next_is(rest, is_emoji)) || self.is_beside(rest, joins_letters)
            }
            '\u{200c}' => self.is_beside(rest, joins_letters),
            '\u{200e}' | '\u{200f}' | '\u{61c}' => self.has_right_to_left(),
            // The mark of an encoding, at the beginning.
            '\u{feff}' if self.previous.is_none() => true,
            _ => self.is_beside(rest, has_no_spaces),
        };
        unless(is_fit, INVISIBLE)
    }

    /// Overrides are never needed; the others come in pairs within a line, beside letters from right to left.
    fn direction(&mut self, letter: char) -> Option<&'static str> {
        match letter {
            '\u{202d}' | '\u{202e}' => return Some(DIRECTION),
            _ if !self.has_right_to_left() => return Some(DIRECTION),
            '\u{202c}' | '\u{2069}' if self.open == 0 => return Some(DIRECTION),
            '\u{202c}' | '\u{2069}' => self.open -= 1,
            _ => self.open += 1,
        }
        None
    }

    fn is_after(&self, is_such: fn(char) -> bool) -> bool {
        self.previous.is_some_and(is_such)
    }

    fn is_after_flag(&self) -> bool {
        self.previous == Some('\u{1f3f4}')
    }

    fn is_beside(&self, rest: &std::str::Chars<'_>, is_such: fn(char) -> bool) -> bool {
        self.is_after(is_such)
            && next_is(rest, |next| is_such(next) || !next.is_alphanumeric() && !is_invisible(next))
            || next_is(rest, is_such) && self.previous.is_none_or(|before| !is_invisible(before))
            || self.is_after(is_such) && rest.clone().next().is_none()
    }

    fn has_right_to_left(&mut self) -> bool {
        let text = self.text;
        *self.has_right_to_left.get_or_insert_with(|| text.chars().any(is_right_to_left))
    }
}

fn unless(is_fit: bool, what: &'static str) -> Option<&'static str> {
    (!is_fit).then_some(what)
}

fn next_is(rest: &std::str::Chars<'_>, is_such: impl Fn(char) -> bool) -> bool {
    rest.clone().next().is_some_and(is_such)
}

/// Steps over the tags that spell a region, from the first of them; false where they spell none.
fn skip_flag(first: char, rest: &mut std::str::Chars<'_>) -> bool {
    /// Letters and digits of a region: `gbsct` has five, others have up to six.
    const LETTERS: std::ops::RangeInclusive<usize> = 3..=6;
    let is_spelled = |tag: char| matches!(tag, '\u{e0030}'..='\u{e0039}' | '\u{e0061}'..='\u{e007a}');
    if !is_spelled(first) {
        return false;
    }
    let mut count = 1;
    for tag in rest.by_ref() {
        match tag {
            '\u{e007f}' => return LETTERS.contains(&count),
            tag if is_spelled(tag) && count < *LETTERS.end() => count += 1,
            _ => return false,
        }
    }
    false
}

fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{202a}'..='\u{202e}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether it shows nothing by itself, in whatever place: more than [`is_invisible`] asks for.
pub(crate) fn is_unseen(letter: char) -> bool {
    is_invisible(letter)
        || letter.is_control()
        || matches!(letter, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{ffa0}'
            | '\u{180b}'..='\u{180f}' | '\u{2800}' | '\u{fe00}'..='\u{fe0f}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}')
}

pub(crate) fn is_right_to_left(letter: char) -> bool {
    matches!(letter, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}' | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}')
        && letter != '\u{61c}'
}

fn is_emoji(letter: char) -> bool {
    matches!(letter, '\u{2190}'..='\u{21ff}' | '\u{2300}'..='\u{23ff}' | '\u{2600}'..='\u{27bf}' | '\u{2b00}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}' | '\u{fe0f}' | '\u{20e3}')
}

/// Arabic, Syriac and their like, and the scripts from India to Mongolia.
fn joins_letters(letter: char) -> bool {
    matches!(letter, '\u{620}'..='\u{8ff}' | '\u{900}'..='\u{fff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{18af}' | '\u{1900}'..='\u{1cff}' | '\u{a800}'..='\u{abff}' | '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}' | '\u{11000}'..='\u{11fff}')
}

/// Thai, Lao, Tibetan, Burmese, Khmer, Chinese, Japanese.
fn has_no_spaces(letter: char) -> bool {
    matches!(letter, '\u{e00}'..='\u{fff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

fn is_jamo(letter: char) -> bool {
    matches!(letter, '\u{1100}'..='\u{11ff}' | '\u{a960}'..='\u{a97f}' | '\u{d7b0}'..='\u{d7ff}')
}

fn is_mongolian(letter: char) -> bool {
    matches!(letter, '\u{1800}'..='\u{180a}' | '\u{1810}'..='\u{18af}')
}

fn is_ideograph(letter: char) -> bool {
    matches!(letter, '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// What has another form to select: digits and signs of keys, symbols, emoji, ideographs, and letters that mathematicians
/// and scripts of Asia vary; never a letter of ASCII, a space, or a selector.
fn takes_selector(letter: char) -> bool {
    match letter {
        '0'..='9' | '#' | '*' | '\u{a9}' | '\u{ae}' => true,
        letter if letter < '\u{1000}' => false,
        letter => {
            !letter.is_whitespace() && !is_invisible(letter) && !matches!(letter, '\u{fe00}'..='\u{fe0f}')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scripts_need_passes_where_they_need_it() {
        for text in [
            "plain ASCII\twith\r\nlines",
            "l'été à Noël; «ça va»",
            "👨‍👩‍👧‍👦 and 👩🏽‍💻 and ❤️‍🔥 and 🏳️‍🌈",
            "\u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f} Scotland",
            "می\u{200c}خواهم به خانه\u{200c}ها بروم",
            "क्\u{200d}ष and ശ്രീ\u{200d}",
            "שלום \u{200f}(world)\u{200f} עולם",
            "\u{2067}שלום עולם\u{2069} is a greeting",
            "ภาษา\u{200b}ไทย",
            "1\u{fe0f}\u{20e3} first",
            "\u{feff}with the mark of an encoding",
            "Donau\u{ad}dampf\u{ad}schiff",
            "葛\u{e0100}城市",
        ] {
            assert_eq!(hidden(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_nobody_needs_is_found() {
        for (text, what) in [
            ("access\u{202e}txt.exe", DIRECTION),
            ("if a \u{2066}// admin\u{2069} {", DIRECTION),
            ("שלום \u{2067}עולם\nnext line", DIRECTION),
            ("שלום \u{2069}", DIRECTION),
            ("שלום \u{202e}abc\u{202c} עולם", DIRECTION),
            ("pay\u{200b}pal", INVISIBLE),
            ("pay\u{200d}pal", INVISIBLE),
            ("a\u{200e}b", INVISIBLE),
            ("in\u{2060}voice", INVISIBLE),
            ("i\u{ad}g\u{ad}n\u{ad}o\u{ad}r\u{ad}e", INVISIBLE),
            ("hello \u{e0068}\u{e0069}", TAG),
            ("\u{1f3f4}\u{e0067}\u{e0062}", TAG),
            ("a\u{fe01}\u{fe02}", SELECTOR),
            ("😀\u{fe01}\u{fe02}", SELECTOR),
            ("x\u{e0101}", SELECTOR),
            ("a\u{1b}[31mred", CONTROL),
            ("a\0b", CONTROL),
            ("می\u{200c}\u{200c}\u{200c}خواهم", INVISIBLE),
        ] {
            assert_eq!(hidden(text), Some(what), "{text:?}");
        }
    }
}
