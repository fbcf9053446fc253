//! The names under which an endpoint of several servers offers their tools and prompts.
//!
//! Always holds: what [`exposed_name`] gives is a name that every client and model takes ([`is_exposable`]); it
//! depends on its arguments only, so every node and every build gives the same.

use crate::name::ServerName;

/// Longest name in bytes that every client and model takes.
pub const EXPOSED_NAME_BYTES_MAX: usize = 64;
/// Stands between server and name. A server's name has no `_`, so the first of these ends it.
pub const SEPARATOR: &str = "__";
/// What is kept of a name that is shortened: with `_` and the mark it is as long as a name may be.
const KEPT_BYTES_MAX: usize = EXPOSED_NAME_BYTES_MAX - 1 - MARK_DIGITS;
/// Hexadecimal digits of the mark, which stands for the whole name.
const MARK_DIGITS: usize = 8;

/// Whether a name is one that every client and model takes: 1 to [`EXPOSED_NAME_BYTES_MAX`] of `A-Z a-z 0-9 _ . -`.
pub fn is_exposable(name: &str) -> bool {
    (1..=EXPOSED_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_legal)
}

/// The name of a server's tool or prompt under `naming: prefixed`: `server__name` where that [`is_exposable`].
///
/// Otherwise its first 55 characters with other characters replaced by `_`, then `_` and 8 hexadecimal digits of the
/// blake3 of `server__name`. A name that ends like that by itself is treated the same, so that no name can be chosen
/// to be another's short form: two different names meet only where the 8 digits meet by chance (or by great effort,
/// and then on one server, or on servers that share the first 53 characters of their names). Whoever makes a table
/// of these names still decides what happens when one stands in it already.
pub fn exposed_name(server: &ServerName, name: &str) -> String {
    let whole = format!("{server}{SEPARATOR}{name}");
    if is_exposable(&whole) && !ends_with_mark(&whole) {
        return whole;
    }
    let legal =
        |character: char| if character.is_ascii() && is_legal(character as u8) { character } else { '_' };
    let kept: String = whole.chars().take(KEPT_BYTES_MAX).map(legal).collect();
    let mark = blake3::hash(whole.as_bytes()).to_hex();
    format!("{kept}_{}", &mark[..MARK_DIGITS])
}

fn is_legal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

fn ends_with_mark(name: &str) -> bool {
    let bytes = name.as_bytes();
    let Some(start) = bytes.len().checked_sub(MARK_DIGITS + 1) else { return false };
    bytes[start] == b'_' && bytes[start + 1..].iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn server(name: &str) -> ServerName {
        name.parse().expect("a name")
    }

    #[test]
    fn a_name_that_fits_stands_behind_its_server() {
        assert_eq!(exposed_name(&server("files"), "read_file"), "files__read_file");
        assert_eq!(exposed_name(&server("files"), &"x".repeat(57)), format!("files__{}", "x".repeat(57)));
    }

    #[test]
    fn a_name_that_does_not_fit_is_shortened_and_marked() {
        let shortened = exposed_name(&server("files"), &"x".repeat(58));
        let mark = blake3::hash(format!("files__{}", "x".repeat(58)).as_bytes()).to_hex();
        assert_eq!(shortened, format!("files__{}_{}", "x".repeat(48), &mark[..8]));
        assert_eq!(shortened.len(), EXPOSED_NAME_BYTES_MAX);
        let mark = blake3::hash("files__lies dié".as_bytes()).to_hex();
        assert_eq!(exposed_name(&server("files"), "lies dié"), format!("files__lies_di__{}", &mark[..8]));
    }

    #[test]
    fn no_name_can_be_chosen_to_be_the_short_form_of_another() {
        let victim = exposed_name(&server("a"), "b c");
        let chosen = victim.strip_prefix("a__").expect("a prefix");
        assert_ne!(exposed_name(&server("a"), chosen), victim);
    }

    #[test]
    fn a_separator_within_a_name_does_not_move_it_to_another_server() {
        // A server's name has no `_`: `a__b` with a tool `c` cannot be, and `a` with `b__c` has the name alone.
        assert!("a__b".parse::<ServerName>().is_err());
        assert_eq!(exposed_name(&server("a"), "b__c"), "a__b__c");
        assert_eq!(exposed_name(&server("a"), "__c"), "a____c");
    }

    fn server_names() -> impl Strategy<Value = ServerName> {
        prop_oneof!["[a-c]", "[a-b](-[a-b]){0,3}", "[a-b]{60,63}"]
            .prop_map(|name: String| name.parse().expect("a name"))
    }

    fn tool_names() -> impl Strategy<Value = String> {
        prop_oneof!["[a-b_]{1,6}", "[a-b]{50,70}", "[a-b _é/]{1,4}", "[a-b]{0,3}_[0-9a-f]{8}", "\\PC{1,80}"]
    }

    proptest! {
        #[test]
        fn different_names_stay_different_and_every_name_is_legal(
            names in prop::collection::vec((server_names(), tool_names()), 1..40)
        ) {
            let mut exposed = BTreeMap::new();
            for (server, name) in names {
                let found = exposed_name(&server, &name);
                prop_assert!(is_exposable(&found), "{found:?}");
                prop_assert_eq!(&found, &exposed_name(&server, &name));
                let owner = exposed.entry(found).or_insert_with(|| (server.clone(), name.clone()));
                prop_assert_eq!(&*owner, &(server, name));
            }
        }
    }
}
