//! Where functions are, how long they are, and how many arguments they take.
//!
//! A function counts from the line of its `fn` to the line of its closing brace, comments and blank lines included.
//! Closures do not count: they are part of the function that holds them.

use crate::mask::is_word;

/// One function, with or without a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// The offset of its `fn`.
    pub(crate) start: usize,
    /// The offset past its closing brace or semicolon.
    pub(crate) end: usize,
    /// How many arguments it takes besides `self`.
    pub(crate) argument_count: usize,
}

/// All functions of masked source, in the order of their beginnings.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    words(code).filter(|(_, word)| *word == "fn").filter_map(|(start, _)| function(code, start)).collect()
}

/// All identifiers and keywords of masked source, with their offsets.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let bytes = code.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + bytes[at..].iter().position(|byte| is_word(*byte))?;
        let rest = &bytes[start..];
        at = start + rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
        Some((start, &code[start..at]))
    })
}

/// The offset past the bracket that closes the one at `open`; the end of the text if none does.
pub(crate) fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return offset + 1;
        }
    }
    code.len()
}

/// The function whose `fn` is at `start`; `None` for the type of a function pointer.
fn function(code: &str, start: usize) -> Option<Function> {
    let name_at = skip_blanks(code, start + "fn".len());
    let name: String = code[name_at..].chars().take_while(|c| is_name(*c)).collect();
    if name.is_empty() {
        return None;
    }
    let open = arguments_at(code, name_at + name.len())?;
    let after = closing(code, open);
    let arguments = split_arguments(&code[open + 1..after.saturating_sub(1)]);
    let argument_count = arguments.iter().filter(|argument| !is_self(argument)).count();
    Some(Function { name, start, end: end_of_item(code, after), argument_count })
}

/// A name may be raw, or a variable of a macro.
fn is_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '#' | '$')
}

/// The offset of the parenthesis that opens the arguments, past the generics.
fn arguments_at(code: &str, from: usize) -> Option<usize> {
    let mut angles = 0_usize;
    let mut previous = b' ';
    for (offset, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'<' => angles += 1,
            b'>' if !matches!(previous, b'-' | b'=') => angles = angles.saturating_sub(1),
            b'(' if angles == 0 => return Some(offset),
            b'{' | b';' if angles == 0 => return None,
            _ => {}
        }
        previous = byte;
    }
    None
}

/// The offset past the end of an item: past its first block, or past the semicolon before it.
pub(crate) fn end_of_item(code: &str, from: usize) -> usize {
    let bytes = code.as_bytes();
    let mut at = from;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b';' => return at + 1,
            b'{' => return closing(code, at),
            b'(' | b'[' => at = closing(code, at),
            _ => at += 1,
        }
    }
    code.len()
}

/// The pieces between the commas that no bracket encloses, without empty ones.
fn split_arguments(list: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut depth, mut piece_at, mut previous) = (0_usize, 0, b' ');
    for (offset, byte) in list.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' | b'<' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'>' if !matches!(previous, b'-' | b'=') => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                pieces.push(&list[piece_at..offset]);
                piece_at = offset + 1;
            }
            _ => {}
        }
        previous = byte;
    }
    pieces.push(&list[piece_at..]);
    pieces.into_iter().map(str::trim).filter(|piece| !piece.is_empty()).collect()
}

/// Whether an argument is `self` in one of its forms.
fn is_self(argument: &str) -> bool {
    let mut argument = argument;
    while argument.starts_with('#') {
        argument = argument[closing(argument, 1)..].trim_start();
    }
    let before_type = argument.split(':').next().unwrap_or(argument);
    let mut words = words(before_type).map(|(_, word)| word).filter(|word| *word != "mut").peekable();
    if before_type.contains('\'') {
        words.next();
    }
    words.next() == Some("self")
}

fn skip_blanks(code: &str, from: usize) -> usize {
    code.bytes()
        .enumerate()
        .skip(from)
        .find(|(_, byte)| !byte.is_ascii_whitespace())
        .map_or(code.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::functions;
    use crate::mask::mask;

    /// Name, lines and arguments of every function of a source.
    fn measured(text: &str) -> Vec<(String, usize, usize)> {
        let lines = |start: usize, end: usize| text[start..end].lines().count();
        functions(&mask(text))
            .into_iter()
            .map(|function| (function.name, lines(function.start, function.end), function.argument_count))
            .collect()
    }

    fn one(name: &str, lines: usize, arguments: usize) -> Vec<(String, usize, usize)> {
        vec![(name.to_owned(), lines, arguments)]
    }

    #[test]
    fn a_function_is_measured_from_its_name_to_its_brace() {
        let text = format!(
            "\n/// Words.\npub async fn long() {{\n{}}}\nstruct After;\n",
            "    step();\n".repeat(69)
        );
        assert_eq!(measured(&text), one("long", 71, 0));
    }

    #[test]
    fn braces_that_are_no_code_do_not_end_a_function() {
        let text = "fn f() {\n let a = \"}\";\n let b = '}';\n // }\n /* } */\n let c = r#\"}\"\"#;\n}\n}";
        assert_eq!(measured(text), one("f", 7, 0));
    }

    #[test]
    fn arguments_are_counted_without_self_and_without_commas_inside_of_types() {
        let text = "fn f<A: Fn(u8, u8) -> u8, const N: usize>(&'a mut self, a: A, m: HashMap<u8, Vec<(u8, u8)>>,\n \
                    g: impl Fn(u8, u8) -> [u8; N], (x, y): (u8, u8),\n) -> Result<(), u8> where A: Copy { }";
        assert_eq!(measured(text), one("f", 3, 4));
        for form in [
            "self",
            "mut self",
            "&self",
            "&mut self",
            "&'a self",
            "self: &Arc<Self>",
            "self: Box<Self>",
            "#[cfg(a)] mut self",
        ] {
            assert_eq!(measured(&format!("fn f({form}) {{}}")), one("f", 1, 0), "{form}");
        }
        for form in ["selfish: u8", "&'a x: &'a X", "mut x: Self"] {
            assert_eq!(measured(&format!("fn f({form}) {{}}")), one("f", 1, 1), "{form}");
        }
    }

    #[test]
    fn a_declaration_ends_at_its_semicolon_and_a_pointer_type_is_no_function() {
        let text = "trait T { fn a(x: [u8; 2]) -> [u8; 4]; }\nstruct S { f: fn(u8, u8) -> u8 }\n";
        assert_eq!(measured(text), one("a", 1, 1));
    }

    #[test]
    fn a_function_within_another_is_measured_by_itself_too() {
        let names: Vec<_> = measured("fn outer() {\n fn inner(a: u8) {\n }\n}").into_iter().collect();
        assert_eq!(names, [("outer".to_owned(), 4, 0), ("inner".to_owned(), 2, 1)]);
    }
}
