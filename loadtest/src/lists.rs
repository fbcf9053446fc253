//! Scenario `lists`: what a list of 300 tools costs Gantry beside what a call with a small answer does.
//!
//! What always holds: lists and calls are measured by `compare`'s own slots, in turn, in every round of one run. Lists are
//! asked for twice: by a client that takes gzip, as the HTTP libraries under common MCP clients do unasked, and by one
//! that does not. The bar is for the first, and both are reported.

use std::time::Duration;

use serde_json::json;

use crate::{
    bars::{Bar, Bound, Weight},
    compare::{
        self, CompareError,
        slots::{PACKED_LIST, Slot},
    },
    pinning::Pinning,
    report::{Report, Row},
    scenario::Options,
    target::Name,
};

/// What is measured in turn.
fn slots() -> Vec<Slot> {
    let mut slots: Vec<Slot> = ["call_200b", "list_300"].into_iter().filter_map(Slot::named).collect();
    slots.push(PACKED_LIST);
    slots
}

/// How long each slot calls before it measures.
const WARM: Duration = Duration::from_millis(200);

const ROWS: &[Row] = &[
    Row {
        figure: "gantry_list_300_gzip_cpu_us_per_call",
        words: "tools/list of 300 in gzip, processor time, us",
    },
    Row {
        figure: "gantry_list_300_cpu_us_per_call",
        words: "tools/list of 300 as it is, processor time, us",
    },
    Row { figure: "gantry_call_200b_cpu_us_per_call", words: "tools/call 200 B, processor time, us" },
    Row { figure: "gantry_list_gzip_to_call_cpu_ratio", words: "list in gzip / call" },
    Row { figure: "gantry_list_to_call_cpu_ratio", words: "list as it is / call" },
    Row { figure: "gantry_list_300_gzip_calls_per_s", words: "lists in gzip/s" },
    Row { figure: "gantry_list_300_calls_per_s", words: "lists as they are/s" },
    Row { figure: "gantry_call_200b_calls_per_s", words: "calls/s" },
    Row { figure: "gantry_idle_rss_mib", words: "memory before the first list, MiB" },
    Row { figure: "gantry_list_300_gzip_loaded_rss_mib", words: "memory during lists, MiB" },
    Row { figure: "other_processes_cpu_percent", words: "taken by other processes, % of the machine" },
];

const BARS: &[Bar] = &[
    Bar {
        figure: "failed_calls_count",
        bound: Bound::AtMost(0.0),
        weight: Weight::Required,
        reason: "no call may fail or be answered wrongly",
    },
    Bar {
        figure: "gantry_list_gzip_to_call_cpu_ratio",
        bound: Bound::AtMost(1.0),
        weight: Weight::Required,
        reason: "a list of 300 tools is answered from memory and costs less than a call",
    },
    Bar {
        figure: "gantry_list_to_call_cpu_ratio",
        bound: Bound::AtMost(1.0),
        weight: Weight::Aim,
        reason: "the same for a client that takes no gzip: the kernel copies the whole list each time",
    },
];

/// Runs the scenario.
///
/// # Errors
/// As [`compare::run`].
pub async fn run(
    options: &Options,
    pinning: &Pinning,
    interrupted: impl Future<Output = ()>,
) -> Result<Report, CompareError> {
    let compared = compare::Options {
        round_count: options.round_count,
        measured: options.measured,
        warm: WARM.min(options.measured),
        gantry: options.gantry.clone(),
        targets: vec![Name::Gantry],
        slots: slots(),
    };
    let compared = compare::run(&compared, pinning, interrupted).await?;
    let mut report = Report::new("lists", pinning.is_on(), ROWS);
    report.run = format!(
        "{} rounds, in each {:.1} s of calls, of lists as they are and of lists in gzip, closed loops of {} \
         connections",
        options.round_count,
        options.measured.as_secs_f64(),
        compare::slots::CONNECTION_COUNT,
    );
    report.facts = vec![
        ("round_count", json!(options.round_count)),
        ("slot_seconds", json!(options.measured.as_secs_f64())),
        ("tool_count", json!(compare::slots::TOOL_COUNT)),
    ];
    report.failures = compared.failures;
    report.failures.extend(compared.missing.into_iter().map(|missing| missing.reason));
    report.figures = compared.figures;
    for (ratio, list) in [
        ("gantry_list_to_call_cpu_ratio", "gantry_list_300_cpu_us_per_call"),
        ("gantry_list_gzip_to_call_cpu_ratio", "gantry_list_300_gzip_cpu_us_per_call"),
    ] {
        let call = "gantry_call_200b_cpu_us_per_call";
        report.figures.combine(ratio, list, call, |list, call| list / call);
    }
    report.judge(BARS);
    Ok(report)
}
