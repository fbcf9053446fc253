//! A staged rollout: a change that goes to some nodes first.
//!
//! Always holds: it is of one tenant and of no [`Kind::Tenant`], so which nodes hold the tenant is the same with it and
//! without; a node that is in a stage is in all later ones; whether it is can be told from its name, its labels and the
//! record alone, so every member tells it alike.
//!
//! Who is healthy, and when a stage is over, is not told here.

use std::fmt;
use std::str::FromStr;

use crate::name::{Name, TenantName};
use crate::resource::{Kind, Resource, ResourceId};
use crate::revision::Revision;
use crate::scope::Scope;

/// Most stages before the one of all nodes: nobody looks at more.
pub const STAGES_MAX: usize = 8;
/// Most resources that one changes: its record is written anew with every stage, and laid over the state at each change
/// of its tenant.
pub const ROLLOUT_RESOURCES_MAX: usize = 1_000;
/// Longest that a stage waits before it goes on by itself, in seconds: a week, beyond which somebody is to decide.
pub const PAUSE_SECONDS_MAX: u64 = 7 * 86_400;
/// How much longer than its stages a rollout may run, in seconds: somebody who mends a node after a weekend. Beyond it is
/// taken back, since few may run at one time and one that nobody looks after keeps others from beginning.
pub const LATE_SECONDS_MAX: u64 = 3 * 86_400;
/// Longest reason in bytes: it is one line.
pub const END_REASON_BYTES_MAX: usize = 1_024;

/// Random; part of what decides who is in a share, so that it is not always the same nodes that go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RolloutId(pub [u8; 8]);

/// A text is no id of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rollout's id has 16 hexadecimal digits")]
pub struct RolloutIdError;

/// Which nodes join with a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Those with a label.
    Label(Name),
    /// As many of a hundred, by a hash of their names: 1 to 99.
    Share(u8),
}

/// A text is no stage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no stage; write the label of nodes, such as canary, or a share from 1% to 99%")]
pub struct StageError(String);

/// When a stage is stopped for the sake of what agents get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// By how many of a hundred calls more may be rejected than elsewhere.
    pub rise_percent: u8,
    /// Calls on either side below which nothing is decided.
    pub calls_min: u32,
}

/// A rollout, as it is stored: at most one of a tenant, the latest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Whose resources it changes.
    pub tenant: TenantName,
    /// What tells it from others.
    pub id: RolloutId,
    /// What is applied; nothing once it ended.
    pub applied: Vec<Resource>,
    /// What is deleted; nothing once it ended.
    pub deleted: Vec<ResourceId>,
    /// How many resources that were, also once it ended.
    pub resource_count: u32,
    /// What it was checked against.
    pub checked: Revision,
    /// The revision at which it began.
    pub begun: Revision,
    /// One after the other; all nodes come after the last.
    pub stages: Vec<Stage>,
    /// The stage that it is in, or was when it ended; from 0.
    pub stage: u32,
    /// How long a stage has to be healthy before the next begins by itself; `None`: never.
    pub pause_seconds: Option<u64>,
    /// When it stops by itself.
    pub thresholds: Thresholds,
    /// The admin who began it.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub begun_at_ms: u64,
    /// How it ended; `None`: it runs.
    pub ended: Option<Ended>,
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// In what way.
    pub how: End,
    /// Why, for admins.
    pub reason: String,
    /// The admin who ended it; empty: it ended by itself.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// In what way a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All nodes have the change.
    Promoted,
    /// An admin took it back.
    Aborted,
    /// It was taken back because of what was seen.
    Stopped,
}

/// A rollout in a stage: what somebody who decides about it has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutAt {
    /// Its tenant.
    pub tenant: TenantName,
    /// Which.
    pub id: RolloutId,
    /// The stage.
    pub stage: u32,
}

/// Why a rollout is none that can begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    /// It changes nothing.
    #[error("it names no resource")]
    Nothing,
    /// Too many.
    #[error(
        "it names more than {ROLLOUT_RESOURCES_MAX} resources; apply those that agents do not reach yet before it"
    )]
    TooMany,
    /// A resource of another tenant.
    #[error("{0} is not of tenant {1}; a rollout is of one tenant")]
    OtherTenant(ResourceId, TenantName),
    /// A tenant itself.
    #[error("{0} decides which nodes hold the tenant at all, and cannot be staged; apply it by itself")]
    OfTenant(ResourceId),
    /// Too few or too many.
    #[error("a rollout has 1 to {STAGES_MAX} stages before the one of all nodes")]
    Stages,
    /// A share that is none.
    #[error("a share is from 1% to 99%, and larger than the one before it")]
    Share,
    /// A bound that is none.
    #[error("a rise is at most 100%")]
    Rise,
    /// A pause that is none.
    #[error("a pause is from 1 s to {} days", PAUSE_SECONDS_MAX / 86_400)]
    Pause,
}

impl Rollout {
    /// Whether it may begin.
    pub fn check(&self) -> Result<(), RolloutError> {
        let ids: Vec<ResourceId> = self.resources().collect();
        match ids.len() {
            0 => return Err(RolloutError::Nothing),
            count if count > ROLLOUT_RESOURCES_MAX => return Err(RolloutError::TooMany),
            _ => {}
        }
        if let Some(id) = ids.iter().find(|id| id.kind == Kind::Tenant) {
            return Err(RolloutError::OfTenant(id.clone()));
        }
        if let Some(id) = ids.iter().find(|id| id.tenant != self.tenant) {
            return Err(RolloutError::OtherTenant(id.clone(), self.tenant.clone()));
        }
        if self.stages.is_empty() || self.stages.len() > STAGES_MAX {
            return Err(RolloutError::Stages);
        }
        let mut before = 0;
        for stage in &self.stages {
            match stage {
                Stage::Label(_) => {}
                Stage::Share(percent) if *percent > before && *percent < 100 => before = *percent,
                Stage::Share(_) => return Err(RolloutError::Share),
            }
        }
        if self.thresholds.rise_percent > 100 {
            return Err(RolloutError::Rise);
        }
        match self.pause_seconds {
            Some(seconds) if seconds == 0 || seconds > PAUSE_SECONDS_MAX => Err(RolloutError::Pause),
            _ => Ok(()),
        }
    }

    /// What it applies and deletes, while it runs.
    pub fn resources(&self) -> impl Iterator<Item = ResourceId> + '_ {
        self.applied.iter().map(Resource::id).chain(self.deleted.iter().cloned())
    }

    /// Whether it changes a resource.
    pub fn touches(&self, id: &ResourceId) -> bool {
        let is_applied = |resource: &Resource| resource.name == id.name && resource.id() == *id;
        self.applied.iter().any(is_applied) || self.deleted.contains(id)
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.ended.is_none()
    }

    /// Whether the stage that it is in is the last before all nodes.
    pub fn is_in_last_stage(&self) -> bool {
        self.stage as usize + 1 >= self.stages.len()
    }

    /// Whether a node is served the change: it runs, and has come to a stage of the node.
    pub fn has(&self, node: &str, scope: &Scope) -> bool {
        let reached = self.stages.iter().take(self.stage as usize + 1);
        self.is_running() && reached.into_iter().any(|stage| stage.has(self.id, node, scope))
    }

    /// When it is taken back if it runs still, in milliseconds since 1970. A stage that somebody is to end has a week.
    pub fn late_at_ms(&self) -> u64 {
        let stage = self.pause_seconds.unwrap_or(PAUSE_SECONDS_MAX);
        let stages = stage.saturating_mul(self.stages.len() as u64);
        self.begun_at_ms.saturating_add(stages.saturating_add(LATE_SECONDS_MAX).saturating_mul(1_000))
    }

    /// The stage that it is in, with what is to be known to decide about it.
    pub fn at(&self) -> RolloutAt {
        RolloutAt { tenant: self.tenant.clone(), id: self.id, stage: self.stage }
    }

    /// The stage that it is in, for people: `stage 1 of 3 (canary)`. All nodes are a stage, too.
    pub fn stage_title(&self) -> String {
        let stage = self.stages.get(self.stage as usize).map(ToString::to_string).unwrap_or_default();
        format!("stage {} of {} ({stage})", self.stage + 1, self.stages.len() + 1)
    }
}

impl Stage {
    /// Whether a node joins with it.
    pub fn has(&self, id: RolloutId, node: &str, scope: &Scope) -> bool {
        match (self, scope) {
            (Stage::Label(label), Scope::Of(labels)) => labels.labels.contains(label),
            // Nodes without certificates have no labels.
            (Stage::Label(_), Scope::Everything) => false,
            (Stage::Share(percent), _) => place(id, node) < u64::from(*percent),
        }
    }
}

/// Where a node stands among a hundred, in one rollout.
fn place(id: RolloutId, node: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&id.0);
    hasher.update(node.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first) % 100
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Label(label) => write!(formatter, "{label}"),
            Stage::Share(percent) => write!(formatter, "{percent}%"),
        }
    }
}

impl FromStr for Stage {
    type Err = StageError;

    fn from_str(text: &str) -> Result<Stage, StageError> {
        let refused = || StageError(text.to_owned());
        if let Some(percent) = text.strip_suffix('%') {
            let percent: u8 = percent.parse().map_err(|_| refused())?;
            return if (1..100).contains(&percent) { Ok(Stage::Share(percent)) } else { Err(refused()) };
        }
        // A share whose sign was forgotten.
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refused());
        }
        text.parse().map(Stage::Label).map_err(|_| refused())
    }
}

impl fmt::Display for RolloutId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl FromStr for RolloutId {
    type Err = RolloutIdError;

    fn from_str(text: &str) -> Result<RolloutId, RolloutIdError> {
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(RolloutIdError);
        }
        u64::from_str_radix(text, 16).map(|id| RolloutId(id.to_be_bytes())).map_err(|_| RolloutIdError)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::document;
    use crate::scope::Labels;

    type Result = std::result::Result<(), Box<dyn std::error::Error>>;

    fn rollout(stages: &[&str]) -> Rollout {
        let agent = document::parse(json!({"kind": "Agent", "tenant": "acme", "name": "bot"}));
        Rollout {
            tenant: "acme".parse().expect("a name"),
            id: RolloutId([7; 8]),
            applied: vec![agent.expect("a document")],
            deleted: Vec::new(),
            resource_count: 1,
            checked: Revision(1),
            begun: Revision(2),
            stages: stages.iter().map(|stage| stage.parse().expect("a stage")).collect(),
            stage: 0,
            pause_seconds: Some(60),
            thresholds: Thresholds { rise_percent: 5, calls_min: 50 },
            by: "ann".to_owned(),
            begun_at_ms: 1,
            ended: None,
        }
    }

    fn labelled(label: &str) -> Scope {
        Scope::Of(Labels { labels: [label.parse().expect("a name")].into(), ..Labels::default() })
    }

    #[test]
    fn a_node_is_in_every_stage_after_its_own_and_in_none_once_it_ended() {
        let mut rollout = rollout(&["canary", "30%", "60%"]);
        let nodes: Vec<String> = (0..1_000).map(|number| format!("node-{number}")).collect();
        let has = |rollout: &Rollout| -> BTreeSet<&String> {
            nodes.iter().filter(|node| rollout.has(node, &Scope::default())).collect()
        };
        assert_eq!(has(&rollout).len(), 0);
        assert!(rollout.has("any", &labelled("canary")) && !rollout.has("any", &labelled("other")));
        assert!(!rollout.has("any", &Scope::Everything), "who has no certificate has no labels");
        rollout.stage = 1;
        let some = has(&rollout);
        assert!((240..360).contains(&some.len()), "{}", some.len());
        assert!(rollout.has("any", &labelled("canary")));
        rollout.stage = 2;
        let more = has(&rollout);
        assert!(some.is_subset(&more) && (530..670).contains(&more.len()), "{}", more.len());
        let other = Rollout { id: RolloutId([8; 8]), ..rollout.clone() };
        assert_ne!(has(&other), more, "others go first another time");
        let (how, reason, by) = (End::Stopped, String::new(), String::new());
        rollout.ended = Some(Ended { how, reason, by, at_ms: 1 });
        assert_eq!(has(&rollout).len(), 0);
    }

    #[test]
    fn a_rollout_may_run_for_as_long_as_its_stages_and_a_weekend() {
        let mut rollout = rollout(&["canary", "30%"]);
        assert_eq!(rollout.late_at_ms(), 1 + (2 * 60 + 3 * 86_400) * 1_000);
        rollout.pause_seconds = None;
        assert_eq!(rollout.late_at_ms(), 1 + (2 * 7 + 3) * 86_400_000);
        rollout.begun_at_ms = u64::MAX;
        assert_eq!(rollout.late_at_ms(), u64::MAX);
    }

    #[test]
    fn a_stage_is_read_as_it_is_printed() {
        for text in ["canary", "1%", "99%"] {
            assert_eq!(text.parse::<Stage>().map(|stage| stage.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "0%", "100%", "25", "Canary", "%", "-1%", "x=y"] {
            assert_eq!(text.parse::<Stage>(), Err(StageError(text.to_owned())), "{text}");
        }
        let id = RolloutId([0, 1, 2, 3, 4, 5, 6, 255]);
        assert_eq!((id.to_string().as_str(), id.to_string().parse()), ("00010203040506ff", Ok(id)));
        assert_eq!("+0010203040506ff".parse::<RolloutId>(), Err(RolloutIdError));
    }

    #[test]
    fn what_cannot_be_staged_is_refused() -> Result {
        let good = rollout(&["canary", "10%", "20%"]);
        assert_eq!(good.check(), Ok(()));
        let with = |change: &dyn Fn(&mut Rollout)| {
            let mut changed = good.clone();
            change(&mut changed);
            changed.check()
        };
        let (acme, beta): (TenantName, TenantName) = ("acme".parse()?, "beta".parse()?);
        let of_beta = ResourceId::agent(&beta, &"bot".parse()?);
        let of_tenant = ResourceId::of_tenant(&acme);
        assert_eq!(with(&|rollout| rollout.applied.clear()), Err(RolloutError::Nothing));
        assert_eq!(
            with(&|rollout| rollout.deleted.push(of_beta.clone())),
            Err(RolloutError::OtherTenant(of_beta.clone(), acme.clone()))
        );
        let refused = Err(RolloutError::OfTenant(of_tenant.clone()));
        assert_eq!(with(&|rollout| rollout.deleted.push(of_tenant.clone())), refused);
        assert_eq!(with(&|rollout| rollout.stages.clear()), Err(RolloutError::Stages));
        assert_eq!(with(&|rollout| rollout.stages.swap(1, 2)), Err(RolloutError::Share));
        assert_eq!(with(&|rollout| rollout.stages[0] = Stage::Share(100)), Err(RolloutError::Share));
        assert_eq!(with(&|rollout| rollout.thresholds.rise_percent = 101), Err(RolloutError::Rise));
        assert_eq!(with(&|rollout| rollout.pause_seconds = Some(0)), Err(RolloutError::Pause));
        let bot = good.applied[0].clone();
        let many = |rollout: &mut Rollout| rollout.applied = vec![bot.clone(); ROLLOUT_RESOURCES_MAX + 1];
        assert_eq!(with(&many), Err(RolloutError::TooMany));
        Ok(())
    }
}
