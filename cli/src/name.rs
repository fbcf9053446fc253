//! Names from outside made into names of resources.

use gantry_model::Name;
use gantry_model::name::NAME_BYTES_MAX;

/// The nearest text that is a name: lower case, everything else than letters and digits as `-`; `None` when nothing
/// of it can stand in a name.
pub(crate) fn sanitised(text: &str) -> Option<Name> {
    let mut name = String::with_capacity(text.len());
    for character in text.chars().map(|character| character.to_ascii_lowercase()) {
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            name.push(character);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(NAME_BYTES_MAX);
    name.trim_end_matches('-').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_the_nearest_name() {
        let made = |text: &str| sanitised(text).map(|name| name.to_string());
        assert_eq!(made("My Server_2"), Some("my-server-2".to_owned()));
        assert_eq!(made("--a--"), Some("a".to_owned()));
        assert_eq!(made("é"), None);
        assert_eq!(made(&"x".repeat(80)), Some("x".repeat(63)));
    }
}
