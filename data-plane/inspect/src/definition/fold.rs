//! A text as it is read, whatever letters it is written with.
//!
//! Always holds: every place of the folded text is one of the text. Invisible characters are left out; letters that look
//! like others are these, the same letters in other forms are plain ones, accents are left out, and all is in lower case.

use std::ops::Range;

/// A folded text, and where each of its bytes stands in the text.
pub(super) struct Folded {
    pub(super) text: String,
    at: Vec<u32>,
    length: usize,
}

/// A word of a folded text, or the end of a sentence between words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) start: usize,
    pub(super) end: usize,
    /// In which sentence it stands.
    pub(super) sentence: u32,
    /// In which part of one, as commas divide it.
    pub(super) clause: u32,
}

impl Folded {
    pub(super) fn new(text: &str) -> Folded {
        let mut folded = Folded {
            text: String::with_capacity(text.len()),
            at: Vec::with_capacity(text.len()),
            length: text.len(),
        };
        for (at, letter) in text.char_indices() {
            if letter.is_ascii() {
                folded.push(letter.to_ascii_lowercase(), at);
            } else if !is_left_out(letter) {
                for lower in plain(letter).to_lowercase() {
                    folded.push(similar(without_accent(lower)), at);
                }
            }
        }
        folded
    }

    /// A place as it is in the text.
    pub(super) fn original(&self, range: Range<usize>) -> Range<usize> {
        let at = |index: usize| self.at.get(index).map_or(self.length, |at| *at as usize);
        at(range.start)..at(range.end)
    }

    /// Its words, and which of them are of one sentence.
    pub(super) fn words(&self) -> Vec<Word> {
        let mut words = Vec::with_capacity(self.text.len() / 6);
        let (mut start, mut sentence, mut clause) = (None, 0, 0);
        let mut letters = self.text.char_indices().peekable();
        while let Some((at, letter)) = letters.next() {
            let next = letters.peek().map(|(_, next)| *next);
            let joins = letter == '\'' && start.is_some() && next.is_some_and(char::is_alphanumeric);
            if letter.is_alphanumeric() || letter == '_' || joins {
                start.get_or_insert(at);
                continue;
            }
            if let Some(start) = start.take() {
                words.push(Word { start, end: at, sentence, clause });
            }
            let ends = match letter {
                '.' | '!' | '?' | ';' => next.is_none_or(char::is_whitespace),
                '\n' => next == Some('\n'),
                '。' | '！' | '？' => true,
                _ => false,
            };
            sentence += u32::from(ends);
            clause += u32::from(ends || matches!(letter, ',' | ':' | ';' | '，' | '、'));
        }
        words.extend(start.map(|start| Word { start, end: self.text.len(), sentence, clause }));
        words
    }

    fn push(&mut self, letter: char, at: usize) {
        self.text.push(letter);
        // A catalog has at most 4 MiB.
        self.at.resize(self.text.len(), u32::try_from(at).unwrap_or(u32::MAX));
    }
}

fn is_left_out(letter: char) -> bool {
    matches!(letter, '\u{ad}' | '\u{34f}' | '\u{300}'..='\u{36f}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

/// The letter that one of another form is: wide ones, and those of mathematicians.
pub(super) fn plain(letter: char) -> char {
    let code = u32::from(letter);
    let latin = |offset: u32| {
        let base = if offset < 26 { u32::from('A') } else { u32::from('a') - 26 };
        char::from_u32(base + offset).unwrap_or(letter)
    };
    match code {
        0x2018 | 0x2019 | 0x02bc => '\'',
        0x2010..=0x2015 | 0x2212 => '-',
        0xff01..=0xff5e => char::from_u32(code - 0xfee0).unwrap_or(letter),
        0x1d400..=0x1d6a3 => latin((code - 0x1d400) % 52),
        0x1d7ce..=0x1d7ff => char::from_u32(u32::from('0') + (code - 0x1d7ce) % 10).unwrap_or(letter),
        0x24b6..=0x24e9 => latin(code - 0x24b6),
        0x1f130..=0x1f149 => latin(code - 0x1f130),
        0x1f150..=0x1f169 => latin(code - 0x1f150),
        0x1f170..=0x1f189 => latin(code - 0x1f170),
        _ => letter,
    }
}

/// The Latin letter that one of another script looks like.
pub(super) fn similar(letter: char) -> char {
    match letter {
        'а' | 'α' | 'ɑ' => 'a',
        'с' | 'ϲ' | 'ᴄ' => 'c',
        'ԁ' => 'd',
        'е' | 'ҽ' => 'e',
        'һ' => 'h',
        'і' | 'ι' | 'ı' | 'ɪ' => 'i',
        'ј' => 'j',
        'κ' | 'ᴋ' => 'k',
        'ӏ' => 'l',
        'о' | 'ο' | 'օ' | 'ᴏ' => 'o',
        'р' | 'ρ' => 'p',
        'ԛ' => 'q',
        'ѕ' | 'ꜱ' => 's',
        'υ' | 'ս' => 'u',
        'ν' | 'ѵ' => 'v',
        'ԝ' => 'w',
        'х' | 'χ' => 'x',
        'у' | 'γ' => 'y',
        other => other,
    }
}

fn without_accent(letter: char) -> char {
    match letter {
        'à'..='å' | 'ā' | 'ă' | 'ą' => 'a',
        'ç' | 'ć' | 'č' => 'c',
        'è'..='ë' | 'ē' | 'ė' | 'ę' | 'ě' => 'e',
        'ì'..='ï' | 'ī' | 'į' => 'i',
        'ñ' | 'ń' | 'ň' => 'n',
        'ò'..='ö' | 'ø' | 'ō' | 'ő' => 'o',
        'ś' | 'š' | 'ş' => 's',
        'ù'..='ü' | 'ū' | 'ů' | 'ű' => 'u',
        'ý' | 'ÿ' => 'y',
        'ź' | 'ż' | 'ž' => 'z',
        other => other,
    }
}
