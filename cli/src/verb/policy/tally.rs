//! What came of a replay, counted by agent and by what it asked for.
//!
//! Always holds: every record is counted once: as unchanged, as a change, as unknown, or as one that no policy decided. Of
//! each count there is a decision to look at.

use std::collections::BTreeMap;

use gantry_policy::{Decision, Verdict};
use serde::Serialize;

use super::recorded::Unknown;
use crate::output::{self, Paint, visible};
use crate::record::AuditRecord;
use crate::verb::audit::Missed;

/// Most reasons that are told of one count.
const REASONS_SHOWN: usize = 3;
/// Most rows of one agent: an agent that reads resources has one for each URI. Beyond, they are counted together.
const AGENT_ROWS_MAX: usize = 200;
/// Most rows, because records of a file may name any agents. Beyond, agents are counted together.
const ROWS_MAX: usize = 10_000;
/// Most reasons of one row for which something is not known, of which each may name something else.
const UNKNOWN_MAX: usize = 20;
/// What stands for whom or what is counted together.
const OTHERS: &str = "(others)";

/// A record that is not replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Policies were not asked.
    Undecided,
    /// It is another tenant's.
    OfAnother,
}

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Records that were not to be had.
    pub(super) missed: Missed,
    /// Documents of the candidate with more in them than is compared.
    pub(super) unreplayed: Vec<String>,
    rows: BTreeMap<(String, String), Row>,
    /// How many of those each agent has.
    agent_rows: BTreeMap<String, usize>,
    records: usize,
    undecided: usize,
    of_others: usize,
    /// Decided otherwise then than the configuration as it is decides now.
    drifted: Count,
}

/// Of one agent and one thing that it asked for.
#[derive(Debug, Default)]
struct Row {
    unchanged: usize,
    /// By what they change from and to.
    changes: BTreeMap<(&'static str, &'static str), Count>,
    unknown: BTreeMap<Unknown, Count>,
}

#[derive(Debug, Default)]
struct Count {
    count: usize,
    /// The first of them.
    example: String,
    /// What decides the example then.
    because: Vec<String>,
}

/// The same for programs.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    records: usize,
    /// Records that the control plane did not tell, at least, and that could not be read.
    missed: u64,
    unreadable: u64,
    /// Documents with more in them than is compared.
    not_replayed: Vec<String>,
    /// Policies were not asked.
    not_decided: usize,
    of_other_tenants: usize,
    /// The record has another verdict than the configuration gives now, without the candidate.
    decided_otherwise_now: usize,
    changes: usize,
    unknown: usize,
    rows: Vec<ReportRow>,
}

#[derive(Debug, Serialize)]
struct ReportRow {
    agent: String,
    what: String,
    unchanged: usize,
    changes: Vec<ReportChange>,
    unknown: Vec<ReportUnknown>,
}

#[derive(Debug, Serialize)]
struct ReportChange {
    from: &'static str,
    to: &'static str,
    count: usize,
    because: Vec<String>,
    example: String,
}

#[derive(Debug, Serialize)]
struct ReportUnknown {
    reason: String,
    count: usize,
    example: String,
}

impl Count {
    fn add(&mut self, id: Option<&str>, because: impl FnOnce() -> Vec<String>) {
        if self.count == 0 {
            self.example = id.unwrap_or_default().to_owned();
            self.because = because();
        }
        self.count += 1;
    }
}

impl Tally {
    /// Counts a record that is not replayed.
    pub(super) fn skip(&mut self, seen: Seen) {
        self.records += 1;
        match seen {
            Seen::Undecided => self.undecided += 1,
            Seen::OfAnother => self.of_others += 1,
        }
    }

    /// Counts one with what is decided before and after; `what` is who asked for what, where that could be read.
    pub(super) fn add(
        &mut self,
        record: &AuditRecord,
        what: Option<(String, String)>,
        before: Result<Decision, Unknown>,
        after: Result<Decision, Unknown>,
    ) {
        self.records += 1;
        let id = record.decision_id.as_deref();
        let as_told = || {
            let told = [&record.method, &record.tool].into_iter().flatten().cloned().collect::<Vec<_>>();
            (record.agent.clone().unwrap_or_default(), told.join(" "))
        };
        let row = self.row(what.unwrap_or_else(as_told));
        let mut drifted = false;
        match (before, after) {
            (Ok(before), Ok(after)) => {
                let (from, to) = (word(&before), word(&after));
                drifted = record.verdict.as_deref() != Some(from);
                if from == to {
                    row.unchanged += 1;
                } else {
                    row.changes.entry((from, to)).or_default().add(id, || because(&after));
                }
            }
            (Err(unknown), _) | (_, Err(unknown)) => {
                let is_one_more = row.unknown.len() >= UNKNOWN_MAX && !row.unknown.contains_key(&unknown);
                let unknown = if is_one_more { Unknown::Record("of other reasons") } else { unknown };
                row.unknown.entry(unknown).or_default().add(id, Vec::new)
            }
        }
        if drifted {
            self.drifted.add(id, Vec::new);
        }
    }

    /// The row of an agent and what it asked for, or of others where there is no room for one more.
    fn row(&mut self, (mut agent, mut what): (String, String)) -> &mut Row {
        if !self.rows.contains_key(&(agent.clone(), what.clone())) {
            if self.rows.len() >= ROWS_MAX {
                (agent, what) = (OTHERS.to_owned(), OTHERS.to_owned());
            } else {
                let rows = self.agent_rows.entry(agent.clone()).or_default();
                match *rows {
                    AGENT_ROWS_MAX.. => what = OTHERS.to_owned(),
                    _ => *rows += 1,
                }
            }
        }
        self.rows.entry((agent, what)).or_default()
    }

    /// How many answers would be others.
    pub(super) fn changes(&self) -> usize {
        self.rows.values().flat_map(|row| row.changes.values()).map(|count| count.count).sum()
    }

    fn unknown(&self) -> usize {
        self.rows.values().flat_map(|row| row.unknown.values()).map(|count| count.count).sum()
    }

    /// A table by agent and by what it asked for; then what would change and what is not known, each with an example.
    pub(super) fn text(&self, paint: Paint) -> String {
        let sum = |counts: usize| if counts == 0 { "-".to_owned() } else { counts.to_string() };
        let of = |row: &Row, change| sum(row.changes.get(&change).map_or(0, |count| count.count));
        let line = |((agent, what), row): (&(String, String), &Row)| {
            vec![
                visible(agent),
                visible(what),
                of(row, ("allow", "deny")),
                of(row, ("deny", "allow")),
                sum(row.unchanged),
                sum(row.unknown.values().map(|count| count.count).sum()),
            ]
        };
        if self.rows.is_empty() {
            return String::new();
        }
        let header = ["AGENT", "CALL", "ALLOW->DENY", "DENY->ALLOW", "UNCHANGED", "UNKNOWN"];
        let mut text = output::table(&header, self.rows.iter().map(line).collect());
        let (mut changed, mut unknown) = (String::new(), String::new());
        for ((agent, what), row) in &self.rows {
            let (agent, what) = (visible(agent), visible(what));
            for ((from, to), Count { count, example, because }) in &row.changes {
                let (example, because) = (visible(example), visible(&because.join(", ")));
                changed.push_str(&format!(
                    "  {agent} {what}: {count} {from} -> {to}, because {because}; such as {example}\n"
                ));
            }
            for (why, Count { count, example, .. }) in &row.unknown {
                let (why, example) = (visible(&why.to_string()), visible(example));
                unknown.push_str(&format!("  {agent} {what}: {count}, as {why}; such as {example}\n"));
            }
        }
        for (heading, lines) in [("would change", changed), ("not known", unknown)] {
            if !lines.is_empty() {
                text.push_str(&format!("\n{}\n{lines}", paint.bold(&format!("{heading}:"))));
            }
        }
        text
    }

    /// What a person should know of the counts.
    pub(super) fn remarks(&self) -> Vec<String> {
        let (changes, unknown) = (self.changes(), self.unknown());
        let decided = self.records - self.undecided - self.of_others;
        let mut lines = vec![format!(
            "{} records, {decided} with a decision: {changes} would change, {unknown} are not known",
            self.records
        )];
        lines.extend(self.missed.lines());
        if !self.unreplayed.is_empty() {
            lines.push(format!(
                "a replay compares what policies decide, and not what else these documents change: {}",
                self.unreplayed.join(", ")
            ));
        }
        if self.of_others > 0 {
            lines.push(format!("{} are of other tenants and were left out", self.of_others));
        }
        if self.drifted.count > 0 {
            lines.push(format!(
                "{} were decided otherwise when they were recorded than the present configuration decides, such as {}",
                self.drifted.count,
                visible(&self.drifted.example)
            ));
        }
        if changes + unknown > 0 {
            lines.push("`gantry policy explain ID` shows a decision as it was made".to_owned());
        }
        lines
    }

    /// All of it for programs.
    pub(super) fn report(&self) -> Report {
        let row = |((agent, what), row): (&(String, String), &Row)| ReportRow {
            agent: agent.clone(),
            what: what.clone(),
            unchanged: row.unchanged,
            changes: row
                .changes
                .iter()
                .map(|((from, to), Count { count, example, because })| ReportChange {
                    from,
                    to,
                    count: *count,
                    because: because.clone(),
                    example: example.clone(),
                })
                .collect(),
            unknown: row
                .unknown
                .iter()
                .map(|(why, Count { count, example, .. })| ReportUnknown {
                    reason: why.to_string(),
                    count: *count,
                    example: example.clone(),
                })
                .collect(),
        };
        Report {
            records: self.records,
            missed: self.missed.lost,
            unreadable: self.missed.unreadable,
            not_replayed: self.unreplayed.clone(),
            not_decided: self.undecided,
            of_other_tenants: self.of_others,
            decided_otherwise_now: self.drifted.count,
            changes: self.changes(),
            unknown: self.unknown(),
            rows: self.rows.iter().map(row).collect(),
        }
    }
}

/// A verdict as records have it.
fn word(decision: &Decision) -> &'static str {
    match decision.verdict {
        Verdict::Allow => "allow",
        // As records have it.
        Verdict::RequireApproval => "require_approval",
        Verdict::Deny => "deny",
    }
}

/// What decides.
fn because(decision: &Decision) -> Vec<String> {
    let reasons = decision.reasons.iter().map(ToString::to_string);
    let failures = decision.failures.iter().map(|failure| match &failure.statement {
        // What Cedar says of it may repeat arguments.
        Some(statement) => format!("{statement} cannot be evaluated"),
        None => failure.message.clone(),
    });
    let mut told: Vec<String> = reasons.chain(failures).take(REASONS_SHOWN).collect();
    if told.is_empty() {
        told.push("no policy permits it".to_owned());
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_once_each_is_counted_together_and_no_record_is_lost() {
        let mut tally = Tally::default();
        let absent = |why: String| Err(Unknown::Absent(why));
        let count = AGENT_ROWS_MAX + 7;
        for number in 0..count {
            let what = Some(("bot".to_owned(), format!("reads files/mem://{number}")));
            tally.add(&AuditRecord::default(), what, absent("gone".to_owned()), absent("gone".to_owned()));
        }
        assert_eq!(tally.rows.len(), AGENT_ROWS_MAX + 1);
        let others = |tally: &Tally, agent: &str| -> usize {
            let row = &tally.rows[&(agent.to_owned(), OTHERS.to_owned())];
            row.unknown.values().map(|count| count.count).sum()
        };
        assert_eq!(others(&tally, "bot"), 7);
        for number in 0..ROWS_MAX {
            let what = Some((format!("agent-{number}"), "calls files/read".to_owned()));
            tally.add(&AuditRecord::default(), what, absent(number.to_string()), absent(String::new()));
        }
        assert_eq!(tally.rows.len(), ROWS_MAX + 1);
        assert_eq!(others(&tally, OTHERS), AGENT_ROWS_MAX + 1);
        let row = &tally.rows[&(OTHERS.to_owned(), OTHERS.to_owned())];
        assert_eq!(row.unknown.len(), UNKNOWN_MAX + 1);
        // One that has its row keeps it.
        let what = Some(("bot".to_owned(), "reads files/mem://3".to_owned()));
        tally.add(&AuditRecord::default(), what, absent("gone".to_owned()), absent("gone".to_owned()));
        assert_eq!(others(&tally, "bot"), 7);
        assert_eq!((tally.records, tally.unknown()), (count + ROWS_MAX + 1, count + ROWS_MAX + 1));
    }
}
