//! Numbers of payment cards.
//!
//! Always holds: a number has a length and a beginning that its issuer gives, its last digit fits (Luhn), and it is
//! written without breaks or in the groups in which cards show it; beside it stands no letter, digit or hyphen.

use std::ops::Range;

/// Most digits of a number.
const DIGITS_MAX: usize = 19;
/// Fewest.
const DIGITS_MIN: usize = 13;

pub(super) fn find(bytes: &[u8], found: &mut dyn FnMut(Range<usize>)) {
    let mut at = 0;
    while let Some(offset) = bytes.get(at..).and_then(|rest| rest.iter().position(u8::is_ascii_digit)) {
        let start = at + offset;
        let run = digits(bytes, start);
        at = run.end;
        let is_alone =
            start.checked_sub(1).and_then(|before| bytes.get(before)).is_none_or(|byte| !joins(*byte))
                && bytes.get(run.end).is_none_or(|byte| !joins(*byte));
        if is_alone && run.is_card() {
            found(start..run.end);
        }
    }
}

/// What makes a number a part of something else: an identifier, or a decimal.
fn joins(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || byte >= 0x80
}

struct Run {
    digits: [u8; DIGITS_MAX],
    count: usize,
    /// Digits of each group, when there are several.
    groups: [usize; 5],
    group_count: usize,
    end: usize,
}

/// Digits from a position on, with single spaces, or single hyphens, between groups.
fn digits(bytes: &[u8], start: usize) -> Run {
    let mut run = Run { digits: [0; DIGITS_MAX], count: 0, groups: [0; 5], group_count: 1, end: start };
    let mut separator = None;
    let mut at = start;
    while let Some(&byte) = bytes.get(at) {
        let follows_digit = bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        match byte {
            b'0'..=b'9' => {
                if let Some(place) = run.digits.get_mut(run.count) {
                    *place = byte - b'0';
                }
                run.count += 1;
                if let Some(group) = run.groups.get_mut(run.group_count - 1) {
                    *group += 1;
                }
                run.end = at + 1;
            }
            b' ' | b'-' if follows_digit && *separator.get_or_insert(byte) == byte => run.group_count += 1,
            _ => break,
        }
        at += 1;
    }
    run
}

impl Run {
    fn is_card(&self) -> bool {
        let Some(digits) = self.digits.get(..self.count).filter(|_| self.count >= DIGITS_MIN) else {
            return false;
        };
        self.is_grouped_well() && is_issued(digits) && luhn(digits)
    }

    fn is_grouped_well(&self) -> bool {
        match self.groups.get(..self.group_count) {
            None => false,
            Some([_]) => true,
            // American Express and Diners; all others by four.
            Some([4, 6, 4 | 5]) => true,
            Some([groups @ .., last]) => groups.iter().all(|group| *group == 4) && (1..=4).contains(last),
            Some([]) => false,
        }
    }
}

/// By beginning and length.
fn is_issued(digits: &[u8]) -> bool {
    let first =
        |count: usize| digits.iter().take(count).fold(0_u32, |number, digit| number * 10 + u32::from(*digit));
    let (two, three, four) = (first(2), first(3), first(4));
    match digits.len() {
        13 => first(1) == 4,
        14 => matches!(three, 300..=305) || matches!(two, 36 | 38),
        15 => matches!(two, 34 | 37),
        16 => {
            let is_mastercard = matches!(two, 51..=55) || matches!(four, 2221..=2720);
            let is_discover = four == 6011 || matches!(three, 644..=649) || two == 65;
            first(1) == 4 || is_mastercard || is_discover || matches!(four, 3528..=3589) || two == 62
        }
        17 | 18 => two == 62,
        19 => first(1) == 4 || two == 62,
        _ => false,
    }
}

fn luhn(digits: &[u8]) -> bool {
    let weigh = |(index, digit): (usize, &u8)| match index % 2 {
        1 if *digit > 4 => u32::from(*digit) * 2 - 9,
        1 => u32::from(*digit) * 2,
        _ => u32::from(*digit),
    };
    // A row of one digit is a placeholder.
    digits.windows(2).any(|pair| pair[0] != pair[1])
        && digits.iter().rev().enumerate().map(weigh).sum::<u32>() % 10 == 0
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
    fn numbers_of_cards_are_found_as_they_are_written() {
        for text in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "5555555555554444",
            "2223003122003222",
            "378282246310005",
            "3782 822463 10005",
            "30569309025904",
            "6011111111111117",
            "3530111333300000",
            "6200000000000005",
        ] {
            assert_eq!(all(&format!("pay with {text}, please")), [text], "{text}");
        }
    }

    #[test]
    fn other_numbers_are_none() {
        for text in [
            "4111111111111112",
            "9111111111111111",
            "411111111111",
            "a4111111111111111",
            "4111111111111111-7",
            "order_4111111111111111",
            "41 11 11 11 11 11 11 11",
            "4111 1111-1111 1111",
            "0000000000000000",
            "411111111111111141111111111111114111111111111111",
            "1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7",
        ] {
            assert_eq!(all(text), Vec::<&str>::new(), "{text}");
        }
    }
}
