//! Scenario `compare`: direct, nginx and Gantry side by side, interleaved in one run.
//!
//! What always holds: in each round every measurement is made of every target, one right after the
//! other, and the order moves on by one from round to round; so what else the machine does
//! meets all of them. All targets run from beginning to end, and are stopped at the end of a run,
//! also of one that fails or is interrupted.

mod report;
pub mod slots;

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::report::Report;
use self::slots::{BARS, CONNECTION_COUNT, Load, Slot, TOOL_COUNT, open_rate};
use crate::{
    bars::judge,
    causes::on_one_line,
    driver::{Edge, Outcome, closed_loop, connection::CallError, open_loop},
    figures::Figures,
    machine::Machine,
    pinning::Pinning,
    process::{Meter, Usage},
    target::{self, Cause, Missing, Name, Site, Target, TargetError},
    upstream::child::{ANYWHERE, Child, ChildError, Wanted},
};

/// Failures that a report shows; the count says how many there were.
const FAILURE_SHOWN_MAX: usize = 12;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often everything is measured.
    pub round_count: u32,
    /// How long each slot measures.
    pub measured: Duration,
    /// How long each slot calls before it measures.
    pub warm: Duration,
    /// Gantry's program.
    pub gantry: PathBuf,
    /// Which targets.
    pub targets: Vec<Name>,
    /// Which measurements.
    pub slots: Vec<Slot>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The files of the run.
    #[error("the files of the run cannot be written")]
    Files(#[source] io::Error),
    /// The upstream does not run, or does not say what it has seen.
    #[error("the upstream does not work")]
    Upstream(#[from] ChildError),
    /// The upstream does not answer.
    #[error("the upstream does not answer")]
    Direct(#[from] TargetError),
    /// A process that is measured has gone.
    #[error("a measured process has ended during the run")]
    Usage(#[source] io::Error),
    /// Someone stopped it.
    #[error("interrupted")]
    Interrupted,
}

/// A run in progress.
struct Run<'o> {
    options: &'o Options,
    meter: Meter,
    upstream: &'o Child,
    targets: &'o [Target],
    figures: Figures,
    failed_count: u64,
    failures: Vec<String>,
}

/// What processes had used at one edge of the measured time.
#[derive(Clone, Copy, Default)]
struct Reading {
    proxy: Option<Usage>,
    upstream: Usage,
}

/// Runs the scenario and ends every process that it started.
///
/// # Errors
/// When the upstream does not work, a measured process ends, or `interrupted` comes true. A target
/// that is absent or broken, and calls that fail, are part of the report instead.
pub async fn run(
    options: &Options,
    pinning: &Pinning,
    interrupted: impl Future<Output = ()>,
) -> Result<Report, CompareError> {
    let machine = Machine::this();
    let folder = tempfile::tempdir().map_err(CompareError::Files)?;
    let wanted = Wanted { name: "upstream", listen: ANYWHERE, tool_count: TOOL_COUNT, delay: Duration::ZERO };
    let upstream = Child::start(folder.path(), pinning, wanted).await?;
    let site = Site {
        folder: folder.path().to_owned(),
        pinning: pinning.clone(),
        upstream_url: upstream.url.clone(),
        tool_count: TOOL_COUNT,
    };
    let (targets, missing) = start_targets(options, &site).await?;
    let mut run = Run::new(options, &upstream, &targets);
    let measured = tokio::select! {
        measured = run.measure() => measured,
        () = interrupted => Err(CompareError::Interrupted),
    };
    let (figures, failures) = run.finish(&missing);
    let report = Report {
        scenario: "compare",
        machine,
        is_pinned: pinning.is_on(),
        options: options.clone(),
        versions: targets.iter().map(|target| (target.name, target.version.clone())).collect(),
        missing,
        verdicts: judge(BARS, &figures),
        figures,
        failures,
    };
    for target in targets {
        if let Some(process) = target.process {
            process.stop().await.map_err(CompareError::Files)?;
        }
    }
    upstream.stop().await.map_err(CompareError::Files)?;
    measured.map(|()| report)
}

async fn start_targets(options: &Options, site: &Site) -> Result<(Vec<Target>, Vec<Missing>), CompareError> {
    let (mut targets, mut missing) = (Vec::new(), Vec::new());
    for name in &options.targets {
        let started = match name {
            Name::Direct => Ok(target::direct(site).await?),
            Name::Nginx => target::nginx::start(site).await,
            Name::Gantry => target::gantry::start(site, &options.gantry).await,
        };
        match started {
            Ok(target) => targets.push(target),
            Err(reason) => missing.push(reason),
        }
    }
    Ok((targets, missing))
}

impl<'o> Run<'o> {
    fn new(options: &'o Options, upstream: &'o Child, targets: &'o [Target]) -> Self {
        Self {
            options,
            meter: Meter::of_this_machine(),
            upstream,
            targets,
            figures: Figures::default(),
            failed_count: 0,
            failures: Vec::new(),
        }
    }

    async fn measure(&mut self) -> Result<(), CompareError> {
        self.measure_idle()?;
        let (began, used_before) = (Instant::now(), self.used_by_others()?);
        self.measure_rounds().await?;
        let used = self.used_by_others()?.saturating_sub(used_before);
        let cores = std::cmp::max(Machine::this().core_count, 1) as f64;
        let percent = 100.0 * used.as_secs_f64() / began.elapsed().as_secs_f64() / cores;
        self.figures.add("other_processes_cpu_percent", 0, percent);
        Ok(())
    }

    /// Processor time of everything but this process and those that it started.
    fn used_by_others(&self) -> Result<Duration, CompareError> {
        let whole = self.meter.whole_machine().map_err(CompareError::Usage)?;
        let own = self.meter.usage(std::process::id()).map_err(CompareError::Usage)?;
        Ok(whole.saturating_sub(own.processor))
    }

    async fn measure_rounds(&mut self) -> Result<(), CompareError> {
        for round in 0..self.options.round_count {
            eprintln!("round {} of {}", round + 1, self.options.round_count);
            for slot in &self.options.slots {
                for position in 0..self.targets.len() {
                    let turn = (position + round as usize) % self.targets.len();
                    self.measure_slot(slot, &self.targets[turn], round).await?;
                }
            }
        }
        Ok(())
    }

    fn measure_idle(&mut self) -> Result<(), CompareError> {
        for target in self.targets {
            let name = target.name.key();
            self.figures.add(format!("{name}_measured_count"), 0, 1.0);
            if let Some(process) = &target.process {
                let usage = self.meter.usage(process.id()).map_err(CompareError::Usage)?;
                self.figures.add(format!("{name}_idle_rss_mib"), 0, mib(usage));
                let start = target.start_to_first_answer.as_secs_f64() * 1e3;
                self.figures.add(format!("{name}_start_to_first_answer_ms"), 0, start);
            }
        }
        Ok(())
    }

    async fn measure_slot(&mut self, slot: &Slot, target: &Target, round: u32) -> Result<(), CompareError> {
        let seen_before = self.upstream.call_count().await?;
        let mut readings = [Ok(Reading::default()), Ok(Reading::default())];
        let outcome = self.load(slot, target, &mut readings).await;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                self.fail(slot, target, 1, &[on_one_line(&error)]);
                return Ok(());
            }
        };
        self.fail(slot, target, outcome.failed_count, &outcome.failures);
        let seen_count = self.upstream.call_count().await? - seen_before;
        if slot.is_forwarded() && seen_count < outcome.succeeded_count {
            let missing_count = outcome.succeeded_count - seen_count;
            let reason = "answered without a call at the upstream".to_owned();
            self.fail(slot, target, missing_count, &[reason]);
        }
        let [start, end] = readings;
        let (start, end) = (start.map_err(CompareError::Usage)?, end.map_err(CompareError::Usage)?);
        self.record(slot, target.name, round, &outcome);
        if matches!(slot.load, Load::Closed { connection_count: CONNECTION_COUNT }) {
            self.record_usage(slot, target.name, round, &outcome, [start, end]);
        }
        Ok(())
    }

    async fn load(
        &self,
        slot: &Slot,
        target: &Target,
        readings: &mut [io::Result<Reading>; 2],
    ) -> Result<Outcome, CallError> {
        let (endpoint, call) = (Arc::clone(&target.endpoint), Arc::new(slot.call(target)));
        let (warm, measured) = (self.options.warm, self.options.measured);
        match slot.load {
            Load::Closed { connection_count } => {
                let plan = closed_loop::Plan { endpoint, call, connection_count, warm, measured };
                let at_edge = |edge| match edge {
                    Edge::Start => readings[0] = self.read(target),
                    Edge::End => readings[1] = self.read(target),
                };
                closed_loop::run(&plan, at_edge).await
            }
            Load::Open => {
                let (rate, connection_count) = (open_rate(), CONNECTION_COUNT);
                let start = None;
                let plan = open_loop::Plan { endpoint, call, rate, connection_count, warm, measured, start };
                open_loop::run(&plan).await
            }
        }
    }

    fn read(&self, target: &Target) -> io::Result<Reading> {
        let proxy = target.process.as_ref().map(|process| self.meter.usage(process.id()));
        let upstream = self.meter.usage(self.upstream.id())?;
        Ok(Reading { proxy: proxy.transpose()?, upstream })
    }

    fn record(&mut self, slot: &Slot, name: Name, round: u32, outcome: &Outcome) {
        let prefix = format!("{}_{}", name.key(), slot.name);
        for (label, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            let latency = outcome.latencies.us_at(quantile);
            self.figures.add(format!("{prefix}_{label}_us"), round, latency);
        }
        let rate = outcome.completed_count as f64 / outcome.measured.as_secs_f64();
        self.figures.add(format!("{prefix}_calls_per_s"), round, rate);
    }

    fn record_usage(
        &mut self,
        slot: &Slot,
        name: Name,
        round: u32,
        outcome: &Outcome,
        [start, end]: [Reading; 2],
    ) {
        if outcome.completed_count == 0 {
            return;
        }
        let per_call = |start: Usage, end: Usage| {
            let used = end.processor.saturating_sub(start.processor);
            used.as_secs_f64() * 1e6 / outcome.completed_count as f64
        };
        match (start.proxy, end.proxy) {
            (Some(start), Some(end)) => {
                let prefix = format!("{}_{}", name.key(), slot.name);
                let per_call = per_call(start, end);
                self.figures.add(format!("{prefix}_cpu_us_per_call"), round, per_call);
                self.figures.add(format!("{prefix}_loaded_rss_mib"), round, mib(end));
            }
            _ => {
                let figure = format!("upstream_{}_cpu_us_per_call", slot.name);
                self.figures.add(figure, round, per_call(start.upstream, end.upstream));
            }
        }
    }

    fn fail(&mut self, slot: &Slot, target: &Target, count: u64, reasons: &[String]) {
        self.failed_count += count;
        for reason in reasons {
            if self.failures.len() < FAILURE_SHOWN_MAX {
                self.failures.push(format!("{}, {}: {reason}", target.name.title(), slot.title));
            }
        }
    }

    /// Adds what is made of other figures: comparisons within a round, and sums.
    fn finish(self, missing: &[Missing]) -> (Figures, Vec<String>) {
        let mut figures = self.figures;
        figures.add("failed_calls_count", 0, self.failed_count as f64);
        let broken_count = missing.iter().filter(|missing| missing.cause == Cause::Broken).count();
        figures.add("broken_targets_count", 0, broken_count as f64);
        for slot in slots::SLOTS.map(|slot| slot.name) {
            for name in ["nginx", "gantry"] {
                for label in ["p50", "p99", "p999"] {
                    let figure = |name| format!("{name}_{slot}_{label}_us");
                    let added = format!("{name}_{slot}_added_latency_{label}_us");
                    let (proxied, direct) = (figure(name), figure("direct"));
                    figures.combine(&added, &proxied, &direct, |proxied, direct| proxied - direct);
                }
            }
            let ratio = |gantry, other| gantry / other;
            for (figure, label) in [("cpu_us_per_call", "cpu"), ("calls_per_s", "rate")] {
                for other in ["nginx", "direct"] {
                    figures.combine(
                        &format!("gantry_{slot}_{label}_ratio_to_{other}"),
                        &format!("gantry_{slot}_{figure}"),
                        &format!("{other}_{slot}_{figure}"),
                        ratio,
                    );
                }
            }
        }
        (figures, self.failures)
    }
}

fn mib(usage: Usage) -> f64 {
    usage.resident_kib as f64 / 1_024.0
}
