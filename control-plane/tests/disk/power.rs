//! Power cuts: whatever was acknowledged is there afterwards, and nothing that nobody asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::platter::Platter;
use crate::process::{MARK, Process, parted};
use crate::random::{Random, number, seed};
use crate::steps::{Kept, Memory, State, Step};
use crate::trace::{self, Op};

/// Of each of the two tests.
const ROUNDS: u64 = 50;
/// Most acknowledgements before a child is killed.
const ACKS_MAX: u64 = 60;
/// Steps that a child of the store is told at once; it seldom comes so far.
const STEPS: u64 = 60;

/// Rounds after which a long run says how far it is.
const PROGRESS_EVERY: u64 = 100;

/// A directory that goes through one power cut after another.
struct Disk {
    _directory: tempfile::TempDir,
    root: PathBuf,
    random: Random,
}

/// What one child did before the power was cut.
struct Past {
    lines: Vec<(String, String)>,
    /// Changes that the cut came after, of how many.
    place: (usize, usize),
}

impl Disk {
    fn new(seed: u64) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let root = directory.path().join("disk");
        fs::create_dir(&root).expect("make a directory");
        Self { _directory: directory, root, random: Random(seed) }
    }

    /// Cuts the power at the end of what a child did, or before.
    fn cut(&mut self, mut before: Platter, ops: &[Op]) -> Past {
        let kept = match self.random.below(3) {
            0 => ops.len(),
            _ => self.random.below(ops.len() as u64 + 1) as usize,
        };
        ops[..kept].iter().for_each(|op| before.follow(op));
        fs::remove_dir_all(&self.root).expect("remove");
        fs::create_dir(&self.root).expect("make a directory");
        before.cut(&mut self.random, &self.root);
        let lines = trace::said(&ops[..kept], MARK).iter().map(|line| parted(line)).collect();
        Past { lines, place: (kept, ops.len()) }
    }
}

impl Past {
    fn was_ready(&self) -> bool {
        self.lines.iter().any(|(what, _)| what == "ready")
    }
}

/// What was said in lines of these sorts.
fn words(lines: &[(String, String)], sorts: &[&str]) -> BTreeSet<String> {
    let of_sort = lines.iter().filter(|(what, _)| sorts.contains(&what.as_str()));
    of_sort.map(|(_, word)| word.clone()).collect()
}

#[test]
fn whatever_a_voter_acknowledged_outlives_a_power_cut() {
    let rounds = number("GANTRY_POWER_ROUNDS").unwrap_or(ROUNDS);
    let mut disk = Disk::new(seed("GANTRY_POWER_SEED"));
    let (mut acknowledged, mut tried, mut term) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut place = (0, 0);
    for round in 0..=rounds {
        let before = Platter::of(&disk.root);
        let mut child = Process::start("consensus", &disk.root, round, None);
        let lines = child.lines_until("ready");
        let found = words(&lines, &["found"]);
        let context = format!("round {round}, after a cut at {place:?}");
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "{context}: acknowledged and lost: {lost:?}");
        let invented: Vec<_> = found.difference(&tried).collect();
        assert!(invented.is_empty(), "{context}: nobody proposed {invented:?}");
        let now = words(&lines, &["term"]).first().and_then(|term| term.parse().ok()).expect("a term");
        assert!(term <= now, "{context}: the vote went back from term {term} to {now}");
        let mut acks = disk.random.below(ACKS_MAX);
        while acks > 0 {
            let (what, _) = child.line().expect("the child ended by itself");
            acks -= u64::from(what == "ack");
        }
        let past = disk.cut(before, &child.kill());
        // What a voter that has started serves is committed, whoever proposed it.
        acknowledged.extend(words(&past.lines, if past.was_ready() { &["ack", "found"] } else { &[] }));
        tried.extend(words(&past.lines, &["try"]));
        term = if past.was_ready() { now } else { term };
        place = past.place;
        if round > 0 && round % PROGRESS_EVERY == 0 {
            println!("{round} power cuts, {} commands acknowledged", acknowledged.len());
        }
    }
    println!("{} commands acknowledged in {rounds} power cuts, none lost", acknowledged.len());
    assert!(acknowledged.len() as u64 > rounds, "the rounds were too short to mean anything");
}

/// What a store may remember.
struct Expected {
    kept: Vec<Kept>,
    states: Vec<State>,
}

#[test]
fn whatever_the_store_made_durable_outlives_a_power_cut() {
    let rounds = number("GANTRY_POWER_ROUNDS").unwrap_or(ROUNDS);
    let mut disk = Disk::new(seed("GANTRY_POWER_SEED"));
    let nothing = Memory::default();
    let mut expected = Expected { kept: vec![nothing.kept], states: vec![nothing.state] };
    let (mut numbers, mut done, mut place) = (0, 0, (0, 0));
    for round in 0..=rounds {
        let before = Platter::of(&disk.root);
        let mut child = Process::start("store", &disk.root, round, None);
        let memory = first_words(&mut child, round);
        let context = format!("round {round}, after a cut at {place:?}");
        assert!(expected.kept.contains(&memory.kept), "{context}: {:#?} {:#?}", memory.kept, expected.kept);
        assert!(
            expected.states.contains(&memory.state),
            "{context}: {:?} {:#?}",
            memory.state,
            expected.states
        );
        let steps = steps(&mut disk.random, memory.clone(), &mut numbers);
        steps.iter().for_each(|step| child.tell(&serde_json::to_string(step).expect("a step")));
        let mut acks = disk.random.below(STEPS);
        while acks > 0 {
            let (what, _) = child.line().expect("the child ended by itself");
            acks -= u64::from(what == "did");
        }
        let past = disk.cut(before, &child.kill());
        let did = past.lines.iter().filter(|(what, _)| what == "did").count();
        if past.was_ready() {
            expected = Expected::after(memory, &steps, did);
        }
        done += did;
        place = past.place;
        if round > 0 && round % PROGRESS_EVERY == 0 {
            println!("{round} power cuts, {done} steps done");
        }
    }
    println!("{done} steps in {rounds} power cuts, none lost");
    assert!(done as u64 > rounds, "the rounds were too short to mean anything");
}

fn first_words(child: &mut Process, round: u64) -> Memory {
    match child.line() {
        Some((what, memory)) if what == "ready" => serde_json::from_str(&memory).expect("a memory"),
        other => panic!("round {round}: the store did not open: {other:?}\n{}", child.end().1),
    }
}

fn steps(random: &mut Random, mut memory: Memory, numbers: &mut u64) -> Vec<Step> {
    let step = |_| {
        *numbers += 1;
        let step = Step::some(random, &memory.kept, *numbers);
        memory = std::mem::take(&mut memory).after(&step);
        step
    };
    (0..STEPS).map(step).collect()
}

impl Expected {
    /// After the first `did` steps, with the next one under way.
    fn after(mut memory: Memory, steps: &[Step], did: usize) -> Self {
        let mut states = vec![memory.state.clone()];
        let mut kept = vec![memory.kept.clone()];
        for (at, step) in steps.iter().enumerate().take(did + 1) {
            let after = memory.clone().after(step);
            kept = if at < did { vec![after.kept.clone()] } else { memory.kept.on_the_way_to(&after.kept) };
            states.push(after.state.clone());
            if at < did && !matches!(step, Step::Apply { .. }) {
                states.drain(..states.len() - 1);
            }
            memory = after;
        }
        Self { kept, states }
    }
}

#[test]
fn a_first_start_that_a_power_cut_ends_is_done_again() {
    let rounds = number("GANTRY_POWER_ROUNDS").unwrap_or(ROUNDS) / 2;
    let mut disk = Disk::new(seed("GANTRY_POWER_SEED"));
    let mut child = Process::start("store", &disk.root, 0, None);
    first_words(&mut child, 0);
    let ops = child.kill();
    for round in 0..rounds {
        let another = tempfile::tempdir().expect("temporary directory");
        let past = disk.cut(Platter::of(another.path()), &ops);
        let memory = first_words(&mut Process::start("store", &disk.root, round, None), round);
        assert_eq!(memory, Memory::default(), "round {round}, after a cut at {:?}", past.place);
    }
}

#[test]
fn the_model_keeps_what_was_synced_and_may_lose_the_rest() {
    let write = |offset, byte: u8| Op::Write { file: 7, offset, bytes: vec![byte; 1024] };
    let ops = [
        Op::MakeDirectory("d".into()),
        Op::SyncDirectory(String::new()),
        Op::Create { file: 7, name: "d/new".into() },
        write(0, 1),
        Op::SyncFile(7),
        Op::SyncDirectory("d".into()),
        write(1024, 2),
        Op::Rename { from: "d/new".into(), to: "d/renamed".into() },
    ];
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut platter = Platter::of(directory.path());
        ops.iter().for_each(|op| platter.follow(op));
        platter.cut(&mut Random(seed), directory.path());
        let names = fs::read_dir(directory.path().join("d")).expect("it was synced");
        let names: Vec<_> = names.map(|name| name.expect("a name").path()).collect();
        let [name] = names.as_slice() else { panic!("{names:?}") };
        let sectors: Vec<_> = fs::read(name).expect("read").chunks(512).map(|sector| sector[0]).collect();
        seen.insert((name.ends_with("renamed"), sectors));
    }
    let contents: [&[u8]; 4] = [&[1, 1], &[1, 1, 2], &[1, 1, 0, 2], &[1, 1, 2, 2]];
    let expected =
        [false, true].into_iter().flat_map(|name| contents.map(|content| (name, content.to_vec())));
    assert_eq!(seen, expected.collect());
}

#[test]
fn a_trace_tells_everything_that_the_store_does_to_its_directory() {
    let mut disk = Disk::new(1);
    let mut platter = Platter::of(&disk.root);
    let mut child = Process::start("store", &disk.root, 0, None);
    let steps = steps(&mut disk.random, first_words(&mut child, 0), &mut 0);
    steps.iter().for_each(|step| child.tell(&serde_json::to_string(step).expect("a step")));
    let (status, stderr) = child.end();
    assert!(status.success(), "{stderr}");
    child.trace().iter().for_each(|op| platter.follow(op));
    platter.sync();
    let copy = tempfile::tempdir().expect("temporary directory");
    platter.cut(&mut disk.random, copy.path());
    let (live, replayed) = (contents(&disk.root), contents(copy.path()));
    assert_eq!(live.keys().collect::<Vec<_>>(), replayed.keys().collect::<Vec<_>>());
    for (name, content) in &live {
        assert!(replayed[name] == *content, "{name:?}");
    }
}

/// Every file below a directory.
fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = PathBuf::from(path.file_name().expect("a name"));
        if path.is_dir() {
            found.extend(contents(&path).into_iter().map(|(below, content)| (name.join(below), content)));
        } else {
            found.insert(name, fs::read(&path).expect("read"));
        }
    }
    found
}
