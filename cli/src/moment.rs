//! Points in time as people and programs read them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970 as RFC 3339 with whole seconds; empty for what no calendar has.
pub(crate) fn rfc3339(milliseconds: u64) -> String {
    i64::try_from(milliseconds / 1_000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// An RFC 3339 text without the digits below a millisecond.
pub(crate) fn to_milliseconds(text: &str) -> String {
    let Some((seconds, rest)) = text.split_once('.') else {
        return text.to_owned();
    };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    format!("{seconds}.{:0<3}{}", &rest[..digits.min(3)], &rest[digits..])
}

/// Microseconds as people read them.
pub(crate) fn short(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("{microseconds} µs"),
        1_000..1_000_000 => format!("{}.{} ms", microseconds / 1_000, microseconds % 1_000 / 100),
        _ => format!("{}.{} s", microseconds / 1_000_000, microseconds % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_spans_have_one_form() {
        assert_eq!(rfc3339(1_800_000_000_123), "2027-01-15T08:00:00Z");
        assert_eq!(rfc3339(u64::MAX), "");
        assert_eq!(to_milliseconds("2027-01-15T08:00:00.123456789Z"), "2027-01-15T08:00:00.123Z");
        assert_eq!(to_milliseconds("2027-01-15T08:00:00.5Z"), "2027-01-15T08:00:00.500Z");
        assert_eq!(to_milliseconds("2027-01-15T08:00:00Z"), "2027-01-15T08:00:00Z");
        assert_eq!([short(12), short(1_250), short(2_500_000)], ["12 µs", "1.2 ms", "2.5 s"]);
    }
}
