//! The runs themselves: many seeds, and one seed twice.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use super::{Run, run};

/// Seeds of the short form.
const SEEDS: u64 = 100;
/// Failures after which a run of many seeds ends.
const FAILURES_MAX: usize = 5;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn whatever_goes_wrong_the_cluster_is_one_register_and_comes_back() {
    let first = number("GANTRY_SIM_SEED").unwrap_or(1);
    let seeds = number("GANTRY_SIM_SEEDS").unwrap_or(SEEDS);
    println!("GANTRY_SIM_SEED={first} GANTRY_SIM_SEEDS={seeds}");
    let begun = Instant::now();
    let next = AtomicU64::new(first);
    let (answered, operations) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failures.lock().expect("not poisoned").len() < FAILURES_MAX {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    match catch_unwind(AssertUnwindSafe(|| run(seed))) {
                        Ok(run) => {
                            answered.fetch_add(run.answered, Ordering::Relaxed);
                            operations.fetch_add(run.operations, Ordering::Relaxed);
                            if !run.recorded.violations.is_empty() {
                                failures.lock().expect("not poisoned").push((seed, told(&run)));
                            }
                        }
                        Err(panic) => {
                            let text = panic.downcast_ref::<String>().map(String::as_str);
                            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                            let text = format!("it panicked: {}", text.unwrap_or("for no reason given"));
                            failures.lock().expect("not poisoned").push((seed, text));
                        }
                    }
                    if (seed - first + 1).is_multiple_of(500) {
                        let seconds = begun.elapsed().as_secs();
                        println!("{} seeds in {seconds} s", seed - first + 1);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("not poisoned");
    let ran = next.into_inner().min(first + seeds) - first;
    let (answered, operations) = (answered.into_inner(), operations.into_inner());
    println!(
        "{ran} seeds in {} s, {answered} of {operations} operations answered",
        begun.elapsed().as_secs()
    );
    for (seed, told) in &failures {
        println!(
            "seed {seed}: {told}\n  GANTRY_SIM_SEED={seed} GANTRY_SIM_SEEDS=1 cargo test -p gantry-control-plane \
             --lib simulation::seeds"
        );
    }
    let failed: Vec<u64> = failures.iter().map(|(seed, _)| *seed).collect();
    assert_eq!(failed, Vec::<u64>::new(), "seeds that failed");
    // One seed may be all trouble.
    let means_something = seeds < SEEDS || answered * 2 > operations;
    assert!(means_something, "too little was answered for the runs to mean anything");
}

/// What broke; for one seed alone, all that happened.
fn told(run: &Run) -> String {
    let violations = run.recorded.violations.join("\n  ");
    if number("GANTRY_SIM_SEEDS") == Some(1) {
        format!("{}\n  {violations}", run.recorded.lines.join("\n"))
    } else {
        violations
    }
}

#[test]
fn a_seed_repeats_its_run_to_the_last_event() {
    for seed in [1, 2, 3] {
        let (one, other) = (run(seed).recorded, run(seed).recorded);
        let differs = one.lines.iter().zip(&other.lines).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(one.digest, other.digest, "seed {seed}");
    }
    assert_ne!(run(1).recorded.digest, run(2).recorded.digest);
}
