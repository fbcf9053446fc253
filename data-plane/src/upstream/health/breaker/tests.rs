//! The breaker under a clock that the test moves.

use super::*;

/// A breaker and the time it lives in.
struct Bench {
    breaker: Breaker,
    now: Instant,
}

impl Bench {
    fn new() -> Bench {
        let now = Instant::now();
        Bench { breaker: Breaker::new(now), now }
    }

    fn enter(&self) -> Result<Entry, Duration> {
        self.breaker.enter(self.now)
    }

    fn call(&self, succeeds: bool) {
        let entry = self.enter().expect("the call passes");
        self.tell(entry, succeeds);
    }

    fn tell(&self, entry: Entry, succeeded: bool) {
        match succeeded {
            true => self.breaker.succeeded(entry, self.now),
            false => self.breaker.failed(entry, self.now, 0),
        }
    }

    fn fail_in_a_row(&self) {
        for _ in 0..STREAK {
            self.call(false);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn failures_in_a_row_open_it_and_a_success_between_them_does_not_let_it_come_so_far() {
    let bench = Bench::new();
    for succeeds in [false, false, false, false, true, false, false, false, false] {
        bench.call(succeeds);
    }
    assert!(!bench.breaker.is_away());
    bench.call(false);
    assert!(bench.breaker.is_away());
    assert_eq!(bench.enter(), Err(PAUSE_FIRST));
}

#[test]
fn a_share_of_failures_opens_it_only_within_the_window_and_only_of_enough_calls() {
    let mut bench = Bench::new();
    for _ in 0..SHARE_OUTCOMES_MIN / 2 - 1 {
        bench.call(true);
        bench.call(false);
    }
    assert!(!bench.breaker.is_away());
    bench.pass(SECOND * WINDOW_SECONDS as u32);
    for _ in 0..SHARE_OUTCOMES_MIN / 2 - 1 {
        bench.call(true);
        bench.call(false);
    }
    assert!(!bench.breaker.is_away(), "what left the window does not count");
    bench.call(true);
    bench.call(false);
    assert!(bench.breaker.is_away());
}

#[test]
fn many_successes_of_the_same_window_outweigh_failures() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.pass(SECOND);
        for _ in 0..100 {
            bench.call(true);
        }
    }
    for _ in 0..50 {
        bench.call(false);
        bench.call(true);
        bench.call(true);
    }
    assert!(!bench.breaker.is_away());
}

#[test]
fn after_the_pause_one_call_probes_and_its_success_closes_it() {
    let mut bench = Bench::new();
    bench.fail_in_a_row();
    bench.pass(PAUSE_FIRST);
    let probe = bench.enter().expect("the pause is over");
    assert!(probe.is_probe);
    assert_eq!(bench.enter(), Err(PROBE_PAUSE));
    bench.tell(probe, true);
    assert!(!bench.breaker.is_away());
    assert!(bench.enter().is_ok_and(|entry| !entry.is_probe));
}

#[test]
fn pauses_double_up_to_a_bound_and_begin_anew_after_a_success() {
    let mut bench = Bench::new();
    bench.fail_in_a_row();
    let mut pauses = Vec::new();
    for _ in 0..7 {
        let pause = bench.enter().expect_err("it is away");
        pauses.push(pause.as_secs());
        bench.pass(pause);
        bench.call(false);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    bench.pass(PAUSE_MAX);
    bench.call(true);
    bench.fail_in_a_row();
    assert_eq!(bench.enter(), Err(PAUSE_FIRST));
}

#[test]
fn chance_shortens_a_pause_by_half_at_most() {
    for (chance, millis) in [(0, 1000), (255, 500)] {
        let bench = Bench::new();
        for _ in 0..STREAK {
            let entry = bench.enter().expect("the call passes");
            bench.breaker.failed(entry, bench.now, chance);
        }
        assert_eq!(bench.enter(), Err(Duration::from_millis(millis)), "{chance}");
    }
}

#[test]
fn a_probe_that_is_cancelled_leaves_its_place_to_the_next() {
    let mut bench = Bench::new();
    bench.fail_in_a_row();
    bench.pass(PAUSE_FIRST);
    let probe = bench.enter().expect("the pause is over");
    bench.breaker.cancelled(probe);
    assert!(bench.enter().is_ok_and(|entry| entry.is_probe));
}

#[test]
fn an_outcome_of_before_a_change_says_nothing_of_the_time_after_it() {
    let mut bench = Bench::new();
    let early = bench.enter().expect("the call passes");
    bench.fail_in_a_row();
    bench.tell(early, true);
    assert!(bench.breaker.is_away(), "an old success does not close it");
    bench.pass(PAUSE_FIRST);
    let probe = bench.enter().expect("the pause is over");
    bench.breaker.answered();
    bench.tell(probe, false);
    bench.breaker.failed(early, bench.now, 0);
    assert!(!bench.breaker.is_away(), "an old failure does not open it");
}

#[test]
fn the_gateways_own_questions_open_and_close_it_and_shorten_no_later_pause() {
    let bench = Bench::new();
    for _ in 0..STREAK {
        bench.breaker.unanswered(bench.now, 0);
    }
    assert!(bench.breaker.is_away());
    bench.breaker.answered();
    assert!(!bench.breaker.is_away());
    bench.fail_in_a_row();
    assert_eq!(bench.enter(), Err(PAUSE_FIRST * 2));
}

/// Numbers that look random; the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Calls begin and end in any order, while time passes: `GANTRY_BREAKER_SEED` repeats a run.
#[test]
fn whatever_happens_nobody_passes_while_it_is_away_but_one_probe_after_the_pause() {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let given = std::env::var("GANTRY_BREAKER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or(since.as_nanos() as u64);
    println!("GANTRY_BREAKER_SEED={seed}");
    for round in 0..200 {
        run(&mut Random(seed.wrapping_add(round)), 400);
    }
}

fn run(random: &mut Random, steps: usize) {
    let mut bench = Bench::new();
    // Servers differ in how often they fail.
    let failing = random.below(100);
    let (mut under_way, mut failures): (Vec<Entry>, u32) = (Vec::new(), 0);
    for step in 0..steps {
        let was_away = bench.breaker.is_away();
        match random.below(10) {
            0..4 => {
                let refusal = bench.breaker.refusal(bench.now);
                let entered = bench.enter();
                assert_eq!(entered.err(), refusal, "step {step}");
                assert!(refusal.is_none_or(|pause| pause > Duration::ZERO && pause <= PAUSE_MAX));
                if let Ok(entry) = entered {
                    assert_eq!(entry.is_probe, was_away, "step {step}");
                    under_way.push(entry);
                }
            }
            4..8 if !under_way.is_empty() => {
                let entry = under_way.swap_remove(random.below(under_way.len() as u64) as usize);
                let succeeds = random.below(100) >= failing;
                failures += u32::from(!succeeds);
                match succeeds {
                    true => bench.breaker.succeeded(entry, bench.now),
                    false => bench.breaker.failed(entry, bench.now, random.below(256) as u8),
                }
                let is_away = bench.breaker.is_away();
                assert!(was_away || !is_away || !succeeds, "step {step}: a success opened it");
                assert!(!was_away || is_away || succeeds, "step {step}: a failure closed it");
            }
            8 if !under_way.is_empty() => {
                bench.breaker.cancelled(under_way.swap_remove(0));
                assert_eq!(bench.breaker.is_away(), was_away, "step {step}");
            }
            _ => bench.pass(Duration::from_millis(random.below(3_000))),
        }
        let period = bench.breaker.period.load(Ordering::Relaxed);
        let probes = under_way.iter().filter(|entry| entry.is_probe && entry.period == period).count();
        assert!(probes <= 1, "step {step}: {probes} probes");
        assert!(
            failures >= STREAK || !bench.breaker.is_away(),
            "step {step}: open after {failures} failures"
        );
    }
    // Whatever it was, it closes once the server is well.
    under_way.into_iter().for_each(|entry| bench.breaker.cancelled(entry));
    bench.pass(PAUSE_MAX);
    bench.call(true);
    assert!(!bench.breaker.is_away());
}
