//! Certificates of the control plane that were taken back: refused from when a member says so, also over a restart.
//!
//! Always holds: nothing that was taken back counts again before it has ended by itself; so a member that is behind, or a
//! cluster that was put back, undoes nothing, and neither does a member that tells of very many: it has a room of its own
//! ([`TOLD_BY_ONE_MAX`]), and what finds no place there is not taken, nor is anything beyond [`REVOCATIONS_MAX`]. What is kept
//! is no secret; it is the owner's alone because whoever could write it could have the node refuse every member.
//!
//! A member that keeps its own revocation from its nodes is found out only when they go to another one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gantry_model::enrolment::Revocation;
use gantry_node::owner_only::{self, ReadError};
use gantry_node::tls::{Revocations, Trust};
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
/// Who told what an earlier process kept is not known any more.
const KEPT: &str = "";

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
            Ok(found) => match Distrusted::decode(found.contents.expose().as_slice()) {
                Ok(kept) => drop(distrust.put_in_force(KEPT, &kept)),
                Err(error) => distrust.warn(&error),
            },
            Err(ReadError::Missing(_)) => {}
            Err(error) => distrust.warn(&error),
        }
        distrust
    }

    /// Has what a control plane at an address says in force, and keeps it.
    pub(super) async fn take(&self, by: &str, told: Distrusted) {
        let Some(all) = self.put_in_force(by, &told) else { return };
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
    fn put_in_force(&self, by: &str, told: &Distrusted) -> Option<Distrusted> {
        let told = told.revocations.iter().filter_map(|revocation| match Revocation::try_from(revocation) {
            Ok(revocation) => Some(revocation),
            Err(error) => {
                tracing::error!(%error, "a revocation of a certificate cannot be read");
                None
            }
        });
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, before) = (now_ms(), self.trust.revocations().borrow().clone());
        rooms.values_mut().for_each(|room| room.forget(now));
        rooms.retain(|_, room| room.count() > 0);
        let mut after = before.as_ref().clone();
        after.forget(now);
        let room = rooms.entry(by.to_owned()).or_default();
        let room_max = if by == KEPT { REVOCATIONS_MAX } else { TOLD_BY_ONE_MAX };
        let mut refused: usize = 0;
        for revocation in told.filter(|revocation| revocation.until_ms > now) {
            if after.have(&revocation) {
                continue;
            }
            if room.count() >= room_max || after.count() >= REVOCATIONS_MAX {
                refused += 1;
                continue;
            }
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
        let all = Distrusted { revocations: after.iter().map(|revocation| (&revocation).into()).collect() };
        self.trust.replace_revocations(after);
        Some(all)
    }

    fn warn(&self, error: &(dyn std::error::Error + 'static)) {
        let file = self.file.display();
        tracing::error!(error, %file, "certificates that were taken back are not known; a control plane tells of them");
    }
}

#[cfg(test)]
mod tests {
    use gantry_node::tls::Fingerprint;
    use gantry_wire::resource_v1 as wire;

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
        let told = vec![named(1, 5), named(2, later), named(3, u64::MAX), serial(1, later), serial(2, 5)];
        distrust.take(GOOD, Distrusted { revocations: told }).await;
        let expected = (vec![member(2, later), member(3, u64::MAX)], 1);
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
        let many = |from: u64, count: usize| {
            let members = (from..).take(count).map(|number| named(number, u64::MAX));
            Distrusted { revocations: members.collect() }
        };
        let later = now_ms() + 60_000;
        let first = Distrusted { revocations: vec![named(1, later)] };
        distrust.take(GOOD, first).await;
        let from = |teller: u64| 100_000 * teller;
        for teller in 1..=4 {
            for round in 0..2 {
                let told = many(from(teller) + round * 1_000, TOLD_BY_ONE_MAX - 1);
                distrust.take(&format!("bad-{teller}:1"), told).await;
            }
            let names = known(&distrust).0;
            let told = names.iter().filter(|(_, until_ms)| *until_ms == u64::MAX).count();
            let good = names.len() - told;
            assert_eq!(told, (teller as usize * TOLD_BY_ONE_MAX).min(REVOCATIONS_MAX - good));
            assert!(names.contains(&member(1, later)) && names.contains(&member(from(teller), u64::MAX)));
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
        distrust.take(GOOD, Distrusted { revocations: vec![named(2, u64::MAX)] }).await;
        assert_eq!(known(&begin(directory.path())).0, [member(2, u64::MAX)]);
        Ok(())
    }
}
