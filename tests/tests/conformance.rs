//! The official conformance suite: the fixture passes all of it, so that it can measure a gateway.

use gantry_tests::conformance::{self, Setting, Status, Suite, Way};
use gantry_tests::dev::Options;
use gantry_tests::fixture::Era;
use gantry_tests::peers::or_skip;
use tokio::sync::Semaphore;

/// How many tests run a suite at once: with more, two processors are too few for the suite's own deadlines.
static TURNS: Semaphore = Semaphore::const_new(2);

async fn check_direct(suite: Suite, upstream: Era) {
    let _turn = TURNS.acquire().await.expect("it is never closed");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let setting = Setting { upstream, way: Way::Direct };
    let run = conformance::run(suite, folder.path(), &setting).await;
    let Some(comparison) = or_skip(run) else {
        return;
    };
    let counts = (
        comparison.direct.count(Status::Success),
        comparison.direct.count(Status::Failure),
        comparison.direct.count(Status::Warning),
    );
    assert_eq!(counts, (suite.fixture_passed(), 0, 0), "{comparison}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fixture_passes_the_released_suite() {
    check_direct(Suite::Released, Era::Dual).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fixture_passes_what_2025_11_25_requires() {
    check_direct(Suite::Requirements20251125, Era::Dual).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fixture_passes_what_2026_07_28_requires() {
    check_direct(Suite::Requirements20260728, Era::Dual).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fixture_of_one_era_passes_what_that_era_requires() {
    check_direct(Suite::Requirements20251125, Era::Legacy).await;
    check_direct(Suite::Requirements20260728, Era::Modern).await;
}

/// The whole point of the fixture: nothing gets worse when Gantry stands in front of it.
async fn check_through(suite: Suite, upstream: Era, way: Way) {
    let _turn = TURNS.acquire().await.expect("it is never closed");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = conformance::run(suite, folder.path(), &Setting { upstream, way }).await;
    let Some(comparison) = or_skip(run) else {
        return;
    };
    assert!(comparison.is_good(), "{comparison}");
}

fn gateway() -> Way {
    Way::Gateway(Options::default())
}

fn balanced() -> Way {
    Way::Balanced(Options::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_released_suite_finds_nothing_worse_through_the_gateway() {
    check_through(Suite::Released, Era::Dual, gateway()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_2025_11_25_requires_is_no_worse_through_the_gateway() {
    check_through(Suite::Requirements20251125, Era::Dual, gateway()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_2026_07_28_requires_is_no_worse_through_the_gateway() {
    check_through(Suite::Requirements20260728, Era::Dual, gateway()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_one_era_are_no_worse_for_their_own_era() {
    check_through(Suite::Requirements20251125, Era::Legacy, gateway()).await;
    check_through(Suite::Requirements20260728, Era::Modern, gateway()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_server_passes_what_2025_11_25_requires() {
    check_through(Suite::Released, Era::Modern, gateway()).await;
    check_through(Suite::Requirements20251125, Era::Modern, gateway()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_server_passes_what_2026_07_28_requires() {
    check_through(Suite::Requirements20260728, Era::Legacy, gateway()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_2026_07_28_are_no_worse_when_each_reaches_another_node() {
    check_through(Suite::Requirements20260728, Era::Dual, balanced()).await;
    check_through(Suite::Requirements20260728, Era::Legacy, balanced()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_no_worse_when_each_request_reaches_another_node() {
    check_through(Suite::Requirements20251125, Era::Dual, balanced()).await;
    check_through(Suite::Requirements20251125, Era::Modern, balanced()).await;
}
