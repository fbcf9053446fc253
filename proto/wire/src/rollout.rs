//! Rollouts, and what is decided of them.

use gantry_model::rollout::{End, Ended, Stage, Thresholds};
use gantry_model::{Revision, Rollout, RolloutAt, RolloutId};

use crate::convert::{WireError, bytes, name};
use crate::{raft_v1, resource_v1 as wire};

impl From<&Rollout> for wire::Rollout {
    fn from(rollout: &Rollout) -> wire::Rollout {
        wire::Rollout {
            tenant: rollout.tenant.to_string(),
            id: rollout.id.0.to_vec(),
            applied: rollout.applied.iter().map(Into::into).collect(),
            deleted: rollout.deleted.iter().map(Into::into).collect(),
            resource_count: rollout.resource_count,
            checked_revision: rollout.checked.0,
            begun_revision: rollout.begun.0,
            stages: rollout.stages.iter().map(Into::into).collect(),
            stage: rollout.stage,
            pause_seconds: rollout.pause_seconds.unwrap_or(0),
            rise_percent: rollout.thresholds.rise_percent.into(),
            calls_min: rollout.thresholds.calls_min,
            by: rollout.by.clone(),
            begun_at_ms: rollout.begun_at_ms,
            end: rollout.ended.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<&wire::Rollout> for Rollout {
    type Error = WireError;

    fn try_from(rollout: &wire::Rollout) -> Result<Rollout, WireError> {
        let rise_percent = u8::try_from(rollout.rise_percent)
            .map_err(|_| WireError::invalid("rise_percent", "is at most 100"))?;
        Ok(Rollout {
            tenant: name("tenant", &rollout.tenant)?,
            id: RolloutId(bytes("id", &rollout.id)?),
            applied: rollout.applied.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            deleted: rollout.deleted.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            resource_count: rollout.resource_count,
            checked: Revision(rollout.checked_revision),
            begun: Revision(rollout.begun_revision),
            stages: rollout.stages.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            stage: rollout.stage,
            pause_seconds: (rollout.pause_seconds != 0).then_some(rollout.pause_seconds),
            thresholds: Thresholds { rise_percent, calls_min: rollout.calls_min },
            by: rollout.by.clone(),
            begun_at_ms: rollout.begun_at_ms,
            ended: rollout.end.as_ref().map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&Stage> for wire::RolloutStage {
    fn from(stage: &Stage) -> wire::RolloutStage {
        use wire::rollout_stage::Nodes;
        let nodes = match stage {
            Stage::Label(label) => Nodes::Label(label.to_string()),
            Stage::Share(percent) => Nodes::SharePercent((*percent).into()),
        };
        wire::RolloutStage { nodes: Some(nodes) }
    }
}

impl TryFrom<&wire::RolloutStage> for Stage {
    type Error = WireError;

    fn try_from(stage: &wire::RolloutStage) -> Result<Stage, WireError> {
        use wire::rollout_stage::Nodes;
        Ok(match stage.nodes.as_ref().ok_or(WireError::Missing("nodes"))? {
            Nodes::Label(label) => Stage::Label(name("label", label)?),
            Nodes::SharePercent(percent) => {
                let percent = u8::try_from(*percent).ok().filter(|percent| (1..100).contains(percent));
                let refused = || WireError::invalid("share_percent", "is from 1 to 99");
                Stage::Share(percent.ok_or_else(refused)?)
            }
        })
    }
}

impl From<&Ended> for wire::RolloutEnd {
    fn from(ended: &Ended) -> wire::RolloutEnd {
        let outcome = match ended.how {
            End::Promoted => wire::RolloutOutcome::Promoted,
            End::Aborted => wire::RolloutOutcome::Aborted,
            End::Stopped => wire::RolloutOutcome::Stopped,
        };
        wire::RolloutEnd {
            outcome: outcome.into(),
            reason: ended.reason.clone(),
            by: ended.by.clone(),
            at_ms: ended.at_ms,
        }
    }
}

impl TryFrom<&wire::RolloutEnd> for Ended {
    type Error = WireError;

    fn try_from(end: &wire::RolloutEnd) -> Result<Ended, WireError> {
        let how = match end.outcome() {
            wire::RolloutOutcome::Unspecified => return Err(WireError::Missing("outcome")),
            wire::RolloutOutcome::Promoted => End::Promoted,
            wire::RolloutOutcome::Aborted => End::Aborted,
            wire::RolloutOutcome::Stopped => End::Stopped,
        };
        Ok(Ended { how, reason: end.reason.clone(), by: end.by.clone(), at_ms: end.at_ms })
    }
}

impl From<&RolloutAt> for raft_v1::RolloutAt {
    fn from(at: &RolloutAt) -> raft_v1::RolloutAt {
        raft_v1::RolloutAt { tenant: at.tenant.to_string(), id: at.id.0.to_vec(), stage: at.stage }
    }
}

impl TryFrom<&raft_v1::RolloutAt> for RolloutAt {
    type Error = WireError;

    fn try_from(at: &raft_v1::RolloutAt) -> Result<RolloutAt, WireError> {
        let id = RolloutId(bytes("id", &at.id)?);
        Ok(RolloutAt { tenant: name("tenant", &at.tenant)?, id, stage: at.stage })
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::record::{Record, RecordValue};
    use gantry_model::resource::AgentSpec;
    use gantry_model::{Resource, ResourceId, Spec, TenantName};

    use super::*;
    use crate::{Command, Proposal, decode_record, encode_record};

    #[test]
    fn a_rollout_comes_back_as_it_was_running_and_ended() -> Result<(), Box<dyn std::error::Error>> {
        let tenant: TenantName = "acme".parse()?;
        let spec = Spec::Agent(AgentSpec::default());
        let agent = Resource { tenant: tenant.clone(), name: "bot".parse()?, spec };
        let running = Rollout {
            deleted: vec![ResourceId::agent(&tenant, &"old".parse()?)],
            tenant,
            id: RolloutId([1, 2, 3, 4, 5, 6, 7, 8]),
            applied: vec![agent],
            resource_count: 2,
            checked: Revision(3),
            begun: Revision(4),
            stages: vec![Stage::Label("canary".parse()?), Stage::Share(25)],
            stage: 1,
            pause_seconds: None,
            thresholds: Thresholds { rise_percent: 5, calls_min: 50 },
            by: "ann".to_owned(),
            begun_at_ms: 6,
            ended: None,
        };
        for how in [None, Some(End::Promoted), Some(End::Aborted), Some(End::Stopped)] {
            let ended = how.map(|how| Ended { how, reason: "why".into(), by: "bob".into(), at_ms: 7 });
            let rollout = Rollout { ended: ended.clone(), ..running.clone() };
            let value = RecordValue::Rollout(rollout.clone().into());
            let record = Record { revision: Revision(9), value };
            assert_eq!(decode_record(&encode_record(&record)), Ok(record));
            let end = ended.map(|end| Command::EndRollout { at: running.at(), end });
            let begin = Command::BeginRollout(Box::new(rollout));
            for command in [Some(begin), end, Some(Command::AdvanceRollout(running.at()))] {
                let Some(command) = command else { continue };
                let proposal = Proposal::from(command);
                assert_eq!(Proposal::decode(&proposal.encode()), Ok(proposal));
            }
        }
        Ok(())
    }
}
