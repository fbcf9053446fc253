//! The journal: the latest audit records of all nodes, also of those that follow another member, for `audit tail` and
//! `policy explain`.
//!
//! Always holds: at most [`RECORDS_MAX`] records and [`BYTES_MAX`] bytes, the newest; a reader that falls behind is
//! told how many records it lost, never held up for, and never holds up a node.
//!
//! It is a window in memory and is empty after a start. The durable record of a call is the file of the node that
//! served it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gantry_model::{PolicyName, TenantName};
use serde::Deserialize;
use tokio::sync::watch;

/// Most records that are kept: some minutes of a busy fleet, enough to explain what a person has just seen.
pub(crate) const RECORDS_MAX: usize = 10_000;
/// Most bytes of them, so that records with large arguments do not take the memory of everything else.
pub(crate) const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest record. A node cuts arguments far below this; what is longer is no record of ours.
pub(crate) const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// What a record takes besides its JSON, roughly.
const RECORD_OVERHEAD_BYTES: usize = 512;

/// The journal.
#[derive(Debug)]
pub(crate) struct Journal {
    ring: Mutex<Ring>,
    /// The sequence number that the next record gets.
    next: watch::Sender<u64>,
}

/// One audit record: as the node wrote it, and the fields by which it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// The whole record as JSON.
    pub(crate) json: Bytes,
    /// Names the decision.
    pub(crate) decision_id: String,
    /// The tenant whose call it was, when it got so far; as the node wrote it.
    pub(crate) tenant: Option<String>,
    /// Whether policy said no.
    pub(crate) denied: bool,
    /// The policies that decided, or could not be evaluated.
    pub(crate) policies: Vec<PolicyName>,
    /// Whether it came from another member of the control plane, which its node follows.
    pub(crate) is_told: bool,
}

/// A node sent what is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// Longer than the limit.
    #[error("a record of {0} bytes is longer than {RECORD_BYTES_MAX}")]
    TooLong(usize),
    /// Not a JSON object with the fields of a record.
    #[error("a record is not JSON of the form that this build knows")]
    Form,
    /// Of a tenant that the node does not hold: it lost it a moment ago, or makes it up.
    #[error("a record is of a tenant that the node does not hold")]
    Tenant,
}

/// Whose records are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All, also those that are no tenant's.
    Everybody,
    /// Those of these tenants.
    Tenants(BTreeSet<TenantName>),
}

/// A reader of the journal.
#[derive(Debug)]
pub(crate) struct Tail {
    journal: Arc<Journal>,
    news: watch::Receiver<u64>,
    whose: Selection,
    /// The sequence number of the next record to look at.
    position: u64,
    lost: u64,
}

/// A record for a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tailed {
    /// The record.
    pub(crate) record: Arc<Record>,
    /// How many records, of any tenant, were forgotten before this reader came to them. A reader of some tenants is
    /// told 1 for any number, which is others' affair.
    pub(crate) lost: u64,
}

#[derive(Debug, Default)]
struct Ring {
    records: VecDeque<Arc<Record>>,
    /// The sequence number of the first of them.
    first: u64,
    bytes: usize,
}

#[derive(Deserialize)]
struct Fields {
    decision_id: String,
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    verdict: Option<String>,
    #[serde(default)]
    policies: Option<Vec<DecidingPolicy>>,
    #[serde(default)]
    failures: Vec<FailedPolicy>,
}

#[derive(Deserialize)]
struct DecidingPolicy {
    policy: String,
}

#[derive(Deserialize)]
struct FailedPolicy {
    /// Absent where the request itself could not be put to the policies.
    policy: Option<String>,
}

impl Journal {
    /// An empty journal.
    pub(crate) fn new() -> Arc<Journal> {
        Arc::new(Journal { ring: Mutex::default(), next: watch::Sender::new(0) })
    }

    /// Takes in a record; forgets the oldest ones where there is no more room.
    pub(crate) fn push(&self, json: Bytes) -> Result<(), RecordError> {
        self.take(Record::read(json)?);
        Ok(())
    }

    /// Takes in a record of a node, unless it is of a tenant that `holds` says no of.
    pub(crate) fn push_of(
        &self,
        json: Bytes,
        holds: impl Fn(&TenantName) -> bool,
    ) -> Result<(), RecordError> {
        let record = Record::read(json)?;
        // What is no tenant's name is nobody's record.
        let tenant = record.tenant.as_deref().and_then(|tenant| tenant.parse().ok());
        if tenant.is_some_and(|tenant| !holds(&tenant)) {
            return Err(RecordError::Tenant);
        }
        self.take(record);
        Ok(())
    }

    /// Takes in a record that another member tells of.
    pub(crate) fn push_told(&self, json: Bytes) -> Result<(), RecordError> {
        self.take(Record { is_told: true, ..Record::read(json)? });
        Ok(())
    }

    fn take(&self, record: Record) {
        let mut ring = self.ring();
        ring.push(Arc::new(record));
        let next = ring.next();
        drop(ring);
        // Two pushes may come here in the other order; the number must not go back.
        self.next.send_if_modified(|known| {
            let newer = next > *known;
            *known = next.max(*known);
            newer
        });
    }

    /// The newest record of a decision.
    pub(crate) fn find(&self, decision_id: &str, whose: &Selection) -> Option<Arc<Record>> {
        let is_it = |record: &&Arc<Record>| record.decision_id == decision_id && record.is_of(whose);
        self.ring().records.iter().rev().find(is_it).cloned()
    }

    /// The newest record of a call that policy denied.
    pub(crate) fn last_denied(&self, whose: &Selection) -> Option<Arc<Record>> {
        let is_it = |record: &&Arc<Record>| record.denied && record.is_of(whose);
        self.ring().records.iter().rev().find(is_it).cloned()
    }

    /// A reader that begins with the last `last` records.
    pub(crate) fn tail(self: &Arc<Journal>, last: usize, whose: Selection) -> Tail {
        let news = self.next.subscribe();
        let ring = self.ring();
        let of_tenant = ring.records.iter().enumerate().rev();
        let of_tenant = of_tenant.filter(|(_, record)| record.is_of(&whose));
        let position =
            of_tenant.take(last).last().map_or(ring.next(), |(index, _)| ring.first + index as u64);
        drop(ring);
        Tail { journal: self.clone(), news, whose, position, lost: 0 }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn read(json: Bytes) -> Result<Record, RecordError> {
        if json.len() > RECORD_BYTES_MAX {
            return Err(RecordError::TooLong(json.len()));
        }
        let fields: Fields = serde_json::from_slice(&json).map_err(|_| RecordError::Form)?;
        let policies = fields.policies.into_iter().flatten().map(|deciding| deciding.policy);
        let failed = fields.failures.into_iter().filter_map(|failed| failed.policy);
        Ok(Record {
            decision_id: fields.decision_id,
            tenant: fields.tenant,
            denied: fields.verdict.as_deref() == Some("deny"),
            policies: policies.chain(failed).filter_map(|policy| policy.parse().ok()).collect(),
            json,
            is_told: false,
        })
    }

    fn is_of(&self, whose: &Selection) -> bool {
        let tenant = || self.tenant.as_deref().and_then(|tenant| tenant.parse::<TenantName>().ok());
        match whose {
            Selection::Everybody => true,
            Selection::Tenants(tenants) => tenant().is_some_and(|tenant| tenants.contains(&tenant)),
        }
    }

    fn bytes(&self) -> usize {
        self.json.len() + self.decision_id.len() + RECORD_OVERHEAD_BYTES
    }
}

impl Ring {
    fn push(&mut self, record: Arc<Record>) {
        self.bytes += record.bytes();
        self.records.push_back(record);
        while self.records.len() > RECORDS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.records.pop_front() else { return };
            self.first += 1;
            self.bytes -= oldest.bytes();
        }
    }

    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }
}

impl Tail {
    /// The next record that is there already.
    pub(crate) fn advance(&mut self) -> Option<Tailed> {
        let ring = self.journal.ring();
        self.lost += ring.first.saturating_sub(self.position);
        self.position = self.position.max(ring.first);
        let skipped = usize::try_from(self.position - ring.first).unwrap_or(usize::MAX);
        let found =
            ring.records.iter().enumerate().skip(skipped).find(|(_, record)| record.is_of(&self.whose));
        let Some((index, record)) = found else {
            self.position = ring.next();
            return None;
        };
        self.position = ring.first + index as u64 + 1;
        let lost = std::mem::take(&mut self.lost);
        let lost = if self.whose == Selection::Everybody { lost } else { lost.min(1) };
        Some(Tailed { record: record.clone(), lost })
    }

    /// Waits for the next record. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Tailed {
        loop {
            self.news.borrow_and_update();
            if let Some(tailed) = self.advance() {
                return tailed;
            }
            // The sender lives in the journal, which this reader holds.
            let _ = self.news.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn push(journal: &Journal, id: usize, tenant: &str, verdict: &str) {
        let record = json!({"decision_id": format!("d{id}"), "tenant": tenant, "verdict": verdict,
            "policies": [{"policy": "p", "id": null}], "arguments": {"path": "x"},
            "failures": [{"policy": "q", "id": null, "index": 0}, {"message": "an argument"}]});
        journal.push(Bytes::from(record.to_string())).expect("a record");
    }

    fn ids(tail: &mut Tail) -> Vec<(String, u64)> {
        std::iter::from_fn(|| tail.advance())
            .map(|tailed| (tailed.record.decision_id.clone(), tailed.lost))
            .collect()
    }

    fn told(ids: &[usize]) -> Vec<(String, u64)> {
        ids.iter().map(|id| (format!("d{id}"), 0)).collect()
    }

    #[test]
    fn a_tail_begins_with_the_last_of_its_tenant_and_goes_on_with_what_comes() {
        let journal = Journal::new();
        for id in 0..6 {
            push(&journal, id, if id % 2 == 0 { "acme" } else { "globex" }, "allow");
        }
        let mut acme = journal.tail(2, Selection::Tenants(["acme".parse().expect("a name")].into()));
        let mut all = journal.tail(3, Selection::Everybody);
        let mut new = journal.tail(0, Selection::Everybody);
        assert_eq!(ids(&mut acme), told(&[2, 4]));
        assert_eq!(ids(&mut all), told(&[3, 4, 5]));
        assert_eq!(ids(&mut new), told(&[]));
        push(&journal, 6, "acme", "allow");
        push(&journal, 7, "globex", "allow");
        assert_eq!(ids(&mut acme), told(&[6]));
        assert_eq!(ids(&mut all), told(&[6, 7]));
        assert_eq!(ids(&mut new), told(&[6, 7]));
    }

    #[tokio::test]
    async fn a_waiting_tail_is_woken_by_a_record_of_its_tenant() {
        let journal = Journal::new();
        let mut tail = journal.tail(0, Selection::Tenants(["acme".parse().expect("a name")].into()));
        let pusher = journal.clone();
        let pushing = tokio::spawn(async move {
            push(&pusher, 1, "globex", "allow");
            tokio::task::yield_now().await;
            push(&pusher, 2, "acme", "allow");
        });
        assert_eq!(tail.next().await.record.decision_id, "d2");
        pushing.await.expect("pushed");
    }

    #[test]
    fn a_reader_that_falls_behind_is_told_what_it_lost() {
        let journal = Journal::new();
        let mut tail = journal.tail(0, Selection::Everybody);
        for id in 0..RECORDS_MAX + 5 {
            push(&journal, id, "acme", "allow");
        }
        let read = ids(&mut tail);
        assert_eq!(read.len(), RECORDS_MAX);
        assert_eq!(read[0], ("d5".to_owned(), 5));
        assert_eq!(read[1], ("d6".to_owned(), 0));
        assert_eq!(journal.find("d4", &Selection::Everybody), None);
    }

    #[test]
    fn the_bytes_are_bounded_too() {
        let journal = Journal::new();
        let filler = "x".repeat(RECORD_BYTES_MAX - 1_000);
        for id in 0..80 {
            let record = json!({"decision_id": format!("d{id}"), "filler": filler});
            journal.push(Bytes::from(record.to_string())).expect("a record");
        }
        assert!(journal.ring().bytes <= BYTES_MAX);
        assert_eq!(ids(&mut journal.tail(RECORDS_MAX, Selection::Everybody)).len(), 64);
        let long = Bytes::from(vec![b' '; RECORD_BYTES_MAX + 1]);
        assert_eq!(journal.push(long), Err(RecordError::TooLong(RECORD_BYTES_MAX + 1)));
    }

    #[test]
    fn a_decision_is_found_by_its_id_and_the_last_denial_without() {
        let journal = Journal::new();
        assert_eq!(journal.last_denied(&Selection::Everybody), None);
        push(&journal, 1, "acme", "deny");
        push(&journal, 2, "acme", "deny");
        push(&journal, 3, "acme", "allow");
        let found = journal.find("d1", &Selection::Everybody).expect("a record");
        assert_eq!(found.policies, ["p", "q"].map(|name| name.parse().expect("a name")));
        assert_eq!(
            journal.last_denied(&Selection::Everybody).map(|record| record.decision_id.clone()),
            Some("d2".to_owned())
        );
        assert_eq!(journal.find("d9", &Selection::Everybody), None);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let journal = Journal::new();
        for text in ["", "[]", "{}", r#"{"decision_id": 5}"#] {
            assert_eq!(journal.push(Bytes::from(text)), Err(RecordError::Form), "{text}");
        }
        assert_eq!(journal.push(Bytes::from(r#"{"decision_id": "x", "verdict": null}"#)), Ok(()));
    }
}
