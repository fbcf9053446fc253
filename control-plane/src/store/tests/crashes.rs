//! Crashes between writes: whatever was under way is there as a whole, or not at all, and the next open clears up.

use proptest::prelude::*;

use super::*;

/// What is under way when the crash comes.
type Act = fn(Store) -> std::pin::Pin<Box<dyn Future<Output = Result<(), WriteError>> + Send>>;

/// Opens a store, does `before`, then does `act` with a crash after each possible number of writes that `stride` divides.
/// Every time, the reopened store must remember what one of `outcomes` says, and hold no more keys than a store that
/// never crashed.
async fn crash_everywhere(before: Act, act: Act, stride: usize, outcomes: &[Memory]) {
    let mut seen = Vec::new();
    for writes in (0..).step_by(stride) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (store, _) = open(dir.path()).await;
        before(store.clone()).await.expect("before");
        store.shared.with_database(|database| database.faults.fail_after(writes));
        let done = act(store.clone()).await.is_ok();
        assert_eq!(store.close().await.is_ok(), done, "a failure is told at close");
        let (store, memory) = open(dir.path()).await;
        let outcome = outcomes.iter().position(|outcome| *outcome == memory);
        seen.push(
            outcome.unwrap_or_else(|| panic!("neither before nor after, crash after {writes}: {memory:?}")),
        );
        let keys = store.shared.with_database(|database| database.machine.len());
        let parts: usize =
            memory.state.values().map(|value| record::parts(b"", &[&[1], &value[..]].concat()).len()).sum();
        assert_eq!(keys, Some(parts + 1), "nothing is left over, crash after {writes}");
        store.close().await.expect("close");
        if done {
            break;
        }
    }
    assert!(seen.is_sorted(), "once it is there it stays there: {seen:?}");
    assert_eq!((seen.first(), seen.last()), (Some(&0), Some(&(outcomes.len() - 1))));
}

fn memory(applied: u64, entries: &[(&str, u64, usize)]) -> Memory {
    Memory { applied: applied.to_string().into_bytes(), state: state(entries), ..Memory::default() }
}

fn three_entries(store: Store) -> std::pin::Pin<Box<dyn Future<Output = Result<(), WriteError>> + Send>> {
    Box::pin(async move {
        let entries = [("a", Some(300_000)), ("b", Some(10)), ("c", Some(90_000))];
        store.apply(change(5, &entries)).await?;
        store.sync().await
    })
}

#[tokio::test]
async fn a_small_change_is_there_as_a_whole_or_not_at_all() {
    let act: Act = |store| {
        Box::pin(async move {
            store.apply(change(6, &[("b", Some(5000)), ("c", None), ("d", Some(1))])).await?;
            store.sync().await
        })
    };
    let before = memory(5, &[("a", 5, 300_000), ("b", 5, 10), ("c", 5, 90_000)]);
    let after = memory(6, &[("a", 5, 300_000), ("b", 6, 5000), ("d", 6, 1)]);
    crash_everywhere(three_entries, act, 1, &[before, after]).await;
}

#[tokio::test]
async fn a_change_of_long_values_is_there_as_a_whole_or_not_at_all() {
    let act: Act = |store| {
        Box::pin(async move {
            let entries =
                [("a", None), ("b", Some(200_000)), ("c", Some(150_000)), ("e", None), ("f", Some(3))];
            store.apply(change(6, &entries)).await?;
            store.sync().await
        })
    };
    let before = memory(5, &[("a", 5, 300_000), ("b", 5, 10), ("c", 5, 90_000)]);
    let after = memory(6, &[("b", 6, 200_000), ("c", 6, 150_000), ("f", 6, 3)]);
    crash_everywhere(three_entries, act, 17, &[before, after]).await;
}

#[tokio::test]
async fn a_change_of_many_small_keys_is_there_as_a_whole_or_not_at_all() {
    fn keys() -> Vec<String> {
        (0..600).map(|at| format!("key {at}")).collect()
    }
    fn set(index: u64, value: Option<usize>) -> ChangeSet {
        let keys = keys();
        let changes: Vec<_> = keys.iter().map(|key| (key.as_str(), value)).collect();
        change(index, &changes)
    }
    let first: Act = |store| Box::pin(async move { store.replace(set(1, Some(100))).await });
    let second: Act = |store| {
        Box::pin(async move {
            store.apply(set(2, None)).await?;
            store.sync().await
        })
    };
    let keys = keys();
    let entries: Vec<_> = keys.iter().map(|key| (key.as_str(), 1, 100)).collect();
    crash_everywhere(first, second, 149, &[memory(1, &entries), memory(2, &[])]).await;
}

#[tokio::test]
async fn a_replaced_state_is_there_as_a_whole_or_not_at_all() {
    let act: Act = |store| {
        Box::pin(async move { store.replace(change(9, &[("c", Some(100_000)), ("z", Some(20))])).await })
    };
    let before = memory(5, &[("a", 5, 300_000), ("b", 5, 10), ("c", 5, 90_000)]);
    let after = memory(9, &[("c", 9, 100_000), ("z", 9, 20)]);
    crash_everywhere(three_entries, act, 11, &[before, after]).await;
}

#[tokio::test]
async fn appended_entries_are_there_up_to_some_entry_and_never_in_part() {
    fn entry(seed: u64) -> Vec<u8> {
        bytes(seed, 150_000)
    }
    let before: Act = |store| Box::pin(async move { store.append(0, vec![bytes(0, 10)]).await });
    let act: Act = |store| Box::pin(async move { store.append(1, vec![entry(1), entry(2)]).await });
    let log = [(0, bytes(0, 10)), (1, entry(1)), (2, entry(2))];
    let outcome = |entries: usize| Memory { log: log[..entries].to_vec(), ..Memory::default() };
    crash_everywhere(before, act, 5, &[outcome(1), outcome(2), outcome(3)]).await;
}

#[tokio::test]
async fn a_truncation_that_was_cut_short_leaves_whole_entries() {
    let before: Act = |store| {
        Box::pin(async move { store.append(0, (0..600).map(|seed| bytes(seed, 10)).collect()).await })
    };
    let act: Act = |store| Box::pin(async move { store.truncate(10).await });
    let log: Vec<_> = (0..600).map(|seed| (seed, bytes(seed, 10))).collect();
    let left = (10..=600).rev();
    let outcomes: Vec<_> =
        left.map(|left| Memory { log: log[..left].to_vec(), ..Memory::default() }).collect();
    crash_everywhere(before, act, 37, &outcomes).await;
}

#[tokio::test]
async fn a_purge_that_was_cut_short_is_finished_at_the_next_open() {
    let before: Act = |store| {
        Box::pin(async move { store.append(0, (0..600).map(|seed| bytes(seed, 10)).collect()).await })
    };
    let act: Act = |store| Box::pin(async move { store.purge(589, b"589".to_vec()).await });
    let log: Vec<_> = (0..600).map(|seed| (seed, bytes(seed, 10))).collect();
    let untouched = Memory { log: log.clone(), ..Memory::default() };
    let purged = Memory { log: log[590..].to_vec(), purged: Some(b"589".to_vec()), ..Memory::default() };
    crash_everywhere(before, act, 37, &[untouched, purged]).await;
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<usize>),
    Truncate(prop::sample::Index),
    Purge(prop::sample::Index),
    Vote(u8),
    Apply(Vec<(u8, Option<usize>)>),
    Replace(Vec<(u8, usize)>),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![0_usize..100, 4000_usize..4200, 60_000_usize..150_000];
    let changes = prop::collection::vec((0_u8..12, prop::option::of(length.clone())), 0..12);
    prop_oneof![
        3 => prop::collection::vec(length.clone(), 1..4).prop_map(Step::Append),
        1 => any::<prop::sample::Index>().prop_map(Step::Truncate),
        1 => any::<prop::sample::Index>().prop_map(Step::Purge),
        1 => any::<u8>().prop_map(Step::Vote),
        4 => changes.prop_map(Step::Apply),
        1 => prop::collection::vec((0_u8..12, length), 0..6).prop_map(Step::Replace),
        1 => Just(Step::Reopen),
    ]
}

/// The store as it should be.
struct Model {
    memory: Memory,
    next: u64,
    first: u64,
    applied: u64,
}

impl Model {
    async fn take(&mut self, store: &Store, step: &Step) -> Result<(), WriteError> {
        match step {
            Step::Append(lengths) => {
                let entries: Vec<_> = (self.next..)
                    .zip(lengths)
                    .map(|(index, length)| (index, bytes(index, *length)))
                    .collect();
                store.append(self.next, entries.iter().map(|(_, entry)| entry.clone()).collect()).await?;
                self.next += entries.len() as u64;
                self.memory.log.extend(entries);
            }
            Step::Truncate(_) | Step::Purge(_) if self.first == self.next => {}
            Step::Truncate(at) => {
                let from = self.first + at.index((self.next - self.first) as usize) as u64;
                store.truncate(from).await?;
                self.memory.log.retain(|(index, _)| *index < from);
                self.next = from;
            }
            Step::Purge(at) => {
                let through = self.first + at.index((self.next - self.first) as usize) as u64;
                store.purge(through, through.to_string().into_bytes()).await?;
                self.memory.log.retain(|(index, _)| *index > through);
                self.memory.purged = Some(through.to_string().into_bytes());
                self.first = through + 1;
            }
            Step::Vote(vote) => {
                store.save_vote(vec![*vote]).await?;
                self.memory.vote = Some(vec![*vote]);
            }
            Step::Apply(changes) => {
                let set = self.change(changes.iter().copied());
                store.apply(set.clone()).await?;
                for (key, value) in set.changes {
                    match value {
                        Some(value) => self.memory.state.insert(key, value.to_vec()),
                        None => self.memory.state.remove(&key),
                    };
                }
            }
            Step::Replace(changes) => {
                let set = self.change(changes.iter().map(|(key, length)| (*key, Some(*length))));
                store.replace(set.clone()).await?;
                let state = set.changes.into_iter().filter_map(|(key, value)| Some((key, value?.to_vec())));
                self.memory.state = state.collect();
            }
            Step::Reopen => {}
        }
        Ok(())
    }

    fn change(&mut self, changes: impl Iterator<Item = (u8, Option<usize>)>) -> ChangeSet {
        self.applied += 1;
        let keys: Vec<_> = changes.map(|(key, value)| ("k".repeat(usize::from(key) + 1), value)).collect();
        let set =
            change(self.applied, &keys.iter().map(|(key, value)| (key.as_str(), *value)).collect::<Vec<_>>());
        self.memory.applied = set.record.clone();
        set
    }
}

/// Few, because each opens the store again and again; as many as `PROPTEST_CASES` says where it says.
fn cases() -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").map(|_| ProptestConfig::default());
    asked.unwrap_or_else(|| ProptestConfig::with_cases(24))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_history_reads_back_as_the_model_has_it(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(async {
            let dir = tempfile::tempdir().expect("temporary directory");
            let (mut store, memory) = open(dir.path()).await;
            let mut model = Model { memory, next: 0, first: 0, applied: 0 };
            for step in steps.iter().chain([&Step::Reopen]) {
                model.take(&store, step).await.expect("step");
                if matches!(step, Step::Reopen) {
                    store.close().await.expect("close");
                    let (reopened, memory) = open(dir.path()).await;
                    store = reopened;
                    assert_eq!(memory, model.memory);
                }
            }
            store.close().await.expect("close");
        });
    }
}
