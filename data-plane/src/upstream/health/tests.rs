//! Places and passes; the breaker has its own tests.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use super::*;

const CONCURRENCY: usize = 3;

fn health() -> Arc<Health> {
    let transport = Transport::Http { url: "http://127.0.0.1:9/mcp".parse().expect("a URL") };
    let spec = ServerSpec { concurrency: CONCURRENCY as u32, ..ServerSpec::new(transport) };
    Arc::new(Health::new(&"files".parse().expect("a name"), &spec))
}

async fn admit(health: &Arc<Health>) -> Pass {
    health.admit_within(Duration::ZERO).await.expect("there is a place")
}

async fn refusal(health: &Arc<Health>) -> Option<Away> {
    health.admit_within(Duration::ZERO).await.err()
}

#[tokio::test]
async fn a_full_server_refuses_until_an_answer_is_through() {
    let health = health();
    let mut permits = Vec::new();
    for _ in 0..CONCURRENCY {
        permits.push(admit(&health).await.succeeded());
    }
    assert_eq!(refusal(&health).await, Some(Away::Busy));
    permits.pop();
    let pass = admit(&health).await;
    assert_eq!(refusal(&health).await, Some(Away::Busy));
    drop(pass);
    assert_eq!(refusal(&health).await, None);
}

#[tokio::test]
async fn who_waits_for_a_full_server_gets_the_place_that_becomes_free() {
    let health = health();
    let mut permits = Vec::new();
    for _ in 0..CONCURRENCY {
        permits.push(admit(&health).await.succeeded());
    }
    let mut waiting = pin!(health.admit_within(Duration::from_secs(60)));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    permits.pop();
    assert!(waiting.await.is_ok());
}

#[tokio::test]
async fn failures_of_the_transport_make_it_away_and_free_their_places() {
    let health = health();
    for failure in [
        Upstream::Unreachable,
        Upstream::Timeout(Duration::from_secs(1)),
        Upstream::Status(StatusCode::BAD_GATEWAY),
        Upstream::Status(StatusCode::SERVICE_UNAVAILABLE),
        Upstream::Status(StatusCode::GATEWAY_TIMEOUT),
    ] {
        assert!(!health.is_away());
        let judged = admit(&health).await.judge::<()>(Err(Rejection::Upstream(failure)));
        assert!(judged.is_err());
    }
    assert!(health.is_away());
    assert!(matches!(refusal(&health).await, Some(Away::Failing { .. })));
    assert_eq!(health.places.available_permits(), CONCURRENCY);
    health.answered();
    assert_eq!(refusal(&health).await, None);
}

#[tokio::test]
async fn what_a_server_says_itself_is_no_failure() {
    let health = health();
    for _ in 0..10 {
        for failure in [
            Upstream::Refused(StatusCode::FORBIDDEN),
            Upstream::Status(StatusCode::INTERNAL_SERVER_ERROR),
            Upstream::Protocol,
        ] {
            let judged = admit(&health).await.judge::<()>(Err(Rejection::Upstream(failure)));
            assert!(judged.is_err());
        }
        drop(admit(&health).await);
    }
    assert!(!health.is_away());
}
