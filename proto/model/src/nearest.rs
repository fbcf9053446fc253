//! The nearest known name, for error messages.

/// A suggestion may differ from what was written by at most this share of its length; farther is no help.
const SIMILARITY_MIN: f64 = 0.6;

/// The candidate most like `name`, when one is like it at all.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_a_stranger_is_not() {
        assert_eq!(nearest("servres", ["servers", "anonymous"]), Some("servers"));
        assert_eq!(nearest("zebra", ["servers", "anonymous"]), None);
    }
}
