//! What a decision costs, and a key: `cargo bench -p gantry-limits`; `-- --check` exits 1 where a figure misses its bar.
//!
//! Decisions are timed sixteen at a time, as reading the clock costs more than one. Times are of this machine at this moment.
//! Memory is what the process grows by.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use gantry_limits::engine::{Engine, Start, TICK_NS};
use gantry_limits::lease::Take;
use gantry_limits::limit::{Limit, OnOwnerLoss};
use gantry_limits::{Key, Member, Moment, NodeId};

const KEYS: u64 = 100_000;
const ROUNDS: usize = 200_000;
const BATCH: u64 = 16;
const P99_NS_MAX: u128 = 200;
const KEY_BYTES_MAX: u64 = 300;

fn main() -> ExitCode {
    let checks = std::env::args().any(|argument| argument == "--check");
    let (median, p99) = decision();
    println!("local decision: p50 {median} ns, p99 {p99} ns (bar {P99_NS_MAX} ns)");
    let (held, owned) = memory();
    println!(
        "memory at {KEYS} keys: {held} bytes for one that is held, {owned} for one that is owned (bar {KEY_BYTES_MAX})"
    );
    let is_missed = p99 > P99_NS_MAX || held.max(owned) > KEY_BYTES_MAX;
    if checks && is_missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn alone() -> Engine {
    Engine::new(Member { node: NodeId(1), incarnation: 1 }, Start::Alone, Moment(1))
}

fn key(number: u64) -> Key {
    let mut bytes = [0; 16];
    // Spread as a hash is.
    bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    bytes[8..].copy_from_slice(&number.wrapping_mul(0xd1b5_4a32_d192_ed03).rotate_left(17).to_le_bytes());
    Key(bytes)
}

/// With a token there, as long as one is; asking for more is timed too.
fn decision() -> (u128, u128) {
    let limit = Limit::new(100_000_000, 1, 100_000_000, OnOwnerLoss::Floor).expect("legal");
    let mut engine = alone();
    let (leases, key, began) = (engine.leases(), key(7), Instant::now());
    let now = || Moment(1 + began.elapsed().as_nanos() as u64);
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let (start, at) = (Instant::now(), now());
        for _ in 0..BATCH {
            let take = leases.with(key, |lease| lease.take(at));
            if let None | Some(Take::Wait | Take::Taken { asks: true }) = black_box(take) {
                engine.ask(key, limit, at);
            }
        }
        times.push(start.elapsed().as_nanos() / u128::from(BATCH));
    }
    times.sort_unstable();
    (times[ROUNDS / 2], times[ROUNDS * 99 / 100])
}

/// Of a key that is held, and of one that is owned.
fn memory() -> (u64, u64) {
    let limit = Limit::new(1_000, 60, 10, OnOwnerLoss::Floor).expect("legal");
    let before = resident();
    let mut engine = alone();
    let mut now = Moment(1);
    for number in 0..KEYS {
        engine.lease(key(number), limit, now);
    }
    let held = resident();
    for number in 0..KEYS {
        let lease = engine.lease(key(number), limit, now);
        lease.begin_waiting();
        engine.ask(key(number), limit, now);
        assert!(matches!(lease.take_again(now), Take::Taken { .. }), "a full bucket");
        lease.end_waiting();
    }
    let owned = resident();
    assert_eq!((engine.leases().len() as u64, engine.owned_count() as u64), (KEYS, KEYS));
    // Nobody calls any more: they vanish.
    for _ in 0..2_000 {
        now = now.plus(TICK_NS);
        engine.tick(now);
    }
    assert_eq!((engine.leases().len(), engine.owned_count()), (0, 0));
    ((held - before) / KEYS, (owned - held) / KEYS)
}

/// Bytes of the process that are in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4_096
}
