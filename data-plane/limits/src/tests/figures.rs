//! What limits achieve in good times and at the death of an owner, in the same world.

use super::checker::worst;
use super::world::World;
use crate::limit::{Limit, OnOwnerLoss};

const MS: u64 = 1_000_000;
const NODES: u64 = 20;

/// Demand of a Zipf distribution over the nodes, `times` the limit in all.
fn zipf(calls: u32, times: f64, is_reversed: bool) -> Vec<Vec<f64>> {
    let weight = |node: u64| 1.0 / (node as f64 + 1.0).powf(1.2);
    let all: f64 = (0..NODES).map(weight).sum();
    let mut demand: Vec<Vec<f64>> =
        (0..NODES).map(|node| vec![f64::from(calls) * times * weight(node) / all]).collect();
    if is_reversed {
        demand.reverse();
    }
    demand
}

fn fleet(calls: u32, seed: u64, times: f64) -> World {
    let limit = Limit::new(calls, 1, calls / 10, OnOwnerLoss::Floor).expect("legal");
    let mut world = World::new(seed, vec![limit], None);
    for id in 0..NODES {
        world.start(id);
    }
    // They agree, and the first buckets fill.
    world.run_until(world.now + 2_000 * MS);
    world.demand = zipf(calls, times, false);
    world.run_until(world.now + 1_000 * MS);
    world
}

fn admitted(world: &World, from: u64, until: u64) -> f64 {
    world.admitted[0].iter().filter(|call| call.at >= from && call.at < until).count() as f64
}

/// When the first 200 ms begin that have nine tenths of the rate, in ms after `from`.
fn back_after(world: &World, calls: u32, from: u64) -> u64 {
    let step = 200 * MS;
    let mut at = (from..world.now - step).step_by(20 * MS as usize);
    let is_back = |at: &u64| admitted(world, *at, at + step) >= 0.9 * f64::from(calls) / 5.0;
    at.find(is_back).map_or(u64::MAX, |at| (at - from) / MS)
}

#[test]
fn limits_are_used_and_come_back() {
    let mut missed = Vec::new();
    for calls in [100, 1_000, 20_000_u32] {
        let mut world = fleet(calls, 1, 2.0);
        let (from, messages, bytes) = (world.now, world.messages, world.bytes);
        world.run_until(from + 3_000 * MS);
        let used = admitted(&world, from, world.now) / (3.0 * f64::from(calls));
        let (messages, bytes) = ((world.messages - messages) / 3 / NODES, (world.bytes - bytes) / 3 / NODES);
        let flipped = world.now;
        world.demand = zipf(calls, 2.0, true);
        world.run_until(flipped + 2_000 * MS);
        let converged = back_after(&world, calls, flipped);
        let killed = world.now;
        let owner = world.owner(0).expect("an owner");
        world.crash(owner);
        world.run_until(killed + 3_000 * MS);
        let recovered = back_after(&world, calls, killed);
        let (_, limit) = world.limits[0];
        let over = worst(limit, &world.admitted[0], false).expect("calls").calls;
        println!(
            "{calls}/s: use {:.1} %, back {converged} ms after the skew turned, {recovered} ms after the owner's death, \
             worst window {over:.1} calls over rate x window + burst; {messages} messages and {bytes} bytes a second and node",
            used * 100.0
        );
        if used < 0.98 || converged > 400 || recovered > 1_000 || bytes > 64_000 {
            missed.push(calls);
        }
    }
    assert_eq!(missed, [0; 0]);
}
