//! The bars that figures are held to, as data: a new bar is a new row.
//!
//! What always holds: a required bar whose figure was not measured is missed, because a check that
//! checks nothing must not pass; an aim is printed and never fails a run.

use crate::figures::Figures;

/// What a figure is held to.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// The figure; its median counts.
    pub figure: &'static str,
    /// The bound.
    pub bound: Bound,
    /// What a miss means.
    pub weight: Weight,
    /// Why it is there, for people.
    pub reason: &'static str,
}

/// A bound on a figure, itself included.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// The figure is this or less.
    AtMost(f64),
    /// The figure is this or more.
    AtLeast(f64),
}

/// What missing a bar means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// `--check` fails.
    Required,
    /// It is printed.
    Aim,
}

/// How a run did at a bar.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// The bar.
    pub bar: Bar,
    /// The median, if it was measured.
    pub actual: Option<f64>,
}

impl Verdict {
    /// Whether the bound holds; not so if the figure was not measured.
    #[must_use]
    pub fn is_met(&self) -> bool {
        match (self.actual, self.bar.bound) {
            (None, _) => false,
            (Some(actual), Bound::AtMost(limit)) => actual <= limit,
            (Some(actual), Bound::AtLeast(limit)) => actual >= limit,
        }
    }

    /// Whether `--check` has to fail.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.bar.weight == Weight::Required && !self.is_met()
    }

    /// One line for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let outcome = match (self.is_met(), self.actual, self.bar.weight) {
            (true, _, _) => "met",
            (false, None, Weight::Aim) => "not measured",
            (false, _, Weight::Aim) => "aim missed",
            (false, _, Weight::Required) => "MISSED",
        };
        let actual = self.actual.map_or("-".to_owned(), |actual| format!("{actual:.2}"));
        let (sign, limit) = match self.bar.bound {
            Bound::AtMost(limit) => ("<=", limit),
            Bound::AtLeast(limit) => (">=", limit),
        };
        let Bar { figure, reason, .. } = self.bar;
        format!("{outcome:<12} {figure} = {actual} (bar: {sign} {limit}): {reason}")
    }
}

/// Holds figures to bars.
#[must_use]
pub fn judge(bars: &[Bar], figures: &Figures) -> Vec<Verdict> {
    let verdict = |bar: &Bar| {
        let actual = figures.summary(bar.figure).map(|summary| summary.median);
        Verdict { bar: *bar, actual }
    };
    bars.iter().map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(weight: Weight, bound: Bound, actual: Option<f64>) -> Verdict {
        let mut figures = Figures::default();
        if let Some(actual) = actual {
            figures.add("f", 0, actual);
        }
        judge(&[Bar { figure: "f", bound, weight, reason: "because" }], &figures)[0]
    }

    #[test]
    fn bounds_include_themselves() {
        for (bound, actual, is_met) in [
            (Bound::AtMost(2.5), 2.5, true),
            (Bound::AtMost(2.5), 2.6, false),
            (Bound::AtLeast(1.0), 1.0, true),
            (Bound::AtLeast(1.0), 0.9, false),
        ] {
            let verdict = verdict(Weight::Required, bound, Some(actual));
            assert_eq!(verdict.is_met(), is_met, "{verdict:?}");
            assert_eq!(verdict.is_failure(), !is_met, "{verdict:?}");
        }
    }

    #[test]
    fn only_a_required_bar_fails_and_it_does_so_when_nothing_was_measured() {
        assert!(verdict(Weight::Required, Bound::AtMost(1.0), None).is_failure());
        assert!(!verdict(Weight::Aim, Bound::AtMost(1.0), None).is_failure());
        assert!(!verdict(Weight::Aim, Bound::AtMost(1.0), Some(2.0)).is_failure());
    }

    #[test]
    fn a_verdict_names_the_figure_and_both_numbers() {
        let verdict = verdict(Weight::Aim, Bound::AtMost(2.5), Some(3.0));
        assert_eq!(verdict.describe(), "aim missed   f = 3.00 (bar: <= 2.5): because");
    }
}
