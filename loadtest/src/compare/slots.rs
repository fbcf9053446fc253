//! What `compare` measures of each target, and the bars for it, as data: a new measurement is a
//! new row.
//!
//! What always holds: names of slots are unique and stay, since the names of figures begin with
//! them and later runs are compared by them.

use crate::{
    bars::{Bar, Bound, Weight},
    driver::{
        call::{Call, Era, Proof},
        schedule::Rate,
    },
    target::Target,
    upstream::catalog::{
        EVENTS_TOOL, LARGE_TEXT_BYTES, LARGE_TOOL, PROGRESS_COUNT, SMALL_TEXT_BYTES, SMALL_TOOL, text,
    },
};

/// Tools of the upstream, so what every list returns.
pub const TOOL_COUNT: usize = 300;
/// Connections of a busy node's core: enough to keep every target busy, few enough to queue little.
pub const CONNECTION_COUNT: usize = 32;
/// Calls per second of the open loop: a load that every target carries with ease.
pub const OPEN_RATE: u64 = 1_000;

/// One kind of measurement.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// As it stands in the names of figures.
    pub name: &'static str,
    /// As it stands in the table.
    pub title: &'static str,
    /// What is called.
    pub case: Case,
    /// How it is called.
    pub load: Load,
}

/// What is called.
#[derive(Clone, Copy, Debug)]
pub enum Case {
    /// A tool.
    Tool {
        /// Its name at the upstream.
        tool: &'static str,
        /// The bytes of text that it answers.
        text_bytes: usize,
        /// Notifications before the answer.
        progress_count: usize,
        /// The era of the call.
        era: Era,
    },
    /// The list of all tools.
    List,
    /// The same, by a client that takes gzip.
    PackedList,
}

/// How it is called.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// As fast as answers come, on this many connections.
    Closed {
        /// Connections.
        connection_count: usize,
    },
    /// At [`OPEN_RATE`].
    Open,
}

const SMALL_CALL: Case =
    Case::Tool { tool: SMALL_TOOL, text_bytes: SMALL_TEXT_BYTES, progress_count: 0, era: Era::Legacy };
const BUSY: Load = Load::Closed { connection_count: CONNECTION_COUNT };

/// All measurements, in the order of the report.
pub const SLOTS: [Slot; 7] = [
    Slot { name: "call_200b", title: "tools/call 200 B", case: SMALL_CALL, load: BUSY },
    Slot {
        name: "call_10kib",
        title: "tools/call 10 KiB",
        case: Case::Tool {
            tool: LARGE_TOOL,
            text_bytes: LARGE_TEXT_BYTES,
            progress_count: 0,
            era: Era::Legacy,
        },
        load: BUSY,
    },
    Slot {
        name: "call_sse",
        title: "tools/call, 4 events (SSE)",
        case: Case::Tool {
            tool: EVENTS_TOOL,
            text_bytes: SMALL_TEXT_BYTES,
            progress_count: PROGRESS_COUNT,
            era: Era::Legacy,
        },
        load: BUSY,
    },
    Slot { name: "list_300", title: "tools/list, 300 tools", case: Case::List, load: BUSY },
    Slot {
        name: "modern_call_200b",
        title: "2026-07-28 tools/call 200 B",
        case: Case::Tool {
            tool: SMALL_TOOL,
            text_bytes: SMALL_TEXT_BYTES,
            progress_count: 0,
            era: Era::Modern,
        },
        load: BUSY,
    },
    Slot {
        name: "call_200b_one_connection",
        title: "one connection",
        case: SMALL_CALL,
        load: Load::Closed { connection_count: 1 },
    },
    Slot { name: "call_200b_open_1000", title: "open loop 1,000/s", case: SMALL_CALL, load: Load::Open },
];

/// What `lists` measures besides; the upstream and nginx as a plain proxy answer it as any other list.
pub const PACKED_LIST: Slot =
    Slot { name: "list_300_gzip", title: "tools/list, 300 tools, gzip", case: Case::PackedList, load: BUSY };

/// The bars of `compare`.
pub const BARS: &[Bar] = &[
    Bar {
        figure: "failed_calls_count",
        bound: Bound::AtMost(0.0),
        weight: Weight::Required,
        reason: "no call may fail or be answered wrongly, whatever the target",
    },
    Bar {
        figure: "broken_targets_count",
        bound: Bound::AtMost(0.0),
        weight: Weight::Required,
        reason: "a target that is on this machine has to work",
    },
    Bar {
        figure: "gantry_measured_count",
        bound: Bound::AtLeast(1.0),
        weight: Weight::Required,
        reason: "a check without Gantry checks nothing",
    },
    Bar {
        figure: "gantry_call_200b_cpu_ratio_to_nginx",
        bound: Bound::AtMost(2.5),
        weight: Weight::Aim,
        reason: "processor time per call near a bare reverse proxy's",
    },
    Bar {
        figure: "gantry_list_300_rate_ratio_to_direct",
        bound: Bound::AtLeast(1.0),
        weight: Weight::Aim,
        reason: "lists are faster than the server's own",
    },
    Bar {
        figure: "gantry_start_to_first_answer_ms",
        bound: Bound::AtMost(100.0),
        weight: Weight::Aim,
        reason: "a node is there at once",
    },
    Bar {
        figure: "gantry_idle_rss_mib",
        bound: Bound::AtMost(30.0),
        weight: Weight::Aim,
        reason: "an idle node is small",
    },
];

impl Slot {
    /// The slot of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        SLOTS.into_iter().find(|slot| slot.name == name)
    }

    /// The call of this slot at `target`.
    #[must_use]
    pub fn call(&self, target: &Target) -> Call {
        match self.case {
            Case::Tool { tool, text_bytes, progress_count, era } => {
                let proof = Proof::Text { text: text(text_bytes), progress_count };
                target.endpoint.call_tool(era, target.exposed_name(tool), proof)
            }
            Case::List | Case::PackedList => {
                let proof = Proof::Tools { names: target.tool_names.clone() };
                let list = target.endpoint.list_tools(Era::Legacy, proof);
                if matches!(self.case, Case::PackedList) { list.in_gzip() } else { list }
            }
        }
    }

    /// Whether the upstream has to see every call.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        match self.case {
            Case::Tool { .. } => true,
            Case::List | Case::PackedList => false,
        }
    }
}

/// The rate of the open loop.
#[must_use]
pub fn open_rate() -> Rate {
    Rate::per_second(OPEN_RATE).expect("the constant rate is valid")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn slots_have_names_of_their_own() {
        let names: BTreeSet<&str> = SLOTS.iter().map(|slot| slot.name).collect();
        assert_eq!(names.len(), SLOTS.len());
    }
}
