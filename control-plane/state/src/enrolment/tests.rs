//! Who may be part of the cluster, by the rules that are promised.

use gantry_model::Labels;
use gantry_model::enrolment::{Authority, Revoked};
use gantry_model::identity::{PeerName, Serial};
use proptest::prelude::*;

use super::*;

const HASH: [u8; 32] = [7; 32];

fn any_node() -> JoinRole {
    JoinRole::Node { name: None, labels: Labels::default() }
}

fn node_named(name: &str) -> JoinRole {
    JoinRole::Node { name: Some(name.parse().expect("a name")), labels: Labels::default() }
}

fn token(id: u8, role: JoinRole) -> JoinToken {
    JoinToken { id: JoinTokenId([id; 8]), hash: HASH, role, expires_at_ms: 100, is_used: false }
}

fn with(tokens: Vec<JoinToken>) -> Enrolment {
    Enrolment { tokens, ..Enrolment::default() }
}

fn node(name: &str) -> Joiner {
    Joiner::Node(name.parse().expect("a name"))
}

fn using(id: u8, joiner: Joiner, now_ms: u64) -> EnrolmentChange {
    EnrolmentChange::UseJoinToken { id: JoinTokenId([id; 8]), hash: HASH, joiner, now_ms }
}

fn revocation(subject: Revoked, until_ms: u64) -> Revocation {
    Revocation { subject, until_ms }
}

fn serial(number: u32) -> Revoked {
    Revoked::Serial(Serial::new(&number.to_be_bytes()))
}

#[test]
fn a_token_is_used_once_in_time_by_whom_it_is_for() {
    let any = with(vec![token(1, any_node())]);
    let used = change(&any, &using(1, node("a"), 99)).expect("a good token");
    assert_eq!(used, with(vec![JoinToken { is_used: true, ..token(1, any_node()) }]));

    let refused = |enrolment: &Enrolment, using| change(enrolment, &using).expect_err("refused");
    assert_eq!(refused(&used, using(1, node("a"), 99)), EnrolmentRefusal::UsedToken);
    assert_eq!(refused(&any, using(1, node("a"), 100)), EnrolmentRefusal::ExpiredToken);
    assert_eq!(refused(&any, using(2, node("a"), 99)), EnrolmentRefusal::UnknownToken);
    let member = Joiner::ControlPlane(2);
    assert_eq!(refused(&any, using(1, member, 99)), EnrolmentRefusal::OtherRole(any_node()));
    let guessed = EnrolmentChange::UseJoinToken {
        id: JoinTokenId([1; 8]),
        hash: [8; 32],
        joiner: node("a"),
        now_ms: 99,
    };
    // Not even that it was used is told to who does not know the secret.
    assert_eq!(refused(&used, guessed), EnrolmentRefusal::WrongSecret);

    let named = node_named("a");
    let named_token = with(vec![token(1, named.clone())]);
    assert!(change(&named_token, &using(1, node("a"), 99)).is_ok());
    assert_eq!(refused(&named_token, using(1, node("b"), 99)), EnrolmentRefusal::OtherRole(named));
    let members = with(vec![token(1, JoinRole::ControlPlane)]);
    assert_eq!(
        refused(&members, using(1, node("a"), 99)),
        EnrolmentRefusal::OtherRole(JoinRole::ControlPlane)
    );
}

#[test]
fn a_members_number_is_given_once() {
    let enrolment = with(vec![token(1, JoinRole::ControlPlane), token(2, JoinRole::ControlPlane)]);
    let first = change(&enrolment, &using(1, Joiner::ControlPlane(2), 1)).expect("the next number");
    assert_eq!(first.last_member, 2);
    for taken in [0, 1, 2, 4, u64::MAX] {
        let refused = change(&first, &using(2, Joiner::ControlPlane(taken), 1)).expect_err("refused");
        assert_eq!(refused, EnrolmentRefusal::MemberTaken, "{taken}");
    }
    assert!(change(&first, &using(2, Joiner::ControlPlane(3), 1)).is_ok());
}

#[test]
fn tokens_are_forgotten_when_they_have_expired_and_not_before() {
    let mut enrolment = Enrolment::default();
    let put = |id: u32, expires_at_ms, now_ms| {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&id.to_be_bytes());
        let token = JoinToken { id: JoinTokenId(bytes), expires_at_ms, ..token(0, any_node()) };
        EnrolmentChange::PutJoinToken { token, now_ms }
    };
    for id in 0..JOIN_TOKENS_MAX as u32 {
        enrolment = change(&enrolment, &put(id, 100 + u64::from(id), 1)).expect("room");
    }
    assert_eq!(change(&enrolment, &put(9_999, 500, 99)), Err(EnrolmentRefusal::TooManyTokens));
    let later = change(&enrolment, &put(9_999, 500, 100)).expect("one has expired");
    assert_eq!(later.tokens.len(), JOIN_TOKENS_MAX);
    assert_eq!(change(&later, &put(9_999, 500, 101)), Err(EnrolmentRefusal::TokenExists));
}

#[test]
fn a_token_that_was_used_makes_room_for_another_and_is_remembered_until_then() {
    let tokens = (0..JOIN_TOKENS_MAX).map(|at| {
        let id = JoinTokenId((at as u64).to_be_bytes());
        JoinToken { id, is_used: [7, 9].contains(&at), ..token(0, any_node()) }
    });
    let mut enrolment = with(tokens.collect());
    for (id, forgotten) in [(201, 7), (202, 9)] {
        let put = EnrolmentChange::PutJoinToken { token: token(id, any_node()), now_ms: 1 };
        enrolment = change(&enrolment, &put).expect("room");
        let is_forgotten = |known: &JoinToken| known.id == JoinTokenId(u64::to_be_bytes(forgotten));
        assert!(!enrolment.tokens.iter().any(is_forgotten));
        assert_eq!(enrolment.tokens.len(), JOIN_TOKENS_MAX);
    }
    let put = EnrolmentChange::PutJoinToken { token: token(203, any_node()), now_ms: 1 };
    assert_eq!(change(&enrolment, &put), Err(EnrolmentRefusal::TooManyTokens), "all of them are good");
}

#[test]
fn revocations_are_forgotten_when_they_are_past_and_not_before() {
    let mut enrolment = Enrolment::default();
    let revoke = |number, until_ms, now_ms| EnrolmentChange::Revoke {
        revocation: revocation(serial(number), until_ms),
        now_ms,
    };
    for number in 1..=REVOCATIONS_MAX as u32 {
        enrolment = change(&enrolment, &revoke(number, 100 + u64::from(number), 1)).expect("room");
    }
    assert_eq!(change(&enrolment, &revoke(9_999, 500, 100)), Err(EnrolmentRefusal::TooManyRevocations));
    let again = change(&enrolment, &revoke(1, 500, 100)).expect("it is there already");
    assert_eq!(again.revocations.len(), REVOCATIONS_MAX);
    let later = change(&enrolment, &revoke(9_999, 500, 101)).expect("one is past");
    assert_eq!(later.revocations.len(), REVOCATIONS_MAX);
    assert!(!later.revocations.contains(&revocation(serial(1), 101)));
}

#[test]
fn the_authority_is_founded_once() {
    let authority = Authority { certificate: vec![1], key_nonce: [2; 12], key_sealed: vec![3] };
    let founding = EnrolmentChange::FoundAuthority(authority.clone());
    let founded = change(&Enrolment::default(), &founding).expect("there was none");
    assert_eq!(founded, Enrolment { authority: Some(authority), ..Enrolment::default() });
    assert_eq!(change(&founded, &founding), Err(EnrolmentRefusal::AuthorityExists));
}

fn changes() -> impl Strategy<Value = EnrolmentChange> {
    let joiner = prop_oneof![(0..5_u64).prop_map(Joiner::ControlPlane), Just(node("a")), Just(node("b"))];
    let role = prop_oneof![Just(JoinRole::ControlPlane), Just(any_node()), Just(node_named("a")),];
    let name: PeerName = "gantry://c/node/a".parse().expect("a name");
    let subject = prop_oneof![Just(Revoked::Name(name)), (0..4_u32).prop_map(serial)];
    prop_oneof![
        (0..4_u8, role, 0..10_u64, 0..10_u64).prop_map(|(id, role, expires_at_ms, now_ms)| {
            let token = JoinToken { expires_at_ms, ..token(id, role) };
            EnrolmentChange::PutJoinToken { token, now_ms }
        }),
        (0..4_u8, joiner, 0..10_u64).prop_map(|(id, joiner, now_ms)| using(id, joiner, now_ms)),
        (subject, 0..10_u64, 0..10_u64).prop_map(|(subject, until_ms, now_ms)| EnrolmentChange::Revoke {
            revocation: revocation(subject, until_ms),
            now_ms,
        }),
        (0..5_u64).prop_map(EnrolmentChange::RemoveMember),
        Just(EnrolmentChange::FoundAuthority(Authority {
            certificate: vec![1],
            key_nonce: [2; 12],
            key_sealed: vec![3],
        })),
    ]
}

proptest! {
    /// Against the log as it is: a change reads back as it was written, and so does what it leads to.
    #[test]
    fn whatever_the_history_it_reads_back_and_no_number_or_token_is_given_twice(
        history in prop::collection::vec(changes(), 1..60),
    ) {
        let mut enrolment = Enrolment::default();
        for made in &history {
            let message = gantry_wire::raft_v1::ChangeEnrolment::from(made);
            prop_assert_eq!(&EnrolmentChange::try_from(&message).expect("it reads back"), made);
            let Ok(changed) = change(&enrolment, made) else { continue };
            let message = gantry_wire::resource_v1::Enrolment::from(&changed);
            prop_assert_eq!(&Enrolment::try_from(&message).expect("it reads back"), &changed);
            if let EnrolmentChange::UseJoinToken { id, joiner, .. } = made {
                let token = |enrolment: &Enrolment| {
                    enrolment.tokens.iter().find(|token| token.id == *id).expect("it was used").clone()
                };
                prop_assert!(!token(&enrolment).is_used && token(&changed).is_used);
                if let Joiner::ControlPlane(member) = joiner {
                    prop_assert!(*member > enrolment.last_member);
                }
            }
            prop_assert!(changed.last_member >= enrolment.last_member);
            let is_removed = |member: &u64| changed.removed_members.contains(member);
            prop_assert!(enrolment.removed_members.iter().all(is_removed));
            enrolment = changed;
        }
    }
}

#[test]
fn removed_members_are_remembered_up_to_a_bound_and_those_below_count_as_removed() {
    let remove = |enrolment: &Enrolment, member| {
        change(enrolment, &EnrolmentChange::RemoveMember(member)).expect("remembered")
    };
    let (three, twice) = (remove(&Enrolment::default(), 3), remove(&remove(&Enrolment::default(), 3), 3));
    assert_eq!(twice, three);
    assert_eq!(remove(&three, 2).removed_members, [2, 3]);

    let full =
        (0..REMOVED_MEMBERS_MAX as u64).fold(Enrolment::default(), |before, at| remove(&before, 10 + 2 * at));
    assert_eq!((full.removed_members.len(), full.removed_members_below), (REMOVED_MEMBERS_MAX, 0));
    let beyond = remove(&full, 9_999);
    assert_eq!((beyond.removed_members.len(), beyond.removed_members_below), (REMOVED_MEMBERS_MAX, 11));
    assert_eq!(beyond.removed_members.first(), Some(&12));
    // One that is lower than all that are remembered is forgotten again, and counts as removed all the same.
    let lower = remove(&beyond, 4);
    assert_eq!((lower.removed_members.first(), lower.removed_members_below), (Some(&12), 11));
}
