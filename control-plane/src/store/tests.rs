//! The store against what it promises: reopening, damage, crashes between batches, and the order of sync and answer.

mod crashes;
mod damage;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::*;

const IDENTITY: &[u8] = b"voter one";

/// What a reopened store remembers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Memory {
    vote: Option<Vec<u8>>,
    purged: Option<Vec<u8>>,
    log: Vec<IndexedEntry>,
    applied: Vec<u8>,
    state: BTreeMap<String, Vec<u8>>,
}

async fn open(dir: &Path) -> (Store, Memory) {
    let opened = Store::open(dir, IDENTITY).expect("open");
    assert_eq!(opened.identity, IDENTITY);
    let log = opened.store.read_log(0, u64::MAX, usize::MAX).await.expect("read");
    assert_eq!(opened.last_entry.as_ref(), log.last().map(|(_, entry)| entry));
    assert_eq!(opened.log_bytes, log.iter().map(|(_, entry)| entry.len() as u64).sum::<u64>());
    let state: BTreeMap<_, _> = opened.entries.iter().cloned().collect();
    assert_eq!(state.len(), opened.entries.len(), "no key twice");
    let memory = Memory { vote: opened.vote, purged: opened.purged, log, applied: opened.applied, state };
    (opened.store, memory)
}

/// Bytes that are different for every seed.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(31).wrapping_add(seed * 131 + at / 256)) as u8).collect()
}

fn change(index: u64, changes: &[(&str, Option<usize>)]) -> ChangeSet {
    let value = |length: &usize| Arc::from(bytes(index, *length));
    let changes = changes.iter().map(|(key, length)| ((*key).to_owned(), length.as_ref().map(value)));
    ChangeSet { index, record: index.to_string().into_bytes(), changes: changes.collect() }
}

fn state(entries: &[(&str, u64, usize)]) -> BTreeMap<String, Vec<u8>> {
    entries.iter().map(|(key, seed, length)| ((*key).to_owned(), bytes(*seed, *length))).collect()
}

#[tokio::test]
async fn a_reopened_store_remembers_everything() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (store, memory) = open(dir.path()).await;
    assert_eq!(memory, Memory::default());
    store.append(0, vec![bytes(0, 10), bytes(1, 1_000_000)]).await.expect("append");
    store.append(2, vec![bytes(2, 0), bytes(3, 5000), bytes(4, 70_000)]).await.expect("append");
    store.save_vote(b"one".to_vec()).await.expect("vote");
    store.save_vote(b"two".to_vec()).await.expect("vote");
    store.apply(change(1, &[("a", Some(3)), ("b", Some(5000)), ("ab", Some(0))])).await.expect("apply");
    store.apply(change(3, &[("a", Some(400_000)), ("b", None), ("c", None)])).await.expect("apply");
    store.truncate(4).await.expect("truncate");
    store.purge(0, b"purged 0".to_vec()).await.expect("purge");
    let expected = Memory {
        vote: Some(b"two".to_vec()),
        purged: Some(b"purged 0".to_vec()),
        log: vec![(1, bytes(1, 1_000_000)), (2, bytes(2, 0)), (3, bytes(3, 5000))],
        applied: b"3".to_vec(),
        state: state(&[("a", 3, 400_000), ("ab", 1, 0)]),
    };
    store.close().await.expect("close");
    let (store, memory) = open(dir.path()).await;
    assert_eq!(memory, expected);
    store.close().await.expect("close");
}

#[tokio::test]
async fn a_closed_store_gives_its_directory_back_at_once() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for round in 0..20 {
        let (store, memory) = open(dir.path()).await;
        assert_eq!(memory.log.len(), round);
        store.append(round as u64, vec![bytes(1, 100)]).await.expect("append");
        store.close().await.expect("close");
        assert!(matches!(store.sync().await, Err(WriteError::Closed)));
        assert!(matches!(store.read_log(0, 1, 1).await, Err(ReadError::Closed)));
    }
}

#[tokio::test]
async fn a_second_open_is_refused_while_the_first_lasts() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (store, _) = open(dir.path()).await;
    let error = Store::open(dir.path(), IDENTITY).map(|_| ()).expect_err("second");
    let expected =
        format!("data directory {} is in use by process {}", dir.path().display(), std::process::id());
    assert_eq!(error.to_string(), expected);
    store.close().await.expect("close");
    open(dir.path()).await.0.close().await.expect("close");
}

#[tokio::test]
async fn an_entry_of_a_megabyte_is_cut_into_values_that_sled_keeps_inline() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (store, _) = open(dir.path()).await;
    store.append(0, vec![bytes(1, 1_000_000)]).await.expect("append");
    store.apply(change(0, &[("key", Some(4 * 1024 * 1024))])).await.expect("apply");
    store.sync().await.expect("sync");
    let longest = store.shared.with_database(|database| {
        let trees = [&database.log, &database.machine, &database.meta];
        let lengths = trees.into_iter().flat_map(|tree| tree.iter().map(|pair| pair.expect("pair").1.len()));
        lengths.max()
    });
    assert_eq!(longest, Some(Some(record::VALUE_BYTES_MAX)));
    let blobs = std::fs::read_dir(dir.path().join("raft/blobs")).expect("blobs");
    assert_eq!(blobs.count(), 0);
    assert_eq!(store.read_log(0, 1, 1).await.expect("read"), [(0, bytes(1, 1_000_000))]);
    store.close().await.expect("close");
}

#[tokio::test]
async fn a_read_stops_at_its_limit_but_never_before_the_first_entry() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (store, _) = open(dir.path()).await;
    store.append(0, (0..10).map(|seed| bytes(seed, 1000)).collect()).await.expect("append");
    let read = async |start, end, limit| {
        let read = store.read_log(start, end, limit).await.expect("read");
        read.into_iter().map(|(index, _)| index).collect::<Vec<_>>()
    };
    assert_eq!(read(0, 10, 1).await, [0]);
    assert_eq!(read(3, 10, 2500).await, [3, 4, 5]);
    assert_eq!(read(8, 100, usize::MAX).await, [8, 9]);
    assert_eq!(read(10, 20, usize::MAX).await, [0_u64; 0]);
    assert_eq!(read(5, 5, usize::MAX).await, [0_u64; 0]);
    store.close().await.expect("close");
}

#[tokio::test]
async fn entries_out_of_order_are_refused_and_stop_the_store() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (store, _) = open(dir.path()).await;
    store.append(0, vec![bytes(0, 1)]).await.expect("append");
    let error = store.append(2, vec![bytes(2, 1)]).await.expect_err("hole");
    assert_eq!(error.to_string(), "log index 2 is out of order, the next one is 1");
    let error = store.append(1, vec![bytes(1, 1)]).await.expect_err("stopped");
    assert!(matches!(error, WriteError::Stopped(_)));
    store.close().await.expect_err("the failure is told once more");
    let (store, memory) = open(dir.path()).await;
    assert_eq!(memory.log, [(0, bytes(0, 1))]);
    store.close().await.expect("close");
}

#[tokio::test]
async fn nothing_is_acknowledged_before_the_data_file_is_synced() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (store, _) = open(dir.path()).await;
    let faults = |act: fn(&faults::Faults)| store.shared.with_database(|database| act(&database.faults));
    for (index, vote) in [(0, b"first"), (1, b"other")] {
        faults(faults::Faults::close_gate);
        let syncs = store.sync_count();
        let appending = store.append(index, vec![bytes(index, 100)]);
        let voting = store.save_vote(vote.to_vec());
        let mut appending = std::pin::pin!(appending);
        let mut voting = std::pin::pin!(voting);
        let (waker, mut pending) = (std::task::Waker::noop(), 0);
        let mut context = std::task::Context::from_waker(waker);
        pending += usize::from(appending.as_mut().poll(&mut context).is_pending());
        pending += usize::from(voting.as_mut().poll(&mut context).is_pending());
        // The write has been carried out when its sync stands at the gate.
        let shared = Arc::clone(&store.shared);
        let waited = tokio::task::spawn_blocking(move || {
            shared.with_database(|database| database.faults.wait_for_sync())
        });
        waited.await.expect("a sync came");
        assert_eq!(store.read_log(index, index + 1, 1).await.expect("read").len(), 1, "readable");
        pending += usize::from(appending.as_mut().poll(&mut context).is_pending());
        pending += usize::from(voting.as_mut().poll(&mut context).is_pending());
        assert_eq!((pending, store.sync_count()), (4, syncs), "not acknowledged");
        faults(faults::Faults::open_gate);
        appending.await.expect("append");
        voting.await.expect("vote");
        assert!(store.sync_count() > syncs, "synced before it was acknowledged");
    }
    store.close().await.expect("close");
}

#[tokio::test]
async fn a_directory_whose_database_is_gone_is_not_started_afresh() {
    let dir = tempfile::tempdir().expect("temporary directory");
    open(dir.path()).await.0.close().await.expect("close");
    std::fs::remove_dir_all(dir.path().join("raft")).expect("remove");
    let error = Store::open(dir.path(), IDENTITY).map(|_| ()).expect_err("gone");
    let raft = dir.path().join("raft");
    let expected = format!("cannot open the database in {}: its file db is gone", raft.display());
    assert_eq!(error.to_string(), expected);
    std::fs::create_dir(&raft).expect("create");
    std::fs::write(raft.join("db"), "").expect("write");
    let error = Store::open(dir.path(), IDENTITY).map(|_| ()).expect_err("empty");
    assert!(matches!(error, OpenError::Missing { item: Item::Identity }), "{error}");
}

#[tokio::test]
async fn a_creation_that_was_interrupted_is_carried_on() {
    let dir = tempfile::tempdir().expect("temporary directory");
    open(dir.path()).await.0.close().await.expect("close");
    // As if the process had died before the first sync, and before the directory for checkpoints was made.
    std::fs::remove_dir(dir.path().join("checkpoints")).expect("remove");
    let database = Database::open(&dir.path().join("raft"), Arc::default()).expect("database");
    database.meta.clear().expect("clear");
    drop(database);
    let (store, memory) = open(dir.path()).await;
    assert_eq!(memory, Memory::default());
    store.close().await.expect("close");
}

#[tokio::test]
async fn unfinished_snapshots_of_sled_do_not_keep_it_from_opening() {
    let dir = tempfile::tempdir().expect("temporary directory");
    open(dir.path()).await.0.close().await.expect("close");
    std::fs::write(dir.path().join("raft/snap.FFFFFFFFFFFFFFF0.generating"), "half").expect("write");
    open(dir.path()).await.0.close().await.expect("close");
}
