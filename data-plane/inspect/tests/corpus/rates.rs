//! How much of the corpus is found, and how much of what is innocent.

use gantry_inspect::Detectors;
use gantry_model::inspection::{Detector, Filter};

use super::{Label, answers, attacks, innocent, inspection, rng::Rng};

/// What was found of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) attacks: usize,
    pub(crate) detected: usize,
    pub(crate) innocent: usize,
    pub(crate) false_positives: usize,
}

impl Rate {
    /// Of the attacks, in percent.
    pub(crate) fn detection(&self) -> f64 {
        percent(self.detected, self.attacks)
    }

    /// Of the innocent, in percent.
    pub(crate) fn false_positive(&self) -> f64 {
        percent(self.false_positives, self.innocent)
    }
}

fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// By filter, over so many attacks and as many innocent cases. What was missed, or found where nothing is, is told to
/// `odd`.
pub(crate) fn filters(seed: u64, count: usize, odd: &mut dyn FnMut(&str, &str)) -> Vec<(Filter, Rate)> {
    let (inspection, mut rng) = (inspection(), Rng::new(seed));
    let mut rates: Vec<(Filter, Rate)> = Filter::OF_CALLS.map(|filter| (filter, Rate::default())).into();
    for index in 0..count {
        let case = attacks::attack(index, &mut rng);
        let findings = inspection.inspect(&case.arguments());
        let Label::Attack(wanted) = case.label else { continue };
        let is_found = findings.as_slice().iter().any(|finding| finding.filter == wanted);
        let (_, rate) = &mut rates[wanted as usize];
        rate.attacks += 1;
        rate.detected += usize::from(is_found);
        if !is_found {
            odd(&format!("{} missed", wanted.as_str()), &case.text);
        }
    }
    for index in 0..count {
        let case = innocent::innocent(index, &mut rng);
        let findings = inspection.inspect(&case.arguments());
        for (filter, rate) in &mut rates {
            rate.innocent += 1;
            if let Some(finding) = findings.as_slice().iter().find(|finding| finding.filter == *filter) {
                rate.false_positives += 1;
                odd(&format!("found {finding}"), &case.text);
            }
        }
    }
    rates
}

/// By detector, in the same way. A text counts as detected when all of what is to be taken out is.
pub(crate) fn detectors(seed: u64, count: usize, odd: &mut dyn FnMut(&str, &str)) -> Vec<(Detector, Rate)> {
    let all = [Detector::Keys, Detector::Emails, Detector::Cards, Detector::Ibans];
    let mut rng = Rng::new(seed);
    let mut rates: Vec<(Detector, Rate)> = all.map(|detector| (detector, Rate::default())).into();
    for index in 0..count {
        let answer = answers::telling(index, &mut rng);
        for (detector, rate) in rates.iter_mut().filter(|(detector, _)| Some(*detector) == answer.holds) {
            rate.attacks += 1;
            let redacted = gantry_inspect::redact(&answer.text, &Detectors::default().with(*detector));
            let is_gone = !redacted.contains(&answer.what) && redacted != answer.text;
            rate.detected += usize::from(is_gone);
            if !is_gone {
                odd(&format!("{} missed", detector.as_str()), &answer.text);
            }
        }
    }
    for index in 0..count {
        let answer = answers::plain(index, &mut rng);
        for (detector, rate) in &mut rates {
            rate.innocent += 1;
            if !Detectors::default().with(*detector).find(&answer.text).is_empty() {
                rate.false_positives += 1;
                odd(&format!("found {}", detector.as_str()), &answer.text);
            }
        }
    }
    rates
}
