//! Figures of a run: one value per name and round, and what is made of them.
//!
//! What always holds: `min <= median <= max` over the rounds in which a figure was measured, and
//! two figures are only combined within one round, since only those were measured side by side.
//! Names carry their unit; this module does not look into them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The values of a run by name, and by round within a name.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    series: BTreeMap<String, BTreeMap<u32, f64>>,
}

/// A figure over all rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The middle value; the mean of the two middle ones if their number is even.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Figures {
    /// Adds the value of a round. A second value for the same round replaces the first.
    pub fn add(&mut self, name: impl Into<String>, round: u32, value: f64) {
        self.series.entry(name.into()).or_default().insert(round, value);
    }

    /// Adds a figure made of two others in every round that has both. A value that is not a
    /// number, as of a division by zero, is left out.
    pub fn combine(&mut self, name: &str, left: &str, right: &str, with: impl Fn(f64, f64) -> f64) {
        let (Some(left), Some(right)) = (self.series.get(left), self.series.get(right)) else {
            return;
        };
        let combined: BTreeMap<u32, f64> = left
            .iter()
            .filter_map(|(round, left)| Some((*round, with(*left, *right.get(round)?))))
            .filter(|(_, value)| value.is_finite())
            .collect();
        if !combined.is_empty() {
            self.series.insert(name.to_owned(), combined);
        }
    }

    /// A figure over its rounds; `None` if it was not measured.
    #[must_use]
    pub fn summary(&self, name: &str) -> Option<Summary> {
        self.series.get(name).and_then(summarise)
    }

    /// Everything as flat `NAME_median`, `NAME_min`, `NAME_max`.
    #[must_use]
    pub fn flat(&self) -> Map<String, Value> {
        let mut flat = Map::new();
        for (name, values) in &self.series {
            if let Some(summary) = summarise(values) {
                flat.insert(format!("{name}_median"), json!(summary.median));
                flat.insert(format!("{name}_min"), json!(summary.min));
                flat.insert(format!("{name}_max"), json!(summary.max));
            }
        }
        flat
    }
}

fn summarise(values: &BTreeMap<u32, f64>) -> Option<Summary> {
    let mut sorted: Vec<f64> = values.values().copied().collect();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    };
    assert!(min <= median && median <= max, "{min} <= {median} <= {max}");
    Some(Summary { median, min, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_the_median_with_the_extremes() {
        let mut figures = Figures::default();
        for (round, value) in [5.0, 1.0, 3.0].into_iter().enumerate() {
            figures.add("odd", u32::try_from(round).expect("the test is right"), value);
        }
        figures.add("even", 0, 1.0);
        figures.add("even", 1, 2.0);
        assert_eq!(figures.summary("odd"), Some(Summary { median: 3.0, min: 1.0, max: 5.0 }));
        assert_eq!(figures.summary("even"), Some(Summary { median: 1.5, min: 1.0, max: 2.0 }));
        assert_eq!(figures.summary("none"), None);
    }

    #[test]
    fn figures_are_combined_within_a_round_only() {
        let mut figures = Figures::default();
        for (round, left, right) in [(0, 10.0, Some(5.0)), (1, 30.0, None), (2, 8.0, Some(0.0))] {
            figures.add("left", round, left);
            if let Some(right) = right {
                figures.add("right", round, right);
            }
        }
        figures.combine("ratio", "left", "right", |left, right| left / right);
        assert_eq!(figures.summary("ratio"), Some(Summary { median: 2.0, min: 2.0, max: 2.0 }));
        figures.combine("nothing", "left", "absent", |left, _| left);
        assert_eq!(figures.summary("nothing"), None);
    }

    #[test]
    fn the_flat_object_has_three_entries_for_a_figure() {
        let mut figures = Figures::default();
        figures.add("call_p50_us", 0, 2.5);
        let expected = json!({
            "call_p50_us_median": 2.5, "call_p50_us_min": 2.5, "call_p50_us_max": 2.5,
        });
        assert_eq!(Value::Object(figures.flat()), expected);
    }
}
