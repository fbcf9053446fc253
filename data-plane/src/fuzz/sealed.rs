//! Sealed tokens: nothing opens but what was sealed here, for the purpose and owner that it was sealed for, until it
//! expires.
//!
//! An input is up to five lines: tenant, endpoint, agent, what is sealed, and a forgery. A fuzzer sees the tokens that
//! are sealed here and puts them into its inputs, so that forgeries are tried with keys that seal nothing.

use super::digest;
use super::mcp::seal::{Keyring, Owner, Purpose, SealError, TOKEN_BYTES_MAX};
use super::mcp::session::{SESSION_SECONDS_MAX, Session, SessionError};

const PURPOSES: [Purpose; 5] =
    [Purpose::Session, Purpose::Cursor, Purpose::State, Purpose::Task, Purpose::Stream];

/// Places of a token that are changed, one at a time.
const CHANGES: usize = 24;

/// What tokens are written in.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What a token is tried with.
struct Trial<'a> {
    purpose: Purpose,
    owner: Owner<'a>,
    plain: &'a [u8],
    /// In seconds since 1970.
    now: u64,
}

/// Five lines.
pub fn sealed(input: &[u8]) {
    let mut lines = input.splitn(5, |byte| *byte == b'\n').map(String::from_utf8_lossy);
    let mut next = || lines.next().unwrap_or_default().into_owned();
    // Names of resources have no `/`.
    let [tenant, endpoint, agent] = [next(), next(), next()].map(|name| name.replace('/', "-"));
    let (plain, forgery) = (next(), next());
    let owner = Owner { tenant: &tenant, endpoint: &endpoint, principal: &agent };
    let choice = digest(input);
    let purpose = PURPOSES[choice % PURPOSES.len()];
    let trial = Trial { purpose, owner, plain: plain.as_bytes(), now: choice as u64 };
    let (keys, unused) = (ring([2, 1]), ring([9, 8]));
    for purpose in PURPOSES {
        assert!(unused.open(purpose, owner, &forgery, trial.now).is_err(), "{forgery:?} opens");
    }
    let expires = trial.now + SESSION_SECONDS_MAX;
    let token = keys.seal(purpose, owner, expires, trial.plain);
    let stable = keys.seal_stable(purpose, owner, trial.plain);
    let (token, stable) = match (token, stable) {
        (Ok(token), Ok(stable)) => (token, stable),
        (token, stable) => {
            assert_eq!((token.err(), stable.err()), (Some(SealError::TooLong), Some(SealError::TooLong)));
            assert!(plain.len() > TOKEN_BYTES_MAX / 2);
            return;
        }
    };
    opens_until(&trial, &token, expires);
    opens_until(&trial, &stable, u64::MAX);
    let again = keys.seal_stable(purpose, owner, trial.plain);
    assert_eq!(again.as_ref(), Ok(&stable), "a stable token is the same each time");
    assert_ne!(keys.seal(purpose, owner, expires, trial.plain).as_ref(), Ok(&token), "another is not");
    others_do_not_open(&trial, &token);
    for changed in changed(&token, choice).into_iter().chain(spliced(&token, &stable, choice)) {
        let opened = keys.open(purpose, owner, &changed, trial.now);
        assert!(opened.is_err(), "{changed:?} opens, made from {token:?}");
    }
    sessions(owner, plain.clone(), trial.now);
}

/// A ring of the keys of some generations, the newest first.
fn ring<const N: usize>(generations: [u8; N]) -> Keyring {
    let keys = generations.map(|generation| (u32::from(generation), [generation; 32]));
    Keyring::new(keys.iter().map(|(generation, key)| (*generation, &key[..]))).expect("keys of 32 bytes")
}

fn opens_until(trial: &Trial<'_>, token: &str, expires: u64) {
    let open = |now| ring([2, 1]).open(trial.purpose, trial.owner, token, now);
    assert!(token.len() <= TOKEN_BYTES_MAX);
    assert!(token.bytes().all(|byte| (0x21..=0x7e).contains(&byte)), "a token is a header's value");
    for now in [0, trial.now, expires - 1] {
        assert_eq!(open(now).as_deref(), Ok(trial.plain));
    }
    for now in [expires, u64::MAX] {
        assert!(open(now).is_err(), "it opens at {now}");
    }
}

fn others_do_not_open(trial: &Trial<'_>, token: &str) {
    let Owner { tenant, endpoint, principal: agent } = trial.owner;
    let keys = ring([2, 1]);
    let longer = |name: &str| format!("{name}x");
    let (tenant_longer, endpoint_longer, agent_longer) = (longer(tenant), longer(endpoint), longer(agent));
    let others = [
        Owner { tenant: &tenant_longer, ..trial.owner },
        Owner { endpoint: &endpoint_longer, ..trial.owner },
        Owner { principal: &agent_longer, ..trial.owner },
        Owner { tenant: endpoint, endpoint: tenant, principal: agent },
        Owner { tenant, endpoint: agent, principal: endpoint },
    ];
    for other in others.into_iter().filter(|other| *other != trial.owner) {
        let opened = keys.open(trial.purpose, other, token, trial.now);
        assert!(opened.is_err(), "{other:?} opens what is {:?}'s", trial.owner);
    }
    for other in PURPOSES.into_iter().filter(|other| *other != trial.purpose) {
        let opened = keys.open(other, trial.owner, token, trial.now);
        assert!(opened.is_err(), "a token for {:?} is one for {other:?}", trial.purpose);
    }
    let open = |keys: Keyring| keys.open(trial.purpose, trial.owner, token, trial.now);
    assert_eq!(open(ring([3, 2])).as_deref(), Ok(trial.plain), "it outlives one change of the key");
    assert!(open(ring([4, 3])).is_err() && open(ring([1])).is_err(), "it does not outlive its key");
}

/// The token with one letter changed, at several places and at both ends; cut; and longer.
fn changed(token: &str, choice: usize) -> Vec<String> {
    let step = token.len().div_ceil(CHANGES);
    let places = (choice % step..token.len()).step_by(step).chain([0, token.len() - 1]);
    let mut changed: Vec<String> = places
        .map(|place| {
            let mut letters = token.as_bytes().to_vec();
            let value = ALPHABET.iter().position(|letter| *letter == letters[place]).expect("a letter");
            // One bit of the six differs.
            letters[place] = ALPHABET[value ^ (1 << ((choice + place) % 6))];
            String::from_utf8(letters).expect("ASCII")
        })
        .collect();
    changed.push(token[..choice % token.len()].to_owned());
    changed.extend(["A", "=", " ", "\n", "\0"].map(|more| format!("{token}{more}")));
    changed
}

/// The beginning of one token and the end of another of the same owner.
fn spliced(token: &str, other: &str, choice: usize) -> Option<String> {
    let cut = choice % token.len().min(other.len());
    let spliced = format!("{}{}", &token[..cut], &other[cut..]);
    (spliced != token && spliced != other).then_some(spliced)
}

/// A server's session id comes back as it was, or is refused for its length.
fn sessions(owner: Owner<'_>, upstream: String, now: u64) {
    let keys = ring([2, 1]);
    match Session::Relayed(upstream.clone()).seal(&keys, owner, now) {
        Ok(token) => match Session::open(&keys, owner, &token, now) {
            Ok(Session::Relayed(opened)) => assert_eq!(opened, upstream),
            other => panic!("{other:?} was sealed as a session of a server"),
        },
        Err(error) => assert_eq!(error, SessionError::TooLong),
    }
}
