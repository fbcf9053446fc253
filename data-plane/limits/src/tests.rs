//! The real engines of several nodes in a world that is made up from a seed: its network loses, doubles, delays and
//! reorders, its nodes crash, start, pause, leave and are cut off, from each other and from the control plane.
//!
//! Always holds: a seed gives the same run each time. What is admitted is judged by [`checker`], which knows nothing of how
//! the engines work. `GANTRY_LIMITS_SEEDS=10000 cargo test --release -p gantry-limits` runs the long form, and
//! `GANTRY_LIMITS_SEED=N` one seed.

mod checker;
mod figures;
mod lives;
mod world;

/// Numbers from a seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(crate::mix(seed ^ 0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        crate::mix(self.0)
    }

    /// Below `end`, which is more than 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    pub(crate) fn chance(&mut self, of_thousand: u64) -> bool {
        self.below(1_000) < of_thousand
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Exponentially distributed, with this mean.
    pub(crate) fn wait(&mut self, mean: f64) -> u64 {
        let part = (self.roll() >> 11) as f64 / (1_u64 << 53) as f64;
        (-(1.0 - part).ln() * mean) as u64
    }
}
