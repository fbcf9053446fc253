//! Keys that are fetched from a provider: when, how often, and what comes of it when it fails.

use std::time::Duration;

use gantry_token::{
    Algorithm, Fetcher, KeeperSettings, KeysError, PlainHttp, Provider, Rules, Source, TokenError, Trusted,
    VerifyError, discover, keep,
};
use http::StatusCode;
use tokio::task::{AbortHandle, JoinSet};

use crate::provider::Served;
use crate::signer::{Signer, claims_with, jwks, now, trusted};

/// Ends what keeps the keys with the test.
struct Kept(Provider, AbortHandle);

impl Drop for Kept {
    fn drop(&mut self) {
        self.1.abort();
    }
}

/// So long that nothing happens by itself within a test.
const LONG: Duration = Duration::from_secs(3_600);

fn settings() -> KeeperSettings {
    KeeperSettings { refresh_interval: LONG, unknown_interval: LONG, retry_first: LONG, stale_max: LONG }
}

fn fetcher() -> Fetcher {
    Fetcher::new(&[], PlainHttp::OnLoopback).expect("a fetcher")
}

fn kept(served: &Served, settings: KeeperSettings) -> Kept {
    let (keys, keeper) = keep(fetcher(), Source::Issuer(served.issuer()), settings);
    let running = tokio::spawn(keeper.run()).abort_handle();
    let rules = Rules::new(Trusted { issuer: served.issuer(), ..trusted(&[Algorithm::Es256]) });
    Kept(Provider::new(rules.expect("rules"), keys), running)
}

fn token(served: &Served, signer: &Signer) -> String {
    signer.token(&claims_with("iss", served.issuer().into()))
}

async fn verify(kept: &Kept, token: &str) -> Result<String, VerifyError> {
    let claims = kept.0.verify(token, now()).await?;
    Ok(claims.subject().unwrap_or_default().to_owned())
}

/// Waits until the provider was asked for its keys so often.
async fn fetched(served: &Served, times: usize) {
    let asked = async {
        while served.fetches() < times {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.expect("fetched in time");
}

#[tokio::test]
async fn many_who_come_at_once_wait_for_one_fetch_and_later_ones_for_none() {
    let signer = Signer::p256("a");
    let served = Served::start(jwks(&[&signer])).await;
    let kept = kept(&served, settings());
    let token = token(&served, &signer);
    let mut asking = JoinSet::new();
    for _ in 0..50 {
        let (provider, token) = (kept.0.clone(), token.clone());
        asking.spawn(async move { provider.verify(&token, now()).await.map(|_| ()) });
    }
    assert_eq!(asking.join_all().await, vec![Ok(()); 50]);
    assert_eq!(verify(&kept, &token).await, Ok("alice".to_owned()));
    let asked = served.conduct.lock().expect("whole").asked.clone();
    assert_eq!(asked, ["/.well-known/openid-configuration", "/keys"]);
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it_and_the_old_one_is_gone_then() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let served = Served::start(jwks(&[&old])).await;
    let kept = kept(&served, KeeperSettings { unknown_interval: Duration::ZERO, ..settings() });
    assert_eq!(verify(&kept, &token(&served, &old)).await, Ok("alice".to_owned()));
    served.change(|conduct| conduct.keys = jwks(&[&new]));
    assert_eq!(verify(&kept, &token(&served, &new)).await, Ok("alice".to_owned()));
    assert_eq!(served.fetches(), 2);
    let gone = verify(&kept, &token(&served, &old)).await;
    assert_eq!(gone, Err(TokenError::UnknownKey.into()));
}

#[tokio::test]
async fn made_up_keys_make_no_fetches() {
    let signer = Signer::p256("a");
    let served = Served::start(jwks(&[&signer])).await;
    let kept = kept(&served, settings());
    let mut asking = JoinSet::new();
    for number in 0..200 {
        let token = token(&served, &Signer::p256(&format!("made-up-{number}")));
        let provider = kept.0.clone();
        asking.spawn(async move { provider.verify(&token, now()).await.map(|_| ()) });
    }
    assert_eq!(asking.join_all().await, vec![Err(TokenError::UnknownKey.into()); 200]);
    assert_eq!(served.fetches(), 1, "the one with which it began");
    // Nor does what is refused anyhow.
    let other = Signer::ed25519("made-up");
    assert_eq!(verify(&kept, &token(&served, &other)).await, Err(TokenError::Algorithm.into()));
}

#[tokio::test]
async fn a_storm_of_made_up_keys_makes_one_fetch_at_a_time() {
    let served = Served::start(jwks(&[&Signer::p256("a")])).await;
    let kept = kept(&served, KeeperSettings { unknown_interval: Duration::from_secs(1), ..settings() });
    fetched(&served, 1).await;
    let began = tokio::time::Instant::now();
    let stranger = token(&served, &Signer::p256("made-up"));
    let mut asking = JoinSet::new();
    for _ in 0..20 {
        let (provider, token) = (kept.0.clone(), stranger.clone());
        asking.spawn(async move {
            while began.elapsed() < Duration::from_millis(2_500) {
                let refused = provider.verify(&token, now()).await.map(|_| ());
                assert_eq!(refused, Err(TokenError::UnknownKey.into()));
                tokio::task::yield_now().await;
            }
        });
    }
    asking.join_all().await;
    fetched(&served, 2).await;
    let allowed = 1 + began.elapsed().as_secs() as usize + 1;
    assert!(served.fetches() <= allowed, "{} of {allowed}", served.fetches());
    assert_eq!(served.conduct.lock().expect("whole").most, 1);
}

#[tokio::test]
async fn keys_are_refreshed_ahead_and_count_on_while_that_fails_but_not_for_ever() {
    let signer = Signer::p256("a");
    let served = Served::start(jwks(&[&signer])).await;
    let quick = KeeperSettings {
        refresh_interval: Duration::from_millis(10),
        retry_first: Duration::from_millis(10),
        stale_max: LONG,
        ..settings()
    };
    let kept_long = kept(&served, quick);
    let token = token(&served, &signer);
    assert_eq!(verify(&kept_long, &token).await, Ok("alice".to_owned()));
    fetched(&served, 3).await;
    // Garbage in place of keys is a failure like another.
    for change in [
        |conduct: &mut crate::provider::Conduct| conduct.keys = b"{}".to_vec(),
        |conduct: &mut crate::provider::Conduct| conduct.status = Some(StatusCode::INTERNAL_SERVER_ERROR),
    ] {
        served.change(change);
        let asked = served.conduct.lock().expect("whole").asked.len();
        let more = async {
            while served.conduct.lock().expect("whole").asked.len() < asked + 4 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), more).await.expect("asked again");
        assert_eq!(verify(&kept_long, &token).await, Ok("alice".to_owned()));
    }
    drop(kept_long);

    // A keeper that may keep them for no time at all.
    served.change(|conduct| (conduct.status, conduct.keys) = (None, jwks(&[&signer])));
    let brief = kept(&served, KeeperSettings { stale_max: Duration::ZERO, ..settings() });
    let old = verify(&brief, &token).await;
    assert_eq!(old, Err(KeysError::Failed("they are too old".to_owned()).into()));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_does_not_answer_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let keys = format!("http://{}/keys", silent.local_addr().expect("an address")).parse().expect("a URL");
    let began = tokio::time::Instant::now();
    let given_up = fetcher().get(&keys).await.map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(given_up, Err("127.0.0.1 did not answer within 10s".to_owned()));
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn metadata_is_had_by_either_standard_and_of_nobody_else() {
    let signer = Signer::p256("a");
    let served = Served::start(jwks(&[&signer])).await;
    served.change(|conduct| conduct.is_oauth_alone = true);
    let found = discover(&fetcher(), &served.issuer()).await.expect("metadata");
    assert_eq!(found.jwks_uri.as_str(), format!("{}/keys", served.issuer()));
    served.change(|conduct| conduct.issuer = Some("https://id.example.com".to_owned()));
    let kept = kept(&served, settings());
    let refused = verify(&kept, &token(&served, &signer)).await;
    let told = "the metadata is that of another issuer".to_owned();
    assert_eq!(refused, Err(KeysError::Failed(told).into()));
    assert_eq!(served.fetches(), 0);
}

#[tokio::test]
async fn what_is_not_encrypted_elsewhere_or_too_long_is_not_taken() {
    let served = Served::start(Vec::new()).await;
    let keys = format!("{}/keys", served.issuer()).parse().expect("a URL");
    let fail = |answer: Result<bytes::Bytes, gantry_token::FetchError>| {
        answer.map(|_| ()).map_err(|error| error.to_string())
    };
    let strict = Fetcher::new(&[], PlainHttp::Refused).expect("a fetcher");
    assert_eq!(fail(strict.get(&keys).await), Err(format!("{keys} is not https")));
    let afar = "http://192.0.2.1/keys".parse().expect("a URL");
    assert_eq!(fail(fetcher().get(&afar).await), Err("http://192.0.2.1/keys is not https".to_owned()));
    assert_eq!(served.fetches(), 0);

    served.change(|conduct| conduct.keys = vec![b' '; 512 * 1024 + 1]);
    let long = "the answer of 127.0.0.1 is longer than 524288 bytes, or broke off".to_owned();
    assert_eq!(fail(fetcher().get(&keys).await), Err(long));
    // A redirect is not followed.
    let elsewhere = Served::start(jwks(&[&Signer::p256("a")])).await;
    served.change(|conduct| {
        conduct.keys.clear();
        conduct.status = Some(StatusCode::FOUND);
        conduct.location = Some(format!("{}/keys", elsewhere.issuer()));
    });
    assert_eq!(fail(fetcher().get(&keys).await), Err("127.0.0.1 answered 302 Found".to_owned()));
    assert_eq!(elsewhere.fetches(), 0);
}
