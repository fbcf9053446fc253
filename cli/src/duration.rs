//! Spans of time on the command line, such as `30d`.

use std::str::FromStr;

/// A span in whole seconds, written as a number and one of `s`, `m`, `h`, `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// How long.
    pub(crate) seconds: u64,
}

/// Longest span, in seconds: ten years, beyond which "never" is meant.
const SECONDS_MAX: u64 = 10 * 366 * 86_400;

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let refused = || format!("{text:?} is no span of time; write a number and s, m, h or d, such as 30d");
        let unit = text.chars().next_back().ok_or_else(refused)?;
        let factor = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(refused()),
        };
        let count: u64 = text[..text.len() - 1].parse().map_err(|_| refused())?;
        match count.checked_mul(factor) {
            Some(0) => Err("the span must be longer than nothing".to_owned()),
            Some(seconds) if seconds <= SECONDS_MAX => Ok(Span { seconds }),
            Some(_) | None => Err("the span must be at most ten years".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        assert_eq!("30d".parse(), Ok(Span { seconds: 2_592_000 }));
        assert_eq!("90s".parse(), Ok(Span { seconds: 90 }));
        for text in ["", "d", "30", "1.5h", "-1d", "3ä"] {
            let expected =
                format!("{text:?} is no span of time; write a number and s, m, h or d, such as 30d");
            assert_eq!(text.parse::<Span>(), Err(expected));
        }
        assert_eq!("0s".parse::<Span>(), Err("the span must be longer than nothing".to_owned()));
        assert_eq!("9999d".parse::<Span>(), Err("the span must be at most ten years".to_owned()));
    }
}
