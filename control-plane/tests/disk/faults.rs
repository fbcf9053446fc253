//! A disk that is full, and one that fails: the voter stops and says why, nothing is acknowledged that is not there,
//! and the next start on a mended disk carries on.
//!
//! A first child runs on a sound disk, and its trace tells what there is to fail: every kind of change to every kind of
//! file. Then a child runs for each of these, with the disk full from that change on, or with one change that fails.
//! `GANTRY_FAULT_EACH=20` takes up to so many changes of each sort instead of one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::platter::Platter;
use crate::process::Process;
use crate::random::{Random, number, seed};
use crate::shim::Failure;
use crate::trace::Op;

/// As the operating system numbers them.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// How a child says that it could not start, and that it was stopped; any other end is a defect.
pub(crate) const EXIT_NOT_STARTED: i32 = 3;
pub(crate) const EXIT_STOPPED: i32 = 4;

/// What became of one child.
#[derive(Debug, Default)]
struct Run {
    code: Option<i32>,
    #[expect(dead_code, reason = "shown when a test fails")]
    stderr: String,
    said: BTreeMap<String, BTreeSet<String>>,
    failures: usize,
}

impl Run {
    /// Runs the child that proposes a few things and ends.
    fn of(root: &Path, failure: Option<Failure>) -> (Self, Vec<Op>) {
        let mut child = Process::start("proposer", root, 0, failure);
        let mut run = Self::default();
        while let Some((what, rest)) = child.line() {
            run.said.entry(what).or_default().insert(rest);
        }
        let (status, stderr) = child.end();
        let ops = child.trace();
        run.failures = ops.iter().filter(|op| **op == Op::Failed).count();
        (Self { code: status.code(), stderr, ..run }, ops)
    }

    fn said(&self, what: &str) -> BTreeSet<String> {
        self.said.get(what).cloned().unwrap_or_default()
    }

    /// Why it did not start, or was stopped.
    fn reason(&self) -> String {
        self.said("reason").into_iter().collect()
    }
}

fn disk() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let root = directory.path().join("disk");
    fs::create_dir(&root).expect("make a directory");
    (directory, root)
}

/// The changes of a trace by their sort, counted as the disk counts them.
fn sorts(root: &Path, ops: &[Op]) -> BTreeMap<String, Vec<u64>> {
    let mut sorts = BTreeMap::<String, Vec<u64>>::new();
    let mut platter = Platter::of(root);
    let changes = ops.iter().filter(|op| !matches!(op, Op::Said(_)));
    for (op, change) in changes.zip(1..) {
        platter.follow(op);
        sorts.entry(platter.sort_of(op)).or_default().push(change);
    }
    sorts
}

#[test]
fn a_disk_that_is_full_or_fails_stops_the_voter_and_loses_nothing() {
    let each = number("GANTRY_FAULT_EACH").unwrap_or(1);
    let mut random = Random(seed("GANTRY_FAULT_SEED"));
    let (_directory, root) = disk();
    let (sound, ops) = Run::of(&root, None);
    assert_eq!(sound.code, Some(0), "{sound:?}");
    let (_directory, root) = disk();
    let sorts = sorts(&root, &ops);
    let mut ends = BTreeMap::<i32, usize>::new();
    for (sort, changes) in &sorts {
        for at in 0..each.min(changes.len() as u64) {
            let change = changes[random.below(changes.len() as u64) as usize];
            let (errno, stays) =
                [(ENOSPC, true), (EIO, false), (EIO, true)][(at + random.below(2)) as usize % 3];
            let failure = Failure { change, errno, stays };
            let run = fails_safely(failure, &format!("{sort}, {failure:?}"));
            if run.failures > 0 {
                *ends.entry(run.code.unwrap_or_default()).or_default() += 1;
            }
        }
    }
    println!("{} sorts of changes; exit codes: {ends:?}", sorts.len());
    assert!(ends.contains_key(&EXIT_NOT_STARTED) && ends.contains_key(&EXIT_STOPPED), "{ends:?}");
}

fn fails_safely(failure: Failure, context: &str) -> Run {
    let (_directory, root) = disk();
    let (run, _) = Run::of(&root, Some(failure));
    let text = if failure.errno == ENOSPC { "No space left on device" } else { "Input/output error" };
    match run.code {
        // It came to its end before, or what failed was not needed: a file that is cleared away later.
        Some(0) => {}
        Some(EXIT_NOT_STARTED | EXIT_STOPPED) => {
            assert!(run.reason().contains(text), "{context}: {}", run.reason());
        }
        _ => panic!("{context}: {run:?}"),
    }
    let (mended, _) = Run::of(&root, None);
    assert_eq!(mended.code, Some(0), "{context}: {run:?} {mended:?}");
    let (found, tried) = (mended.said("found"), run.said("try"));
    let lost: Vec<_> = run.said("ack").difference(&found).cloned().collect();
    assert!(lost.is_empty(), "{context}: acknowledged and lost: {lost:?}");
    assert!(found.is_subset(&tried), "{context}: nobody proposed {found:?}");
    run
}
