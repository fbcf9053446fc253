//! `gantry cluster status|add|remove|replace|transfer`: the members of the control plane.
//!
//! Always holds: a change is made on top of the membership that was looked at, or of the one that `--expect` names, and
//! refused when there is another by then.

use gantry_wire::admin_v1::change_members_request::Change as Asked;
use gantry_wire::admin_v1::{
    ChangeMembersRequest, ClusterMember, ListMembersRequest, MembersResponse, MembershipVersion,
};
use serde::Serialize;

use crate::admin::Admin;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format, ReadFlags};

/// `gantry cluster status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    #[command(flatten)]
    read: ReadFlags,
}

/// A change of one member.
#[derive(Debug, clap::Args)]
pub(crate) struct Change {
    /// The member, as `gantry cluster status` numbers it.
    #[arg(value_name = "ID")]
    id: u64,
    /// Make the change only on top of this membership, as `gantry cluster status` names it; the present one when absent.
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    expect: Option<MembershipVersion>,
    #[command(flatten)]
    read: ReadFlags,
}

/// `gantry cluster replace`.
#[derive(Debug, clap::Args)]
pub(crate) struct Replace {
    /// The member that is gone, as `gantry cluster status` numbers it.
    #[arg(value_name = "OLD")]
    old: u64,
    /// The member that takes its place: it has joined with `gantry cluster join`, and runs.
    #[arg(long, value_name = "NEW")]
    with: u64,
    /// Begin only on top of this membership, as `gantry cluster status` names it; the present one when absent.
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    expect: Option<MembershipVersion>,
    #[command(flatten)]
    read: ReadFlags,
}

pub(super) const fn promote(id: u64) -> Asked {
    Asked::Promote(id)
}

pub(super) const fn remove(id: u64) -> Asked {
    Asked::Remove(id)
}

pub(super) const fn transfer(id: u64) -> Asked {
    Asked::Transfer(id)
}

impl Status {
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let admin = Admin::connect(&self.read.access.resolve()?).await?;
        show(&members(&admin).await?, self.read.output)
    }
}

impl Change {
    pub(super) async fn run(self, change: impl FnOnce(u64) -> Asked) -> Result<Exit, Failure> {
        let admin = Admin::connect(&self.read.access.resolve()?).await?;
        let expected = match self.expect {
            Some(version) => Some(version),
            None => members(&admin).await?.version,
        };
        show(&self::change(&admin, expected, change(self.id)).await?, self.read.output)
    }
}

impl Replace {
    /// First the new one votes, once it has the log; then the old one goes, on top of that and of nothing else. When it
    /// is cut short between the two, the same command goes on.
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let admin = Admin::connect(&self.read.access.resolve()?).await?;
        let now = members(&admin).await?;
        let find = |id: u64| now.members.iter().find(|member| member.id == id);
        if find(self.old).is_none() || self.old == self.with {
            let next = "`gantry cluster status` shows the members";
            return Err(Failure::error(format!("there is no member {} to be replaced", self.old), next));
        }
        let Some(new) = find(self.with) else {
            let next = "make a token with `gantry cluster token --role control-plane`; then `gantry cluster join` and \
                        `gantry control-plane run` on the new machine";
            return Err(Failure::error(format!("member {} has not joined", self.with), next));
        };
        let mut expected = self.expect.or(now.version);
        if !new.votes {
            output::say(&format!("member {} gets the log, and votes then", self.with));
            expected = change(&admin, expected, promote(self.with)).await?.version;
        }
        output::say(&format!("member {} is removed", self.old));
        show(&change(&admin, expected, remove(self.old)).await?, self.read.output)
    }
}

async fn change(
    admin: &Admin,
    expected: Option<MembershipVersion>,
    change: Asked,
) -> Result<MembersResponse, Failure> {
    let request = ChangeMembersRequest { expected, change: Some(change) };
    let next = "`gantry cluster status` shows the members and the membership's version";
    admin.ask(admin.service().change_members(request), next).await
}

async fn members(admin: &Admin) -> Result<MembersResponse, Failure> {
    let next = "ask another member with `--admin HOST:PORT`";
    admin.ask(admin.service().list_members(ListMembersRequest {}), next).await
}

#[derive(Debug, Serialize)]
struct MembersView {
    membership: String,
    leader: Option<u64>,
    term: u64,
    asked: u64,
    changing: bool,
    quorum_silent_ms: u64,
    members: Vec<MemberView>,
}

#[derive(Debug, Serialize)]
struct MemberView {
    id: u64,
    role: &'static str,
    address: String,
    /// Entries of the leader's log that it lacks; known to the leader alone.
    lag: Option<u64>,
}

impl From<&MembersResponse> for MembersView {
    fn from(answer: &MembersResponse) -> MembersView {
        let view = |member: &ClusterMember| MemberView {
            id: member.id,
            role: match member {
                _ if member.id == answer.leader => "leader",
                ClusterMember { votes: true, .. } => "voter",
                ClusterMember { votes: false, .. } => "learner",
            },
            address: member.address.clone(),
            lag: (answer.asked == answer.leader).then(|| {
                let matched = if member.id == answer.asked { answer.last_log } else { member.matched };
                answer.last_log.saturating_sub(matched)
            }),
        };
        MembersView {
            membership: answer.version.as_ref().map(version_text).unwrap_or_default(),
            leader: (answer.leader != 0).then_some(answer.leader),
            term: answer.term,
            asked: answer.asked,
            changing: answer.changing,
            quorum_silent_ms: answer.quorum_silent_ms,
            members: answer.members.iter().map(view).collect(),
        }
    }
}

fn show(answer: &MembersResponse, format: Format) -> Result<Exit, Failure> {
    let view = MembersView::from(answer);
    output::show(&view, format, || view.text())?;
    Ok(Exit::Done)
}

impl MembersView {
    fn text(&self) -> String {
        let leader = match self.leader {
            Some(leader) => format!("member {leader} leads in term {}", self.term),
            None => format!("no member is known to lead, term {}: writes wait", self.term),
        };
        let mut text = format!("membership {}, {leader}; member {} answers\n", self.membership, self.asked);
        if self.changing {
            text.push_str("a change of voters is under way\n");
        }
        if self.quorum_silent_ms > 0 {
            let seconds = self.quorum_silent_ms / 1000;
            text.push_str(&format!(
                "it has not heard from a quorum for {seconds} s: nothing can be written\n"
            ));
        }
        let row = |member: &MemberView| {
            let lag = member.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string());
            vec![member.id.to_string(), member.role.to_owned(), output::visible(&member.address), lag]
        };
        text.push('\n');
        text.push_str(&output::table(
            &["MEMBER", "ROLE", "ADDRESS", "LAG"],
            self.members.iter().map(row).collect(),
        ));
        text
    }
}

fn version_text(version: &MembershipVersion) -> String {
    format!("{}-{}-{}", version.term, version.leader, version.index)
}

fn parse_version(text: &str) -> Result<MembershipVersion, String> {
    let parts: Result<Vec<u64>, _> = text.split('-').map(str::parse).collect();
    match parts.as_deref() {
        Ok(&[term, leader, index]) => Ok(MembershipVersion { term, leader, index }),
        _ => Err("a version is three numbers, such as 2-1-57".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> MembersResponse {
        let member = |id, votes, matched| ClusterMember { id, address: format!("h{id}:1"), votes, matched };
        MembersResponse {
            members: vec![member(1, true, 0), member(2, true, 55), member(3, false, 0)],
            version: Some(MembershipVersion { term: 2, leader: 1, index: 50 }),
            asked: 1,
            leader: 1,
            term: 2,
            changing: false,
            last_log: 57,
            quorum_silent_ms: 0,
        }
    }

    #[test]
    fn the_leader_tells_how_far_each_member_is() {
        let view = MembersView::from(&answer());
        let rows: Vec<_> = view.members.iter().map(|member| (member.id, member.role, member.lag)).collect();
        assert_eq!(rows, [(1, "leader", Some(0)), (2, "voter", Some(2)), (3, "learner", Some(57))]);
        assert!(view.text().starts_with("membership 2-1-50, member 1 leads in term 2; member 1 answers\n"));
    }

    #[test]
    fn a_member_without_a_leader_says_so() {
        let alone = MembersResponse { leader: 0, asked: 2, changing: true, ..answer() };
        let text = MembersView::from(&alone).text();
        assert!(text.contains("no member is known to lead, term 2: writes wait"), "{text}");
        assert!(text.contains("a change of voters is under way"), "{text}");
    }

    #[test]
    fn a_version_is_read_as_it_is_told() {
        let version = MembershipVersion { term: 2, leader: 1, index: 50 };
        assert_eq!(parse_version(&version_text(&version)), Ok(version));
        for text in ["", "2-1", "2-1-x", "2-1-50-3"] {
            assert!(parse_version(text).is_err(), "{text}");
        }
    }
}
