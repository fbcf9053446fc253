//! The rates that the README tells are held here, for other seeds than those that it tells them of.

#[path = "corpus/cases.rs"]
mod corpus;
#[path = "corpus/redaction.rs"]
mod redaction;

use gantry_model::inspection::Detector;

const SEEDS: [u64; 3] = [1, 2, 1_000_003];
const CASES: usize = 2_000;

/// At least so much found, and at most so much of what is innocent, in percent.
const BOUNDS: (f64, f64) = (99.0, 0.5);

#[test]
fn filters_find_what_they_are_for_and_let_pass_what_is_innocent() {
    for seed in SEEDS {
        let mut odd = Vec::new();
        let rates = corpus::rates::filters(seed, CASES, &mut |what, text| {
            odd.push(format!("{what}: {:?}", text.chars().take(120).collect::<String>()));
        });
        for (filter, rate) in rates {
            assert!(rate.attacks >= CASES / 10, "{filter:?}: {rate:?}");
            let is_good = rate.detection() >= BOUNDS.0 && rate.false_positive() <= BOUNDS.1;
            assert!(is_good, "seed {seed}, {filter:?}: {rate:?}\n{}", odd.join("\n"));
        }
    }
}

#[test]
fn detectors_take_out_what_they_are_for_and_let_other_numbers_be() {
    for seed in SEEDS {
        for (detector, rate) in corpus::rates::detectors(seed, CASES, &mut |_, _| {}) {
            // A fifth of the innocent texts are numbers of orders with as many digits as a card; one in ten of those that
            // begin like one fits its check digit, and no detector can tell.
            let most = if detector == Detector::Cards { 2.0 } else { BOUNDS.1 };
            let is_good = rate.detection() >= BOUNDS.0 && rate.false_positive() <= most;
            assert!(is_good, "seed {seed}, {detector:?}: {rate:?}");
        }
    }
}

#[test]
fn definitions_that_speak_behind_the_users_back_are_found_and_innocent_ones_are_not() {
    for seed in SEEDS {
        let mut odd = Vec::new();
        let rates = corpus::definitions::rates(seed, CASES, &mut |what, text| {
            odd.push(format!("{what}: {:?}", text.chars().take(600).collect::<String>()));
        });
        for (what, rate) in rates {
            assert!(rate.attacks >= CASES / 20, "{what}: {rate:?}");
            let is_good = rate.detection() >= BOUNDS.0 && rate.false_positive() <= BOUNDS.1;
            assert!(is_good, "seed {seed}, {what}: {rate:?}\n{}", odd.join("\n"));
        }
    }
}
