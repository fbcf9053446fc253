//! What a scenario says: a table for people, one flat object for machines.
//!
//! What always holds: both state the machine and what was measured how often; the object has no nesting and its
//! names carry units. `compare` has a report of its own, with a column for each target.

use std::fmt::{self, Display, Formatter};

use serde_json::{Map, Value, json};

use crate::{
    bars::{Bar, Verdict, judge},
    figures::Figures,
    machine::Machine,
    table::{Table, with_range},
};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The figure.
    pub figure: &'static str,
    /// What it is, for people.
    pub words: &'static str,
}

/// The outcome of a run.
#[derive(Debug)]
pub struct Report {
    /// Which scenario.
    pub scenario: &'static str,
    /// Where.
    pub machine: Machine,
    /// Whether processes were pinned to cores.
    pub is_pinned: bool,
    /// Who had which core, for people.
    pub cores: &'static str,
    /// What was done, for people.
    pub run: String,
    /// What was asked for and measured, by name.
    pub facts: Vec<(&'static str, Value)>,
    /// The rows of the table.
    pub rows: Vec<Row>,
    /// The figures.
    pub figures: Figures,
    /// What was not measured as it should be, and what should be known of the rest.
    pub notes: Vec<String>,
    /// The first failures.
    pub failures: Vec<String>,
    /// The bars.
    pub verdicts: Vec<Verdict>,
}

impl Report {
    /// A report without figures.
    #[must_use]
    pub fn new(scenario: &'static str, is_pinned: bool, rows: &[Row]) -> Self {
        let cores = match is_pinned {
            true => "Gantry alone on core 0, driver and upstreams on core 1",
            false => "NOT pinned (it takes two cores and taskset), so figures disturb each other",
        };
        Self {
            scenario,
            machine: Machine::this(),
            is_pinned,
            cores,
            run: String::new(),
            facts: Vec::new(),
            rows: rows.to_vec(),
            figures: Figures::default(),
            notes: Vec::new(),
            failures: Vec::new(),
            verdicts: Vec::new(),
        }
    }

    /// Holds the figures to bars.
    pub fn judge(&mut self, bars: &[Bar]) {
        self.verdicts = judge(bars, &self.figures);
    }

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
        let own = [
            ("scenario", json!(self.scenario)),
            ("loadtest_version", json!(env!("CARGO_PKG_VERSION"))),
            ("machine_processor", json!(machine.processor)),
            ("machine_processor_mhz", json!(machine.processor_mhz)),
            ("machine_core_count", json!(machine.core_count)),
            ("machine_memory_mib", json!(machine.memory_mib)),
            ("machine_kernel", json!(machine.kernel)),
            ("is_pinned", json!(self.is_pinned)),
            ("is_check_met", json!(!self.is_failure())),
        ];
        for (name, value) in own.iter().chain(&self.facts) {
            flat.insert((*name).to_owned(), value.clone());
        }
        flat
    }
}

impl Display for Report {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "Machine: {}.", self.machine.describe())?;
        writeln!(formatter, "Cores: {}.", self.cores)?;
        writeln!(formatter, "Run: {}.", self.run)?;
        let mut table = Table::new(vec!["median (min-max)".to_owned(), self.scenario.to_owned()]);
        for row in &self.rows {
            let cell = with_range(self.figures.summary(row.figure), 1.0);
            table.push(vec![row.words.to_owned(), cell]);
        }
        writeln!(formatter, "\n{table}")?;
        for note in &self.notes {
            writeln!(formatter, "note: {note}")?;
        }
        for failure in &self.failures {
            writeln!(formatter, "failed: {failure}")?;
        }
        for verdict in &self.verdicts {
            writeln!(formatter, "{}", verdict.describe())?;
        }
        Ok(())
    }
}
