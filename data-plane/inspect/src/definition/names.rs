//! Names that are not what they look like, and names by which more is asked for than a call needs.
//!
//! Always holds: a name in one script passes, whatever script it is, and so do Latin letters beside those of scripts that
//! have none alike, beside Greek signs of mathematics, and beside Chinese, Japanese and Korean.

use super::fold;

const LOOK_ALIKE: &str = "look-alike letters";

/// Says whether letters of a name are there to be taken for others.
pub(super) fn look_alike(name: &str) -> Option<&'static str> {
    if name.is_ascii() {
        return None;
    }
    let is_latin = |letter: char| letter.is_ascii_alphabetic();
    // In another form than every keyboard has: for the eye only.
    let is_dressed = |letter: char| fold::plain(letter).is_ascii_alphanumeric() && !is_wide(letter);
    if name.chars().any(|letter| !letter.is_ascii() && is_dressed(letter)) {
        return Some(LOOK_ALIKE);
    }
    let lower = name.to_lowercase();
    let has_other_word = lower.chars().any(is_latin);
    let is_own = |letter: char| is_of_script_with_twins(letter) && fold::similar(letter) == letter;
    let speaks_it = lower.chars().any(is_own);
    let words = lower.split(|letter: char| !letter.is_alphanumeric());
    let is_odd = |word: &str| {
        if is_of_mathematics(word) {
            return false;
        }
        let twins =
            word.chars().any(|letter| is_of_script_with_twins(letter) && fold::similar(letter) != letter);
        twins && (word.chars().any(is_latin) || has_other_word && !speaks_it)
    };
    words.into_iter().any(is_odd).then_some(LOOK_ALIKE)
}

/// One Greek letter by itself, as in `α_level` or `χ2_test`.
fn is_of_mathematics(word: &str) -> bool {
    let mut letters = word.chars().filter(|letter| !letter.is_ascii_digit());
    letters.next().is_some_and(|letter| matches!(letter, '\u{3b1}'..='\u{3c9}')) && letters.next().is_none()
}

/// Cyrillic, Greek and Armenian, which have letters that look like Latin ones.
fn is_of_script_with_twins(letter: char) -> bool {
    matches!(letter, '\u{370}'..='\u{3ff}' | '\u{400}'..='\u{52f}' | '\u{530}'..='\u{58f}')
}

/// As East Asians write Latin letters among their own.
fn is_wide(letter: char) -> bool {
    matches!(letter, '\u{ff01}'..='\u{ff5e}')
}

/// Arguments that only say what the model has, and no tool needs; such names get it to tell.
const OF_CONTEXT: [&str; 12] = [
    "chainofthought",
    "chathistorysofar",
    "conversationhistory",
    "entireconversation",
    "fullconversation",
    "listoftools",
    "previoustooloutputs",
    "previoustoolresults",
    "toolcallhistory",
    "toollist",
    "toolslist",
    "usersystemprompt",
];

/// Says whether an argument has a name by which a model hands over what it knows.
pub(super) fn of_context(name: &str) -> Option<&'static str> {
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    OF_CONTEXT.binary_search(&plain.as_str()).is_ok().then_some(super::phrases::CONTEXT)
}
