//! Damage on disk: it is told, with what it hit, and nothing is served from a damaged directory.

use std::io;

use super::*;

type Trees = fn(&Database) -> &sled::Tree;
/// What is lost, and what is then told: of what, how far it goes, how far it went.
type Loss = (fn(&Database), &'static str, u64, u64);

/// A closed store with entries and state of one and of several parts.
async fn stored() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (store, _) = open(dir.path()).await;
    store.append(0, (0..5).map(|seed| bytes(seed, 9000)).collect()).await.expect("append");
    store.save_vote(b"vote".to_vec()).await.expect("vote");
    store.apply(change(1, &[("large", Some(9000)), ("small", Some(10))])).await.expect("apply");
    store.purge(0, b"mark".to_vec()).await.expect("purge");
    store.close().await.expect("close");
    dir
}

fn with_tree(dir: &Path, tree: Trees, act: impl FnOnce(&sled::Tree)) {
    let database = Database::open(&dir.join("raft"), Arc::default()).expect("database");
    act(tree(&database));
}

fn refusal(dir: &Path) -> String {
    let mut error: &dyn std::error::Error = &Store::open(dir, IDENTITY).map(|_| ()).expect_err("damaged");
    let mut text = error.to_string();
    while let Some(source) = error.source() {
        text = format!("{text}: {source}");
        error = source;
    }
    text
}

#[tokio::test]
async fn a_flipped_bit_in_any_value_is_fatal_and_named() {
    let dir = stored().await;
    let keys = |tree: Trees| {
        let mut keys = Vec::new();
        with_tree(dir.path(), tree, |tree| keys = tree.iter().keys().map(|key| key.expect("key")).collect());
        keys
    };
    let trees: [Trees; 3] =
        [|database| &database.log, |database| &database.meta, |database| &database.machine];
    let mut told = std::collections::BTreeSet::new();
    for tree in trees {
        for key in keys(tree) {
            let mut sound = sled::IVec::default();
            for from_end in [1, 7] {
                with_tree(dir.path(), tree, |tree| {
                    sound = tree.get(&key).expect("get").expect("value");
                    let mut value = sound.to_vec();
                    let at = value.len().saturating_sub(from_end);
                    value[at] ^= 0x10;
                    tree.insert(&key, value).expect("insert");
                });
                told.insert(refusal(dir.path()));
                with_tree(dir.path(), tree, |tree| drop(tree.insert(&key, &sound).expect("insert")));
            }
        }
    }
    let damaged = |item: &str| format!("{item} is damaged: checksum does not match");
    let mut expected: std::collections::BTreeSet<_> =
        (1..5).map(|index| damaged(&format!("log entry {index}"))).collect();
    expected.extend(["the identity", "the vote", "the purge mark", "the state's mark"].map(damaged));
    expected.extend([r#"state entry "large""#, r#"state entry "small""#].map(damaged));
    assert_eq!(told, expected);
    open(dir.path()).await.0.close().await.expect("close");
}

#[tokio::test]
async fn a_value_of_another_version_is_refused() {
    let dir = stored().await;
    let key = [2_u64.to_be_bytes().as_slice(), &[0, 1]].concat();
    with_tree(
        dir.path(),
        |database| &database.log,
        |tree| {
            let mut value = tree.get(&key).expect("get").expect("value").to_vec();
            value[0] = 2;
            tree.insert(&key, value).expect("insert");
        },
    );
    assert_eq!(refusal(dir.path()), "log entry 2 is damaged: value has version 2, this build reads 1");
}

#[tokio::test]
async fn a_missing_entry_is_fatal_and_a_missing_part_too_except_at_the_tail() {
    let cases = [
        (1, 0..3, "log entry 1 is missing, the next one is 2"),
        (3, 0..3, "log entry 3 is missing, the next one is 4"),
        (3, 1..2, "log entry 3 is damaged: part 1 is missing, part 2 is there"),
        (3, 2..3, "log entry 3 is damaged: 8174 of 9000 bytes are there"),
        (4, 0..1, "log entry 4 is damaged: part 0 is missing, part 1 is there"),
        (4, 1..2, "log entry 4 is damaged: part 1 is missing, part 2 is there"),
    ];
    for (index, parts, expected) in cases {
        let dir = stored().await;
        with_tree(
            dir.path(),
            |database| &database.log,
            |tree| {
                for part in parts {
                    let key = [u64::to_be_bytes(index).as_slice(), &u16::to_be_bytes(part)].concat();
                    assert!(tree.remove(key).expect("remove").is_some());
                }
            },
        );
        assert_eq!(refusal(dir.path()), expected);
    }
    let dir = stored().await;
    let key = [4_u64.to_be_bytes().as_slice(), &[0, 2]].concat();
    with_tree(dir.path(), |database| &database.log, |tree| drop(tree.remove(key).expect("remove")));
    let watermark = Watermark::path(dir.path());
    let accept = watermark.display();
    let expected = format!(
        "the log goes to 4, but was durable to 5: the disk has lost data (to accept the loss, remove {accept})"
    );
    assert_eq!(refusal(dir.path()), expected, "it was whole once");
    std::fs::remove_file(&watermark).expect("remove");
    let (store, memory) = open(dir.path()).await;
    assert_eq!(memory.log.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2, 3]);
    store.append(4, vec![bytes(9, 5)]).await.expect("append");
    store.close().await.expect("close");
    let (store, memory) = open(dir.path()).await;
    assert_eq!(memory.log.last(), Some(&(4, bytes(9, 5))), "nothing of the torn entry is left");
    store.close().await.expect("close");
}

#[tokio::test]
async fn state_that_vanished_without_a_trace_is_noticed() {
    for (key, parts, expected) in [
        ("small", 1_u16, "state is incomplete: 1 entries found, 2 written, or not the same ones"),
        ("large", 3, "state is incomplete: 1 entries found, 2 written, or not the same ones"),
    ] {
        let dir = stored().await;
        with_tree(
            dir.path(),
            |database| &database.machine,
            |tree| {
                for part in 0..parts {
                    let key =
                        [&[1], key.as_bytes(), &[0], &1_u64.to_be_bytes(), &part.to_be_bytes()].concat();
                    assert!(tree.remove(key).expect("remove").is_some());
                }
            },
        );
        assert_eq!(refusal(dir.path()), expected);
    }
    let dir = stored().await;
    with_tree(dir.path(), |database| &database.machine, |tree| drop(tree.remove([0]).expect("remove")));
    assert_eq!(refusal(dir.path()), "the state's mark is missing");
}

#[tokio::test]
async fn what_was_durable_and_is_gone_is_noticed() {
    let cases: [Loss; 3] = [
        (
            |database| {
                let from = 4_u64.to_be_bytes();
                for key in database.log.range(from..).keys() {
                    database.log.remove(key.expect("key")).expect("remove");
                }
            },
            "the log",
            4,
            5,
        ),
        (|database| drop(database.meta.remove("vote").expect("remove")), "the vote", 0, 1),
        (
            |database| {
                database.machine.clear().expect("clear");
                Machine::create(database).expect("create");
            },
            "the state",
            0,
            2,
        ),
    ];
    for (lose, item, found, expected) in cases {
        let dir = stored().await;
        lose(&Database::open(&dir.path().join("raft"), Arc::default()).expect("database"));
        let watermark = Watermark::path(dir.path());
        let told = format!(
            "{item} goes to {found}, but was durable to {expected}: the disk has lost data (to accept the loss, remove {})",
            watermark.display()
        );
        assert_eq!(refusal(dir.path()), told);
        assert_eq!(refusal(dir.path()), told, "every time");
        std::fs::remove_file(watermark).expect("remove");
        open(dir.path()).await.0.close().await.expect("close");
        open(dir.path()).await.0.close().await.expect("close");
    }
}

#[tokio::test]
async fn damage_under_a_running_store_stops_its_readers_and_its_writers() {
    let dir = stored().await;
    let (store, _) = open(dir.path()).await;
    store.shared.with_database(|database| {
        let key = [3_u64.to_be_bytes().as_slice(), &[0, 1]].concat();
        database.log.insert(key, vec![1, 2, 3, 4, 5, 6]).expect("insert");
        let key = [&[1], "small".as_bytes(), &[0], &1_u64.to_be_bytes(), &[0, 0]].concat();
        database.machine.insert(key, vec![1, 2, 3, 4, 5, 6]).expect("insert");
    });
    let error = store.read_log(1, 5, usize::MAX).await.expect_err("damaged");
    assert_eq!(error.to_string(), "log entry 3 is damaged");
    store.apply(change(2, &[("small", Some(1))])).await.expect("queued");
    let error = store.sync().await.expect_err("damaged");
    assert!(matches!(error, WriteError::Stopped(first) if matches!(*first, WriteError::Damaged { .. })));
    store.close().await.expect_err("stopped");
}

#[tokio::test]
async fn a_flipped_byte_in_any_file_beside_the_database_is_told_or_changes_nothing() {
    let dir = stored().await;
    let (store, expected) = open(dir.path()).await;
    let entries = || vec![("key".to_owned(), b"value".as_slice().into())];
    let path = store.write_checkpoint(1, b"header".to_vec(), entries).await.expect("write");
    store.save_vote(b"one more".to_vec()).await.expect("vote");
    let expected = Memory { vote: Some(b"one more".to_vec()), ..expected };
    store.close().await.expect("close");
    let mut told = BTreeMap::<_, usize>::new();
    for file in
        [dir.path().join("FORMAT"), Watermark::path(dir.path()), dir.path().join("LOCK"), path.clone()]
    {
        let sound = std::fs::read(&file).expect("read");
        let name = file.file_name().expect("a name").to_owned();
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            std::fs::write(&file, bytes).expect("write");
            // A checkpoint is read where it is used, not at the start.
            if file == path {
                assert!(matches!(checkpoint::read(&path), Err(CheckpointError::Damaged { .. })), "byte {at}");
            }
            match Store::open(dir.path(), IDENTITY) {
                Err(_) => *told.entry(name.clone()).or_default() += 1,
                Ok(opened) => {
                    opened.store.close().await.expect("close");
                    // Closing writes the watermark and the lock anew.
                    let (store, memory) = open(dir.path()).await;
                    assert_eq!(memory, expected, "byte {at} of {name:?}");
                    store.close().await.expect("close");
                }
            }
            std::fs::write(&file, &sound).expect("write");
        }
    }
    // One spoiled slot of the watermark leaves the other; the lock names its holder for people only.
    assert_eq!(told, BTreeMap::from([("FORMAT".into(), 29)]));
    std::fs::write(Watermark::path(dir.path()), [1; 700]).expect("write");
    assert!(refusal(dir.path()).ends_with("neither of its slots is whole"), "{}", refusal(dir.path()));
}

#[test]
fn what_is_damaged_names_the_way_back() {
    let damaged = OpenError::Damaged { item: Item::Vote, damage: Damage::Checksum };
    assert!(damaged.way_back().contains("`gantry cluster replace`"));
    let full = io::Error::from(io::ErrorKind::StorageFull);
    assert!(OpenError::Directory { dir: PathBuf::new(), source: full }.way_back().starts_with("make room"));
}

/// The files of the database and their content.
type Files = Vec<(PathBuf, Vec<u8>)>;

fn files(dir: &Path) -> Files {
    let entries =
        std::fs::read_dir(dir.join("raft")).expect("list").map(|entry| entry.expect("entry").path());
    entries
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), std::fs::read(path).expect("read")))
        .collect()
}

fn put_back(dir: &Path, sound: &Files) {
    for (path, _) in files(dir).iter().filter(|(path, _)| sound.iter().all(|(other, _)| other != path)) {
        std::fs::remove_file(path).expect("remove");
    }
    for (path, bytes) in sound {
        std::fs::write(path, bytes).expect("write");
    }
}

/// Flips single bits in the files of sled itself. sled drops what lies behind some of them and opens without a word, so
/// this is what the watermark, the digest of the state and the check for holes are for. `GANTRY_DAMAGE_FLIPS=10000` is
/// the long form.
#[tokio::test]
async fn no_flipped_bit_in_the_files_of_the_database_changes_what_is_served() {
    const FLIPS: usize = 60;
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut next = 0;
    for round in 0..3 {
        let (store, _) = open(dir.path()).await;
        for _ in 0..80 {
            store.append(next, vec![bytes(next, 300 + (next as usize % 7) * 900)]).await.expect("append");
            let key = format!("key {}", next % 40);
            store.apply(change(next, &[(&key, Some(200)), ("large", Some(9000))])).await.expect("apply");
            next += 1;
        }
        store.save_vote(vec![round]).await.expect("vote");
        store.purge(next - 60, b"mark".to_vec()).await.expect("purge");
        store.close().await.expect("close");
    }
    let sound = files(dir.path());
    let (store, expected) = open(dir.path()).await;
    store.close().await.expect("close");

    let flips = std::env::var("GANTRY_DAMAGE_FLIPS").map_or(FLIPS, |flips| flips.parse().expect("a number"));
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut told, mut same) = (0, 0);
    while told + same < flips {
        put_back(dir.path(), &sound);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (path, bytes) = &sound[(random >> 60) as usize % sound.len()];
        let at = (random >> 8) as usize % bytes.len();
        let mut bytes = bytes.clone();
        if path.ends_with("db") && bytes[at] == 0 {
            // Room that was never written, most likely.
            continue;
        }
        bytes[at] ^= 1 << (random & 7);
        std::fs::write(path, bytes).expect("write");
        let Ok(opened) = Store::open(dir.path(), IDENTITY) else {
            told += 1;
            continue;
        };
        let log = opened.store.read_log(0, u64::MAX, usize::MAX).await.expect("it was checked at open");
        let state = opened.entries.into_iter().collect();
        let Opened { vote, purged, applied, .. } = opened;
        assert_eq!(
            Memory { vote, purged, log, applied, state },
            expected,
            "bit {random} of {}",
            path.display()
        );
        opened.store.close().await.expect("close");
        same += 1;
    }
    println!("{told} told, {same} without effect");
    assert!(told > 0, "some must have hit");
}
