//! Certificates of the control plane that were taken back: refused from when a member says so, also over a restart.
//!
//! Always holds: nothing that was taken back counts again before it has ended by itself; so a member that is behind, or a
//! cluster that was put back, undoes nothing, and neither does a member that tells of very many: it has a room of its own
//! ([`TOLD_BY_ONE_MAX`]), also after a restart, and what finds no place there is not taken, nor is anything beyond
//! [`REVOCATIONS_MAX`]. All but members that were removed for ever, of whom there are at most [`FOR_EVER_MAX`], ends within
//! [`HELD_MS_MAX`], so that there is room again whatever anybody said. What is kept is no secret; it is the owner's alone because whoever
//! could write it could have the node refuse every member.
//!
//! A member that keeps its own revocation from its nodes is found out only when they go to another one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gantry_model::enrolment::{Revocation, Revoked};
use gantry_node::owner_only::{self, ReadError};
use gantry_node::tls::{Revocations, Trust};
use gantry_wire::resource_v1 as wire;
use gantry_wire::sync_v1::Distrusted;
use prost::Message;

use super::last_known_good::now_ms;

/// Its name in the data directory.
const FILE_NAME: &str = "distrusted";
/// Most that one control plane may add, until they end: a cluster remembers 1,024, and 256 members that were removed.
const TOLD_BY_ONE_MAX: usize = 2_048;
/// Most that are remembered: those of a few control planes that each tell of as many others as they may.
const REVOCATIONS_MAX: usize = 4 * TOLD_BY_ONE_MAX;
/// Longest file in bytes: that many, of the longest names.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Until when a member that was removed is refused: it has the authority's key, and so certificates of any length.
const FOR_EVER: u64 = u64::MAX;
/// Most such that one control plane may add: a cluster remembers 256, and they never end, so there is room for its next ones.
const FOR_EVER_BY_ONE_MAX: usize = 512;
/// Most such in all: a quarter, so that the rest of the room always comes back.
const FOR_EVER_MAX: usize = REVOCATIONS_MAX / 4;
/// For how long all else is refused at most, in milliseconds: a certificate that the authority gives counts for 24 hours, and the
/// clocks of a cluster are minutes apart.
const HELD_MS_MAX: u64 = 25 * 60 * 60 * 1_000;
/// Who told what a build kept that did not say it.
const KEPT: &str = "";

/// The file: [`Distrusted`], with who told of what.
#[derive(Clone, PartialEq, prost::Message)]
struct Kept {
    #[prost(message, repeated, tag = "1")]
    revocations: Vec<wire::Revocation>,
    /// One after the other, each for the next so many; what is left is nobody's.
    #[prost(message, repeated, tag = "2")]
    tellers: Vec<Teller>,
}

/// Who told of so many.
#[derive(Clone, PartialEq, prost::Message)]
struct Teller {
    #[prost(string, tag = "1")]
    by: String,
    #[prost(uint64, tag = "2")]
    count: u64,
}

/// What a node knows of it.
#[derive(Debug, Clone)]
pub(crate) struct Distrust {
    trust: Arc<Trust>,
    file: PathBuf,
    /// Who added what, by address.
    rooms: Arc<Mutex<BTreeMap<String, Revocations>>>,
    /// Whether the file has what is in force.
    is_kept: Arc<AtomicBool>,
}

impl Distrust {
    /// Has what an earlier process of the data directory knew in force. Blocks.
    pub(crate) fn begin(trust: Arc<Trust>, data_dir: &Path) -> Distrust {
        let (file, is_kept) = (data_dir.join(FILE_NAME), Arc::new(AtomicBool::new(true)));
        let distrust = Distrust { trust, file, rooms: Arc::default(), is_kept };
        match owner_only::read(&distrust.file, FILE_BYTES_MAX) {
            Ok(found) => match Kept::decode(found.contents.expose().as_slice()) {
                Ok(kept) => distrust.put_back(kept),
                Err(error) => distrust.warn(&error),
            },
            Err(ReadError::Missing(_)) => {}
            Err(error) => distrust.warn(&error),
        }
        distrust
    }

    fn put_back(&self, kept: Kept) {
        let mut revocations = kept.revocations.into_iter();
        for Teller { by, count } in kept.tellers {
            let told = revocations.by_ref().take(usize::try_from(count).unwrap_or(usize::MAX)).collect();
            drop(self.put_in_force(&by, told));
        }
        drop(self.put_in_force(KEPT, revocations.collect()));
    }

    /// Has what a control plane at an address says in force, and keeps it.
    pub(super) async fn take(&self, by: &str, told: Distrusted) {
        let Some(all) = self.put_in_force(by, told.revocations) else { return };
        tracing::warn!(count = all.revocations.len(), "certificates of the control plane were taken back");
        let (file, contents) = (self.file.clone(), all.encode_to_vec());
        let kept = tokio::task::spawn_blocking(move || owner_only::replace(&file, &contents)).await;
        let kept = kept.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        self.is_kept.store(kept.is_ok(), Ordering::Relaxed);
        if let Err(error) = kept {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "certificates that were taken back are not known after a restart");
        }
    }

    /// Returns all that is in force then; `None` when that is what was before, and kept.
    fn put_in_force(&self, by: &str, told: Vec<wire::Revocation>) -> Option<Kept> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, before) = (now_ms(), self.trust.revocations().borrow().clone());
        let told = told.iter().filter_map(|revocation| read(revocation, now));
        rooms.values_mut().for_each(|room| room.forget(now));
        rooms.retain(|_, room| room.count() > 0);
        let mut after = before.as_ref().clone();
        after.forget(now);
        let room = rooms.entry(by.to_owned()).or_default();
        let [room_max, for_ever_max] = match by {
            KEPT => [REVOCATIONS_MAX, FOR_EVER_MAX],
            _ => [TOLD_BY_ONE_MAX, FOR_EVER_BY_ONE_MAX],
        };
        let [mut by_one, mut in_all] = [&*room, &after].map(for_ever);
        let mut refused: usize = 0;
        for revocation in told.filter(|revocation| revocation.until_ms > now) {
            if after.have(&revocation) {
                continue;
            }
            let is_for_ever = revocation.until_ms == FOR_EVER;
            let no_more = is_for_ever && (by_one >= for_ever_max || in_all >= FOR_EVER_MAX);
            if no_more || room.count() >= room_max || after.count() >= REVOCATIONS_MAX {
                refused += 1;
                continue;
            }
            (by_one, in_all) = (by_one + usize::from(is_for_ever), in_all + usize::from(is_for_ever));
            room.extend([revocation.clone()]);
            after.extend([revocation]);
        }
        if refused > 0 {
            tracing::error!(
                by,
                refused,
                "more certificates were taken back than are remembered; look at this member"
            );
        }
        if after == *before && self.is_kept.load(Ordering::Relaxed) {
            return None;
        }
        let all = Kept::of(&after, &rooms);
        self.trust.replace_revocations(after);
        Some(all)
    }

    fn warn(&self, error: &(dyn std::error::Error + 'static)) {
        let file = self.file.display();
        tracing::error!(error, %file, "certificates that were taken back are not known; a control plane tells of them");
    }
}

/// What counts no more than it may; `None` and a line in the log where it cannot be read.
fn read(revocation: &wire::Revocation, now_ms: u64) -> Option<Revocation> {
    match Revocation::try_from(revocation) {
        Ok(removed @ Revocation { subject: Revoked::Name(_), until_ms: FOR_EVER }) => Some(removed),
        Ok(Revocation { subject, until_ms }) => {
            Some(Revocation { subject, until_ms: until_ms.min(now_ms.saturating_add(HELD_MS_MAX)) })
        }
        Err(error) => {
            tracing::error!(%error, "a revocation of a certificate cannot be read");
            None
        }
    }
}

/// How many names are among them that never count again.
fn for_ever(revocations: &Revocations) -> usize {
    revocations.names.values().filter(|until_ms| **until_ms == FOR_EVER).count()
}

impl Kept {
    /// All of these, with whose room each is in.
    fn of(all: &Revocations, rooms: &BTreeMap<String, Revocations>) -> Kept {
        let mut of: BTreeMap<&str, Vec<wire::Revocation>> = BTreeMap::new();
        for revocation in all.iter() {
            let by =
                rooms.iter().find(|(_, room)| room.have(&revocation)).map_or(KEPT, |(by, _)| by.as_str());
            of.entry(by).or_default().push((&revocation).into());
        }
        let teller = |(by, told): (&&str, &Vec<_>)| Teller { by: (*by).to_owned(), count: told.len() as u64 };
        let tellers = of.iter().map(teller).collect();
        Kept { revocations: of.into_values().flatten().collect(), tellers }
    }
}

#[cfg(test)]
mod tests {
    use gantry_node::tls::Fingerprint;

    use super::*;

    /// A control plane that tells what is so.
    const GOOD: &str = "cp-1:1";

    type Tested = Result<(), Box<dyn std::error::Error>>;

    fn named(member: u64, until_ms: u64) -> wire::Revocation {
        let name = format!("gantry://here/control-plane/{member}");
        wire::Revocation { subject: Some(wire::revocation::Subject::Name(name)), until_ms }
    }

    fn serial(byte: u8, until_ms: u64) -> wire::Revocation {
        wire::Revocation { subject: Some(wire::revocation::Subject::Serial(vec![byte])), until_ms }
    }

    fn begin(directory: &Path) -> Distrust {
        Distrust::begin(Trust::pinned(Fingerprint([0; 32])), directory)
    }

    /// What is in force: of names the members with their times, of serials how many.
    fn known(distrust: &Distrust) -> (Vec<(String, u64)>, usize) {
        let revocations = distrust.trust.revocations().borrow().clone();
        let mut names: Vec<_> =
            revocations.names.iter().map(|(name, until_ms)| (name.to_string(), *until_ms)).collect();
        names.sort();
        (names, revocations.serials.len())
    }

    fn member(number: u64, until_ms: u64) -> (String, u64) {
        (format!("gantry://here/control-plane/{number}"), until_ms)
    }

    #[tokio::test]
    async fn what_was_taken_back_is_known_after_a_restart_until_it_has_ended_by_itself() -> Tested {
        let directory = tempfile::tempdir()?;
        let distrust = begin(directory.path());
        assert_eq!(known(&distrust), (vec![], 0));
        let later = now_ms() + 60_000;
        let told = vec![named(1, 5), named(2, later), named(3, later + 1), serial(1, later), serial(2, 5)];
        distrust.take(GOOD, Distrusted { revocations: told }).await;
        let expected = (vec![member(2, later), member(3, later + 1)], 1);
        assert_eq!((known(&distrust), known(&begin(directory.path()))), (expected.clone(), expected));
        Ok(())
    }

    #[tokio::test]
    async fn a_member_that_knows_less_undoes_nothing() -> Tested {
        let directory = tempfile::tempdir()?;
        let distrust = begin(directory.path());
        let (sooner, later) = (now_ms() + 60_000, now_ms() + 120_000);
        distrust.take(GOOD, Distrusted { revocations: vec![named(2, later)] }).await;
        distrust.take(GOOD, Distrusted { revocations: vec![named(2, sooner), named(3, sooner)] }).await;
        distrust.take(GOOD, Distrusted::default()).await;
        let expected = (vec![member(2, later), member(3, sooner)], 0);
        assert_eq!((known(&distrust), known(&begin(directory.path()))), (expected.clone(), expected));
        Ok(())
    }

    #[tokio::test]
    async fn whoever_tells_of_very_many_pushes_nothing_out_and_leaves_room_for_others() -> Tested {
        let directory = tempfile::tempdir()?;
        let distrust = begin(directory.path());
        let later = now_ms() + 60_000;
        let bad = later + 1;
        let many = |from: u64, count: usize| {
            let members = (from..).take(count).map(|number| named(number, bad));
            Distrusted { revocations: members.collect() }
        };
        let first = Distrusted { revocations: vec![named(1, later)] };
        distrust.take(GOOD, first).await;
        let from = |teller: u64| 100_000 * teller;
        for teller in 1..=4 {
            for round in 0..2 {
                let told = many(from(teller) + round * 1_000, TOLD_BY_ONE_MAX - 1);
                distrust.take(&format!("bad-{teller}:1"), told).await;
            }
            let names = known(&distrust).0;
            let told = names.iter().filter(|(_, until_ms)| *until_ms == bad).count();
            let good = names.len() - told;
            assert_eq!(told, (teller as usize * TOLD_BY_ONE_MAX).min(REVOCATIONS_MAX - good));
            assert!(names.contains(&member(1, later)) && names.contains(&member(from(teller), bad)));
            if teller < 4 {
                // Another is heard still, of what is new and of what counts for longer.
                distrust.take(GOOD, Distrusted { revocations: vec![named(1 + teller, later)] }).await;
                assert!(known(&distrust).0.contains(&member(1 + teller, later)));
            }
        }
        assert_eq!(known(&distrust).0.len(), REVOCATIONS_MAX);
        distrust.take(GOOD, Distrusted { revocations: vec![named(9, later)] }).await;
        let names = known(&distrust).0;
        assert!(!names.contains(&member(9, later)), "there is no room for anybody");
        assert_eq!(known(&begin(directory.path())).0, names);
        Ok(())
    }

    #[tokio::test]
    async fn a_damaged_file_is_replaced_by_what_a_member_says() -> Tested {
        let directory = tempfile::tempdir()?;
        owner_only::replace(&directory.path().join(FILE_NAME), b"\xff\xff")?;
        let distrust = begin(directory.path());
        assert_eq!(known(&distrust), (vec![], 0));
        let later = now_ms() + 60_000;
        distrust.take(GOOD, Distrusted { revocations: vec![named(2, later)] }).await;
        assert_eq!(known(&begin(directory.path())).0, [member(2, later)]);
        Ok(())
    }

    #[tokio::test]
    async fn nothing_is_taken_back_for_longer_than_a_certificate_lives() -> Tested {
        let directory = tempfile::tempdir()?;
        let distrust = begin(directory.path());
        let told = vec![named(1, u64::MAX - 1), named(2, now_ms() + HELD_MS_MAX / 2), serial(1, u64::MAX)];
        distrust.take(GOOD, Distrusted { revocations: told }).await;
        let ends_by = now_ms() + HELD_MS_MAX;
        let revocations = distrust.trust.revocations().borrow().clone();
        let times: Vec<u64> = revocations.iter().map(|revocation| revocation.until_ms).collect();
        assert!(times.iter().all(|until_ms| *until_ms <= ends_by), "{times:?} end after {ends_by}");
        // So there is room again.
        let mut later = revocations.as_ref().clone();
        later.forget(ends_by);
        assert_eq!((times.len(), later.count()), (3, 0));
        Ok(())
    }

    #[tokio::test]
    async fn removed_members_are_refused_for_ever_and_telling_of_very_many_takes_no_other_room() -> Tested {
        let directory = tempfile::tempdir()?;
        let distrust = begin(directory.path());
        distrust.take(GOOD, Distrusted { revocations: vec![named(1, FOR_EVER)] }).await;
        for teller in 1..=6 {
            let members = (10_000 * teller..).take(TOLD_BY_ONE_MAX).map(|number| named(number, FOR_EVER));
            distrust.take(&format!("bad-{teller}:1"), Distrusted { revocations: members.collect() }).await;
            let taken = 1 + FOR_EVER_BY_ONE_MAX * teller as usize;
            assert_eq!(known(&distrust).0.len(), taken.min(FOR_EVER_MAX), "after {teller} tellers");
        }
        let later = now_ms() + 60_000;
        distrust.take(GOOD, Distrusted { revocations: vec![named(2, later)] }).await;
        for distrust in [distrust, begin(directory.path())] {
            let names = known(&distrust).0;
            assert_eq!(names.len(), FOR_EVER_MAX + 1);
            assert!(names.contains(&member(1, FOR_EVER)) && names.contains(&member(2, later)));
        }
        Ok(())
    }

    #[tokio::test]
    async fn whoever_tells_of_very_many_has_no_new_room_after_a_restart() -> Tested {
        let directory = tempfile::tempdir()?;
        let later = now_ms() + 600_000;
        for start in 0..5 {
            let members = (100_000 * (start + 1)..).take(TOLD_BY_ONE_MAX).map(|number| named(number, later));
            let distrust = begin(directory.path());
            distrust.take("bad:1", Distrusted { revocations: members.collect() }).await;
            assert_eq!(known(&distrust).0.len(), TOLD_BY_ONE_MAX, "after {start} restarts");
        }
        let distrust = begin(directory.path());
        distrust.take(GOOD, Distrusted { revocations: vec![named(1, later)] }).await;
        assert!(known(&distrust).0.contains(&member(1, later)));
        Ok(())
    }

    #[tokio::test]
    async fn a_file_that_does_not_say_who_told_is_read_and_is_nobodys_room() -> Tested {
        let directory = tempfile::tempdir()?;
        let later = now_ms() + 60_000;
        let kept = Distrusted { revocations: vec![named(2, later), serial(7, later)] };
        owner_only::replace(&directory.path().join(FILE_NAME), &kept.encode_to_vec())?;
        let distrust = begin(directory.path());
        assert_eq!(known(&distrust), (vec![member(2, later)], 1));
        // And what is written is read by who knows revocations only.
        distrust.take(GOOD, Distrusted { revocations: vec![named(3, later)] }).await;
        let written = std::fs::read(directory.path().join(FILE_NAME))?;
        assert_eq!(Distrusted::decode(written.as_slice())?.revocations.len(), 3);
        assert_eq!(known(&begin(directory.path())), known(&distrust));
        Ok(())
    }
}
