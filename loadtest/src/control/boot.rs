//! Part `boot`: a node starts while there is no control plane, from what was last known to be good.
//!
//! Always holds: every process of the control plane was killed before; a time runs from the start of the node's process
//! to the proved answer of a call through it to its server.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{
    ControlError, Options,
    admin::Admin,
    cluster::Cluster,
    node::{self, Node, Site},
};
use crate::{
    bars::{Bar, Bound, Weight},
    pinning::Pinning,
    report::{Report, Row},
    upstream::child::{ANYWHERE, Child, Wanted},
};

/// Starts in a round.
const START_COUNT: u32 = 10;
const TOOL_COUNT: usize = 10;
/// A node that answers a call keeps that within this: it writes a file a second at most.
const KEPT_WITHIN: Duration = Duration::from_secs(3);

pub(super) const ROWS: &[Row] = &[
    Row { figure: "boot_ms", words: "boot: no control plane: process start to first answer, ms" },
    Row { figure: "boot_failed_count", words: "boot: starts that did not answer" },
];

pub(super) const BARS: &[Bar] = &[
    Bar {
        figure: "boot_ms",
        bound: Bound::AtMost(500.0),
        weight: Weight::Required,
        reason: "a node serves from its last-known-good without a control plane",
    },
    Bar {
        figure: "boot_failed_count",
        bound: Bound::AtMost(0.0),
        weight: Weight::Required,
        reason: "every start serves",
    },
];

/// Runs the part.
pub(super) async fn run(options: &Options, folder: &Path, report: &mut Report) -> Result<(), ControlError> {
    let wanted = Wanted { name: "upstream", listen: ANYWHERE, tool_count: TOOL_COUNT, delay: Duration::ZERO };
    let upstream = Child::start(folder, &Pinning::none(), wanted).await?;
    let cluster = Cluster::start(&options.gantry, folder, 1).await?;
    let mut admin = Admin::connect(&cluster.accesses()[0]).await?;
    admin.apply(node::tenant(&upstream.url)?).await?;
    let (_, key) = admin.create_key(node::TENANT, node::AGENT).await?;
    let site = Site::of(&options.gantry, folder, &cluster);
    let mut node = Node::start(&site, &mut admin, "booted").await?;
    node.answer(&key).await?;
    tokio::time::sleep(KEPT_WITHIN).await;
    node.kill().await?;
    cluster.stop().await?;
    let mut failed_count = 0;
    for round in 0..options.round_count * START_COUNT {
        let began = Instant::now();
        let started = node.restart().await;
        let answered = match started {
            Ok(()) => node.answer(&key).await,
            Err(failure) => Err(failure),
        };
        match answered {
            Ok(()) => report.figures.add("boot_ms", round, began.elapsed().as_secs_f64() * 1e3),
            Err(failure) => {
                failed_count += 1;
                report.failures.push(crate::causes::on_one_line(&failure));
            }
        }
        node.kill().await?;
    }
    report.figures.add("boot_failed_count", 0, f64::from(failed_count));
    upstream.stop().await?;
    Ok(())
}
