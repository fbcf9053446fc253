//! Numbers of bank accounts (IBAN, ISO 13616).
//!
//! Always holds: a number has the length that its country gives, its check digits fit (ISO 7064, modulo 97), and it is
//! written without breaks or in groups of four.

use std::ops::Range;

/// Countries, and how long their numbers are.
const LENGTHS: [(&[u8; 2], usize); 88] = [
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
];

pub(super) fn find(bytes: &[u8], found: &mut dyn FnMut(Range<usize>)) {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let is_begin = byte.is_ascii_uppercase()
            && at
                .checked_sub(1)
                .and_then(|before| bytes.get(before))
                .is_none_or(|before| !before.is_ascii_alphanumeric());
        match is_begin.then(|| end_of(bytes, at)).flatten() {
            Some(end) => {
                found(at..end);
                at = end;
            }
            None => at += 1,
        }
    }
}

/// The end of the number that begins at a position.
fn end_of(bytes: &[u8], start: usize) -> Option<usize> {
    let head = bytes.get(start..start + 4)?;
    let is_head = head[1].is_ascii_uppercase() && head[2].is_ascii_digit() && head[3].is_ascii_digit();
    is_head.then_some(())?;
    let length = LENGTHS.iter().find(|(country, _)| country[..] == head[..2]).map(|(_, length)| *length)?;
    let breaks = bytes.get(start + 4) == Some(&b' ');
    let (mut count, mut at, mut remainder, mut moved) = (0, start, 0, 0);
    while count < length {
        if breaks && count > 0 && count % 4 == 0 {
            (bytes.get(at) == Some(&b' ')).then_some(())?;
            at += 1;
        }
        let value = match bytes.get(at)? {
            digit @ b'0'..=b'9' => u32::from(digit - b'0'),
            letter @ b'A'..=b'Z' => u32::from(letter - b'A') + 10,
            _ => return None,
        };
        // The first four count behind all others.
        if count < 4 {
            moved = append(moved, value);
        } else {
            remainder = append(remainder, value) % 97;
        }
        count += 1;
        at += 1;
    }
    let is_end = bytes.get(at).is_none_or(|after| !after.is_ascii_alphanumeric());
    // Two letters and two digits are six digits in all.
    (is_end && (remainder * 1_000_000 + moved) % 97 == 1).then_some(at)
}

/// A letter is two digits.
fn append(sum: u32, value: u32) -> u32 {
    sum * if value > 9 { 100 } else { 10 } + value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        find(text.as_bytes(), &mut |range| found.push(&text[range]));
        found
    }

    #[test]
    fn numbers_of_accounts_are_found_as_they_are_written() {
        for text in [
            "DE89370400440532013000",
            "DE89 3704 0044 0532 0130 00",
            "GB29NWBK60161331926819",
            "FR1420041010050500013M02606",
            "NL91ABNA0417164300",
            "NO9386011117947",
            "MT84MALT011000012345MTLCAST001S",
            "CH93 0076 2011 6238 5295 7",
        ] {
            assert_eq!(all(&format!("to {text}.")), [text], "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        for text in [
            "DE89370400440532013001",
            "DE8937040044053201300",
            "DE893704004405320130000",
            "XX89370400440532013000",
            "xDE89370400440532013000",
            "DE89 37040044 0532 0130 00",
            "DE89",
            "THE QUICK BROWN FOX",
        ] {
            assert_eq!(all(text), Vec::<&str>::new(), "{text}");
        }
    }
}
