//! Bans as they come: ahead of the updates, with them, and taken back.

use std::time::Duration;

use gantry_model::record::{Record, RecordKey, RecordValue};
use gantry_wire::encode_record;

use super::*;
use crate::identity::Principal;

fn tenant() -> TenantName {
    "acme".parse().expect("a name")
}

fn agent(name: &str) -> BanTarget {
    BanTarget::Agent(name.parse().expect("a name"))
}

fn ban(target: BanTarget) -> Arc<Ban> {
    let (by, reason) = ("ann".to_owned(), String::new());
    Arc::new(Ban { tenant: tenant(), target, by, reason, at_ms: 1, until_ms: None })
}

fn entry(target: BanTarget, revision: u64) -> wire::Entry {
    let ban = ban(target);
    let key = RecordKey::ban(&ban.tenant, &ban.target).to_string();
    let record = Record { revision: Revision(revision), value: RecordValue::Ban(ban) };
    wire::Entry { key, record: encode_record(&record).into() }
}

fn urgent(revision: u64, banned: &[BanTarget], lifted: &[BanTarget]) -> wire::Urgent {
    let key = |target: &BanTarget| RecordKey::ban(&tenant(), target).to_string();
    wire::Urgent {
        revision,
        upserts: banned.iter().map(|target| entry(target.clone(), revision)).collect(),
        deletes: lifted.iter().map(key).collect(),
        cluster_id: "c".to_owned(),
        ..wire::Urgent::default()
    }
}

fn configured(banned: &[BanTarget]) -> Configured {
    Configured::from([(tenant(), banned.iter().map(|target| ban(target.clone())).collect())])
}

fn who(name: &str) -> Who {
    Who::agent(&tenant(), &Principal { agent: name.parse().expect("a name"), user: None }, None)
}

fn refused(bans: &Bans) -> Vec<&'static str> {
    ["bot", "eve"].into_iter().filter(|name| bans.refusal(&who(name)).is_some()).collect()
}

#[test]
fn what_comes_ahead_counts_until_the_configuration_has_it() {
    let bans = Bans::default();
    bans.configure("c", Revision(5), configured(&[agent("eve")]));
    assert_eq!(refused(&bans), ["eve"]);
    // Made and lifted after the revision that the node has.
    bans.take(urgent(7, &[agent("bot")], &[agent("eve")])).expect("taken");
    assert_eq!(refused(&bans), ["bot"]);
    // An update of a revision before that says nothing of it.
    bans.configure("c", Revision(6), Configured::new());
    assert_eq!(refused(&bans), ["bot"]);
    bans.configure("c", Revision(8), configured(&[agent("eve")]));
    assert_eq!(refused(&bans), ["eve"], "it was lifted, and the other banned anew, by then");
    assert_eq!(bans.ahead().bans, []);
}

#[test]
fn the_same_word_twice_and_an_old_one_change_nothing() {
    let bans = Bans::default();
    bans.configure("c", Revision(5), Configured::new());
    bans.take(urgent(7, &[agent("bot")], &[])).expect("taken");
    bans.take(urgent(7, &[agent("bot")], &[])).expect("taken");
    bans.take(urgent(6, &[], &[agent("bot")])).expect("taken");
    bans.take(urgent(5, &[agent("eve")], &[])).expect("taken");
    assert_eq!(refused(&bans), ["bot"]);
}

#[test]
fn all_bans_take_the_place_of_what_came_up_to_their_revision() {
    let bans = Bans::default();
    bans.take(urgent(8, &[agent("bot")], &[])).expect("taken");
    let all = |revision| wire::Urgent { complete: true, ..urgent(revision, &[agent("eve")], &[]) };
    bans.take(all(9)).expect("taken");
    assert_eq!(refused(&bans), ["eve"]);
    bans.configure("c", Revision(8), Configured::new());
    assert_eq!(refused(&bans), ["eve"]);
    // A member that is behind knows nothing of what another one said before.
    bans.take(urgent(20, &[agent("bot")], &[])).expect("taken");
    bans.take(all(15)).expect("taken");
    assert_eq!(refused(&bans), ["bot", "eve"]);
}

#[test]
fn revisions_of_two_clusters_are_not_compared() {
    let bans = Bans::default();
    bans.configure("c", Revision(80), configured(&[agent("eve")]));
    bans.take(urgent(90, &[agent("bot")], &[])).expect("taken");
    assert_eq!(refused(&bans), ["bot", "eve"]);
    // Younger by its revision: it is in force at once, and lifts nothing of the other.
    let of_another = wire::Urgent {
        cluster_id: "d".to_owned(),
        complete: true,
        ..urgent(3, &[agent("bot")], &[agent("eve")])
    };
    bans.take(of_another).expect("taken");
    assert_eq!((refused(&bans), bans.ahead().cluster_id), (vec!["bot", "eve"], "d".to_owned()));
    // It is there still when the first configuration of that cluster is older, and the other's are gone.
    bans.configure("d", Revision(2), Configured::new());
    assert_eq!(refused(&bans), ["bot"]);
    bans.configure("d", Revision(3), Configured::new());
    assert_eq!(refused(&bans), [""; 0]);
    // What was ahead in one cluster is not in another.
    bans.configure("c", Revision(1), Configured::new());
    bans.take(urgent(2, &[agent("bot")], &[])).expect("taken");
    bans.configure("d", Revision(1), Configured::new());
    assert_eq!(refused(&bans), [""; 0]);
}

#[test]
fn each_kind_stops_what_it_names_and_nothing_else() {
    let key = |id: u8| gantry_model::key::KeyId([id; 8]);
    let session = |id: u8| gantry_model::SessionId([id; 12]);
    let server: ServerName = "files".parse().expect("a name");
    let bans = Bans::default();
    let targets = [BanTarget::Key(key(1)), BanTarget::Session(session(1)), BanTarget::Server(server.clone())];
    bans.configure("c", Revision(1), configured(&targets));
    let bot = who("bot");
    assert_eq!(bans.refusal(&Who { key: Some(key(1)), ..bot.clone() }), Some(BanTarget::Key(key(1))));
    let in_session = Who { session: Some(session(1)), ..bot.clone() };
    assert_eq!(bans.refusal(&in_session), Some(BanTarget::Session(session(1))));
    let called = |name: &str| Who { servers: vec![name.parse().expect("a name")], ..bot.clone() };
    assert_eq!(bans.refusal(&called("files")), Some(BanTarget::Server(server)));
    for free in [bot.clone(), called("mail"), Who { key: Some(key(2)), session: Some(session(2)), ..bot }] {
        assert_eq!(bans.refusal(&free), None, "{free:?}");
    }
    let elsewhere = Who { tenant: "globex".parse().expect("a name"), ..who("bot") };
    bans.configure("c", Revision(2), configured(&[BanTarget::Tenant]));
    let all = bans.refusal(&who("bot"));
    assert_eq!((all, bans.refusal(&elsewhere)), (Some(BanTarget::Tenant), None));
}

#[test]
fn what_is_ahead_survives_a_restart_on_the_configuration_of_its_cluster() {
    let bans = Bans::default();
    bans.configure("c", Revision(5), configured(&[agent("eve")]));
    bans.take(urgent(7, &[agent("bot")], &[agent("eve")])).expect("taken");
    let kept = bans.ahead();
    let restarted = Bans::default();
    restarted.configure("c", Revision(5), configured(&[agent("eve")]));
    restarted.restore(kept.clone()).expect("restored");
    assert_eq!(refused(&restarted), ["bot"]);
    // A later configuration was kept after it.
    let later = Bans::default();
    later.configure("c", Revision(7), configured(&[agent("eve")]));
    later.restore(kept.clone()).expect("restored");
    assert_eq!(refused(&later), ["eve"]);
    let other = Bans::default();
    other.configure("d", Revision(5), Configured::new());
    other.restore(kept).expect("restored");
    assert_eq!(refused(&other), [""; 0]);
}

#[tokio::test]
async fn whoever_begins_is_told_of_a_ban_before_or_after() {
    let bans = Arc::new(Bans::default());
    let early = bans.leash(who("bot"));
    let other = bans.leash(who("eve"));
    bans.take(urgent(1, &[agent("bot")], &[])).expect("taken");
    let soon = Duration::from_secs(5);
    assert_eq!(tokio::time::timeout(soon, early).await, Ok(agent("bot")));
    assert_eq!(tokio::time::timeout(soon, bans.leash(who("bot"))).await, Ok(agent("bot")));
    let mut other = std::pin::pin!(other);
    assert!(futures_util::poll!(&mut other).is_pending());
    bans.take(urgent(2, &[BanTarget::Tenant], &[])).expect("taken");
    assert_eq!(tokio::time::timeout(soon, other).await, Ok(BanTarget::Tenant));
}

#[test]
fn a_record_that_is_no_ban_is_refused_and_changes_nothing() {
    let bans = Bans::default();
    let misplaced = wire::Entry { key: "acme/ban/agent/eve".to_owned(), ..entry(agent("bot"), 1) };
    for upsert in [misplaced, wire::Entry { key: "acme/ban/tenant".to_owned(), record: vec![1, 2].into() }] {
        let urgent = wire::Urgent { upserts: vec![upsert], complete: true, ..urgent(0, &[], &[]) };
        assert!(bans.take(urgent).is_err());
    }
    assert_eq!(refused(&bans), [""; 0]);
}

#[test]
fn a_user_is_refused_with_every_agent_and_an_agent_without_him_is_not() {
    let bans = Bans::default();
    let user: gantry_model::UserId = "corp/ann".parse().expect("a user");
    bans.take(urgent(7, &[BanTarget::User(user.clone())], &[])).expect("taken");
    let for_user = |name: &str, user: Option<&str>| {
        let user = user.map(|user| user.parse().expect("a user"));
        bans.refusal(&Who { user, ..who(name) })
    };
    for name in ["bot", "eve"] {
        assert_eq!(for_user(name, Some("corp/ann")), Some(BanTarget::User(user.clone())));
        assert_eq!((for_user(name, Some("other/ann")), for_user(name, None)), (None, None));
    }
}
