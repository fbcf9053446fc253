//! Whether what was admitted stays within the bound in every window.
//!
//! Exact: for each pair of admissions, those between them are compared with what the limit allows for that time, one burst,
//! and the leases that were outstanding at the first. It is linear, as what counts of the later ends is only their best.

use crate::limit::Limit;

/// One admitted call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admission {
    pub(crate) at: u64,
    /// Leases outstanding when it was admitted, its own included.
    pub(crate) outstanding: u64,
    /// Time until then, in which the bound is wider by half.
    pub(crate) loose: u64,
}

/// A window with too many.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Excess {
    pub(crate) from: u64,
    pub(crate) until: u64,
    pub(crate) calls: f64,
}

/// The worst window: how many calls more than rate times window and burst, and leases where these count.
pub(crate) fn worst(limit: Limit, log: &[Admission], counts_leases: bool) -> Option<Excess> {
    let per_ns = f64::from(limit.calls()) / (f64::from(limit.window_seconds()) * 1e9);
    let allowed = |admission: &Admission| per_ns * (admission.at as f64 + admission.loose as f64 / 2.0);
    let mut best: Option<(f64, u64)> = None;
    let mut worst: Option<Excess> = None;
    for (index, admission) in log.iter().enumerate().rev() {
        // Calls up to here, less what is allowed up to here.
        let here = index as f64 - allowed(admission);
        if best.is_none_or(|(value, _)| here > value) {
            best = Some((here, admission.at));
        }
        let (most, until) = best?;
        let leases = if counts_leases { admission.outstanding as f64 } else { 0.0 };
        let calls = most - here + 1.0 - f64::from(limit.burst()) - leases;
        if worst.is_none_or(|worst| calls > worst.calls) {
            worst = Some(Excess { from: admission.at, until, calls });
        }
    }
    worst
}

/// How far an excess may be one of rounding.
pub(crate) const ROUNDING: f64 = 1e-3;
