//! What `compare` says: a table for people, one flat object for machines.
//!
//! What always holds: both state the machine, the versions, how often and how long was measured,
//! and what is missing and why; the object has no nesting and its names carry units.

use std::fmt::{self, Display, Formatter};

use serde_json::{Map, Value, json};

use super::{
    Options,
    slots::{CONNECTION_COUNT, Load, Slot, TOOL_COUNT},
};
use crate::{
    bars::Verdict,
    figures::{Figures, Summary},
    machine::Machine,
    table::{Table, number, with_range},
    target::{Cause, Missing, Name},
};

/// When others take more than this of the machine, figures are doubtful.
const OTHERS_PERCENT_MAX: f64 = 5.0;

/// The outcome of a run.
#[derive(Debug)]
pub struct Report {
    /// Which scenario asked for it.
    pub scenario: &'static str,
    /// Where.
    pub machine: Machine,
    /// Whether processes were pinned to cores.
    pub is_pinned: bool,
    /// What was asked for.
    pub options: Options,
    /// What was measured.
    pub versions: Vec<(Name, String)>,
    /// What was not.
    pub missing: Vec<Missing>,
    /// The figures.
    pub figures: Figures,
    /// The first failed calls.
    pub failures: Vec<String>,
    /// The bars.
    pub verdicts: Vec<Verdict>,
}

/// One row of the table for a slot: which figure, its words, and how it is scaled.
struct Row {
    figure: &'static str,
    words: &'static str,
    scale: f64,
}

const US_PER_MS: f64 = 1_000.0;

const BUSY_ROWS: [Row; 5] = [
    Row { figure: "calls_per_s", words: "calls/s", scale: 1.0 },
    Row { figure: "cpu_us_per_call", words: "processor time per call, us", scale: 1.0 },
    Row { figure: "p50_us", words: "p50, ms", scale: US_PER_MS },
    Row { figure: "p99_us", words: "p99, ms", scale: US_PER_MS },
    Row { figure: "p999_us", words: "p99.9, ms", scale: US_PER_MS },
];
const ONE_ROWS: [Row; 1] = [Row { figure: "p50_us", words: "p50, ms", scale: US_PER_MS }];
const OPEN_ROWS: [Row; 6] = [
    Row { figure: "p50_us", words: "p50, ms", scale: US_PER_MS },
    Row { figure: "p99_us", words: "p99, ms", scale: US_PER_MS },
    Row { figure: "p999_us", words: "p99.9, ms", scale: US_PER_MS },
    Row { figure: "added_latency_p50_us", words: "added p50, ms", scale: US_PER_MS },
    Row { figure: "added_latency_p99_us", words: "added p99, ms", scale: US_PER_MS },
    Row { figure: "added_latency_p999_us", words: "added p99.9, ms", scale: US_PER_MS },
];

impl Report {
    /// Whether `--check` has to fail.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.verdicts.iter().any(Verdict::is_failure)
    }

    /// Everything as one flat object.
    #[must_use]
    pub fn flat(&self) -> Map<String, Value> {
        let mut flat = self.figures.flat();
        let machine = &self.machine;
        for (name, value) in [
            ("scenario", json!(self.scenario)),
            ("loadtest_version", json!(env!("CARGO_PKG_VERSION"))),
            ("machine_processor", json!(machine.processor)),
            ("machine_processor_mhz", json!(machine.processor_mhz)),
            ("machine_core_count", json!(machine.core_count)),
            ("machine_memory_mib", json!(machine.memory_mib)),
            ("machine_kernel", json!(machine.kernel)),
            ("is_pinned", json!(self.is_pinned)),
            ("round_count", json!(self.options.round_count)),
            ("slot_seconds", json!(self.options.measured.as_secs_f64())),
            ("connection_count", json!(CONNECTION_COUNT)),
            ("tool_count", json!(TOOL_COUNT)),
            ("is_check_met", json!(!self.is_failure())),
        ] {
            flat.insert(name.to_owned(), value);
        }
        for (name, version) in &self.versions {
            flat.insert(format!("{}_version", name.key()), json!(version));
        }
        for Missing { name, reason, .. } in &self.missing {
            flat.insert(format!("{}_missing", name.key()), json!(reason));
        }
        flat
    }

    fn table(&self) -> Table {
        let mut head = vec![format!("median (min-max) of {} rounds", self.options.round_count)];
        head.extend(self.columns().map(|name| name.title().to_owned()));
        head.push("Gantry / nginx".to_owned());
        let mut table = Table::new(head);
        for slot in &self.options.slots {
            let rows: &[Row] = match slot.load {
                Load::Closed { connection_count: 1 } => &ONE_ROWS,
                Load::Closed { .. } => &BUSY_ROWS,
                Load::Open => &OPEN_ROWS,
            };
            for row in rows {
                table.push(self.row(slot, row));
            }
        }
        let rss = self.options.slots.first().map(|slot| format!("{}_loaded_rss_mib", slot.name));
        self.push_row(&mut table, "memory idle, MiB", "idle_rss_mib");
        self.push_row(&mut table, "memory under load, MiB", &rss.unwrap_or_default());
        self.push_row(&mut table, "start to first answer, ms", "start_to_first_answer_ms");
        table
    }

    fn row(&self, slot: &Slot, row: &Row) -> Vec<String> {
        let label = format!("{}: {}", slot.title, row.words);
        let figure = format!("{}_{}", slot.name, row.figure);
        self.cells(label, &figure, row.scale)
    }

    fn push_row(&self, table: &mut Table, label: &str, figure: &str) {
        table.push(self.cells(label.to_owned(), figure, 1.0));
    }

    fn cells(&self, label: String, figure: &str, scale: f64) -> Vec<String> {
        let summary = |name: Name| self.figures.summary(&format!("{}_{figure}", name.key()));
        let mut cells = vec![label];
        cells.extend(self.columns().map(|name| with_range(summary(name), scale)));
        cells.push(ratio(summary(Name::Gantry), summary(Name::Nginx)));
        cells
    }

    fn columns(&self) -> impl Iterator<Item = Name> {
        self.options.targets.iter().copied()
    }
}

/// The quotient of two medians, where it means anything.
fn ratio(gantry: Option<Summary>, nginx: Option<Summary>) -> String {
    match (gantry, nginx) {
        (Some(gantry), Some(nginx)) if nginx.median > 0.0 => number(gantry.median / nginx.median),
        _ => "-".to_owned(),
    }
}

impl Display for Report {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        writeln!(formatter, "Machine: {}.", self.machine.describe())?;
        if let Some(others) = self.figures.summary("other_processes_cpu_percent") {
            let others = others.median;
            let caution =
                if others > OTHERS_PERCENT_MAX { "; CAUTION: the figures are doubtful" } else { "" };
            writeln!(formatter, "Other processes took {others:.1} % of the machine{caution}.")?;
        }
        writeln!(
            formatter,
            "Cores: {}.",
            if self.is_pinned {
                "proxy alone on core 0, driver and upstream on core 1"
            } else {
                "NOT pinned (it takes two cores and taskset), so figures disturb each other"
            }
        )?;
        writeln!(
            formatter,
            "Run: {} rounds, in each {:.1} s per row group and target, targets in rotating order; \
             {CONNECTION_COUNT} connections, closed loop, where nothing else is said.",
            options.round_count,
            options.measured.as_secs_f64(),
        )?;
        for (name, version) in &self.versions {
            writeln!(formatter, "{}: {version}.", name.title())?;
        }
        for Missing { name, cause, reason } in &self.missing {
            match cause {
                Cause::Absent => writeln!(formatter, "{}: {reason}.", name.title())?,
                Cause::Broken => writeln!(formatter, "{}: BROKEN: {reason}.", name.title())?,
            }
        }
        writeln!(formatter, "\n{}", self.table())?;
        for failure in &self.failures {
            writeln!(formatter, "failed: {failure}")?;
        }
        for verdict in &self.verdicts {
            writeln!(formatter, "{}", verdict.describe())?;
        }
        Ok(())
    }
}
