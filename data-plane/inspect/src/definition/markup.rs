//! Markup that a page would not show, and marks by which models are told who speaks.
//!
//! Always holds: a comment or a mark of code that is only an example passes: a comment has a sentence in it, and a mark
//! stands in pairs, in capitals or as models know it.

use std::ops::Range;

use super::fold::Folded;

/// A comment of fewer words is a marker, such as `<!-- wp:paragraph -->` and `<!-- more -->`.
const COMMENT_WORDS_MIN: usize = 4;
/// How far the end of a comment is searched for.
const SPAN_BYTES_MAX: usize = 16 * 1024;

const COMMENT: &str = "hidden comment";
const ELEMENT: &str = "hidden element";
const MARK: &str = "mark of who speaks";

/// Names of elements by which a text poses as more than a description.
const NAMES: [&str; 13] = [
    "admin",
    "assistant",
    "critical",
    "hidden",
    "important",
    "instruction",
    "instructions",
    "override",
    "secret",
    "sys",
    "system",
    "system-reminder",
    "system_prompt",
];

/// What models are trained to take for the end of one speaker and the beginning of another.
const TOKENS: [&str; 10] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|system|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "[inst]",
    "[/inst]",
    "<<sys>>",
    "<system-reminder>",
];

/// Styles by which an element is not seen, without spaces.
const STYLES: [&str; 5] =
    ["display:none", "visibility:hidden", "font-size:0", "opacity:0", "color:transparent"];
/// Colours of text that is not seen on a page as it is.
const PALE: [&str; 2] = ["color:white", "color:#fff"];

pub(super) fn find(folded: &Folded) -> Vec<(&'static str, Range<usize>)> {
    let text = folded.text.as_str();
    let mut found = Vec::new();
    if memchr::memchr3(b'<', b'[', b'\n', text.as_bytes()).is_none() {
        return found;
    }
    found.extend(comment(text).map(|range| (COMMENT, range)));
    found.extend(element(text).map(|range| (ELEMENT, range)));
    let token = TOKENS.iter().find_map(|token| text.find(token).map(|at| at..at + token.len()));
    let mark = token.or_else(|| posing(text)).or_else(|| turn(text));
    found.extend(mark.map(|range| (MARK, range)));
    found
}

/// `<!-- ... -->`, and a link of Markdown that has no place: `[//]: # (...)`.
fn comment(text: &str) -> Option<Range<usize>> {
    spans(text, "<!--", "-->").or_else(|| {
        let of_markdown = ["[//]:", "[comment]:", "[_metadata_"];
        of_markdown.iter().find_map(|mark| spans(text, mark, "\n"))
    })
}

/// The first span with a sentence in it. What begins within another is a part of that.
fn spans(text: &str, begin: &str, end: &str) -> Option<Range<usize>> {
    let mut from = 0;
    while let Some(offset) = text[from..].find(begin) {
        let at = from + offset;
        let rest = window(text, at + begin.len());
        let length = rest.find(end).unwrap_or(rest.len());
        from = at + begin.len() + length;
        if has_sentence(&rest[..length]) {
            return Some(at..from);
        }
    }
    None
}

fn has_sentence(comment: &str) -> bool {
    comment.split_whitespace().filter(|word| word.chars().any(char::is_alphabetic)).count()
        >= COMMENT_WORDS_MIN
        || comment.chars().filter(|letter| !letter.is_ascii() && letter.is_alphabetic()).count()
            >= COMMENT_WORDS_MIN * 2
}

/// An element with a style by which it is not seen, or that says that it is hidden.
fn element(text: &str) -> Option<Range<usize>> {
    text.match_indices('<').find_map(|(at, _)| {
        let rest = window(text, at + 1);
        rest.starts_with(|letter: char| letter.is_ascii_alphabetic()).then_some(())?;
        let end = rest.find(['>', '<']).filter(|end| rest[*end..].starts_with('>'))?;
        let tag = &rest[..end];
        let style = tag.find("style").is_some_and(|style| {
            let said: String = tag[style..].chars().filter(|letter| !letter.is_whitespace()).collect();
            STYLES.iter().any(|hides| says(&said, hides))
                || PALE.iter().any(|pale| says(&said, pale)) && !has_dark_ground(&said)
        });
        let is_hidden = tag.split_whitespace().skip(1).any(|word| word == "hidden");
        (style || is_hidden).then_some(at..at + 1 + end)
    })
}

/// Whether a style is said as it is, and not as the beginning of another, such as `opacity:0.5`.
fn says(style: &str, hides: &str) -> bool {
    style.match_indices(hides).any(|(at, _)| {
        let rest = &style[at + hides.len()..];
        // `background-color` is another property.
        let is_whole = !style[..at].ends_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '-');
        is_whole && says_no_more(rest, hides)
    })
}

fn says_no_more(rest: &str, hides: &str) -> bool {
    !rest.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '.')
        || rest.starts_with("px")
        || hides == "color:#fff" && rest.starts_with("fff")
}

/// Whether pale letters stand on a ground that is said not to be pale.
fn has_dark_ground(style: &str) -> bool {
    let grounds = ["background:", "background-color:"];
    let said = grounds.iter().find_map(|ground| style.split_once(ground));
    said.is_some_and(|(_, ground)| {
        !["white", "#fff", "transparent", "none", "inherit"].iter().any(|pale| ground.starts_with(pale))
    })
}

/// An element that poses as somebody else: with its end.
fn posing(text: &str) -> Option<Range<usize>> {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    // Names that have no end behind where one was searched for, and so none further on.
    let (mut endless, mut from) = (Vec::new(), 0);
    while let Some(offset) = text[from..].find('<') {
        let at = from + offset;
        from = at + 1;
        let rest = &text[from..];
        let length = rest.find(|letter| !is_letter(letter)).unwrap_or(rest.len());
        let name = &rest[..length];
        if !NAMES.contains(&name) || endless.contains(&name) {
            continue;
        }
        let Some(end) = rest.find(&format!("</{name}")) else {
            endless.push(name);
            continue;
        };
        let body = rest[..end].split_once('>').map(|(_, body)| body).unwrap_or_default();
        from += end;
        if has_sentence(body) {
            return Some(at..from);
        }
    }
    None
}

/// A line that begins the turn of another speaker, behind an empty one.
fn turn(text: &str) -> Option<Range<usize>> {
    let turns = [
        "\n\nhuman:",
        "\n\nassistant:",
        "\n\nsystem:",
        "\n### system:",
        "\n### instruction:",
        "\n### instructions:\nyou",
    ];
    turns.iter().find_map(|turn| {
        let at = text.find(turn)?;
        has_sentence(window(text, at + turn.len())).then_some(at..at + turn.len())
    })
}

fn window(text: &str, from: usize) -> &str {
    let rest = text.get(from..).unwrap_or_default();
    let mut end = rest.len().min(SPAN_BYTES_MAX);
    while !rest.is_char_boundary(end) {
        end -= 1;
    }
    &rest[..end]
}
