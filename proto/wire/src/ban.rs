//! Bans and what they stop.

use gantry_model::{Ban, BanTarget};

use crate::command::required;
use crate::convert::{WireError, name};
use crate::resource_v1 as wire;

impl From<&Ban> for wire::Ban {
    fn from(ban: &Ban) -> wire::Ban {
        wire::Ban {
            tenant: ban.tenant.to_string(),
            target: Some((&ban.target).into()),
            by: ban.by.clone(),
            reason: ban.reason.clone(),
            at_ms: ban.at_ms,
            until_ms: ban.until_ms.unwrap_or(0),
        }
    }
}

impl TryFrom<&wire::Ban> for Ban {
    type Error = WireError;

    fn try_from(ban: &wire::Ban) -> Result<Ban, WireError> {
        Ok(Ban {
            tenant: name("tenant", &ban.tenant)?,
            target: required("target", &ban.target)?,
            by: ban.by.clone(),
            reason: ban.reason.clone(),
            at_ms: ban.at_ms,
            until_ms: (ban.until_ms != 0).then_some(ban.until_ms),
        })
    }
}

impl From<&BanTarget> for wire::BanTarget {
    fn from(target: &BanTarget) -> wire::BanTarget {
        use wire::ban_target::Target as To;
        let target = match target {
            BanTarget::Agent(agent) => To::Agent(agent.to_string()),
            BanTarget::User(user) => To::User(user.to_string()),
            BanTarget::Key(key) => To::Key(key.to_string()),
            BanTarget::Session(session) => To::Session(session.to_string()),
            BanTarget::Server(server) => To::Server(server.to_string()),
            BanTarget::Tenant => To::Tenant(wire::WholeTenant {}),
        };
        wire::BanTarget { target: Some(target) }
    }
}

impl TryFrom<&wire::BanTarget> for BanTarget {
    type Error = WireError;

    fn try_from(target: &wire::BanTarget) -> Result<BanTarget, WireError> {
        use wire::ban_target::Target as From;
        Ok(match target.target.as_ref().ok_or(WireError::Missing("target"))? {
            From::Agent(agent) => BanTarget::Agent(name("agent", agent)?),
            From::Key(key) => {
                let key = key.parse().map_err(|_| {
                    let message = "not a key's id, which is the 16 hexadecimal digits after `gantry_`; \
                                   `gantry key ls` lists them";
                    WireError::invalid("key", message)
                });
                BanTarget::Key(key?)
            }
            From::Session(session) => {
                BanTarget::Session(session.parse().map_err(|error| WireError::invalid("session", error))?)
            }
            From::Server(server) => BanTarget::Server(name("server", server)?),
            From::Tenant(wire::WholeTenant {}) => BanTarget::Tenant,
            From::User(user) => {
                BanTarget::User(user.parse().map_err(|error| WireError::invalid("user", error))?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::key::KeyId;
    use gantry_model::record::{Record, RecordValue};
    use gantry_model::{Revision, SessionId};

    use super::*;
    use crate::{Command, Proposal, decode_record, encode_record};

    fn ban(target: BanTarget) -> Ban {
        let tenant = "acme".parse().expect("a name");
        Ban { tenant, target, by: "ann".into(), reason: "leaked".into(), at_ms: 5, until_ms: Some(9) }
    }

    #[test]
    fn a_ban_of_every_kind_comes_back_as_it_was() {
        for target in [
            BanTarget::Agent("bot".parse().expect("a name")),
            BanTarget::User("corp/ann@example.com".parse().expect("a user")),
            BanTarget::Key(KeyId([7; 8])),
            BanTarget::Session(SessionId([9; 12])),
            BanTarget::Server("files".parse().expect("a name")),
            BanTarget::Tenant,
        ] {
            let ban = ban(target.clone());
            let record = Record { revision: Revision(3), value: RecordValue::Ban(ban.clone().into()) };
            assert_eq!(decode_record(&encode_record(&record)), Ok(record));
            let lift = Command::LiftBan { tenant: ban.tenant.clone(), target };
            for command in [Command::PutBan(Ban { until_ms: None, ..ban }), lift] {
                let proposal = Proposal::from(command);
                assert_eq!(Proposal::decode(&proposal.encode()), Ok(proposal));
            }
        }
    }

    #[test]
    fn a_user_of_no_provider_is_nobody_who_could_be_stopped() {
        let target = wire::BanTarget { target: Some(wire::ban_target::Target::User("ann".into())) };
        let refused = BanTarget::try_from(&target).map_err(|error| error.to_string());
        let message = "user: a user is PROVIDER/SUBJECT, as `gantry audit tail -o json` shows it";
        assert_eq!(refused, Err(message.to_owned()));
    }
}
