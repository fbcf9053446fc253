//! Keeping the keys of a provider: fetched ahead, and no oftener than decided here.
//!
//! Always holds: one fetch at a time, whoever waits for it; a token of an unknown key makes at most one fetch in
//! [`KeeperSettings::unknown_interval`], whatever ids strangers make up; keys that cannot be refreshed count on for
//! [`KeeperSettings::stale_max`], and not longer. Callers never fetch: [`Keeper::run`] does, and ends when it is dropped.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use url::Url;

use crate::discovery::{DiscoveryError, discover};
use crate::fetch::{FETCH_DEADLINE, FetchError, Fetcher};
use crate::key_set::{KeySet, KeySetError};

/// How long a caller waits for keys: metadata and keys, each with its deadline.
const WAIT_MAX: Duration = Duration::from_secs(2 * FETCH_DEADLINE.as_secs() + 1);

/// Where the keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Where the metadata of this issuer says.
    Issuer(String),
    /// At this address.
    Jwks(Url),
}

/// How often keys are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeeperSettings {
    /// How old they become. Providers show new keys for hours before they sign with them.
    pub refresh_interval: Duration,
    /// How long after any fetch the next one may be made for a key that is not known.
    pub unknown_interval: Duration,
    /// First pause after a fetch that failed; it doubles up to `refresh_interval`.
    pub retry_first: Duration,
    /// How long keys count that cannot be refreshed.
    pub stale_max: Duration,
}

impl Default for KeeperSettings {
    fn default() -> KeeperSettings {
        KeeperSettings {
            refresh_interval: Duration::from_secs(10 * 60),
            unknown_interval: Duration::from_secs(30),
            retry_first: Duration::from_secs(1),
            stale_max: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// The keys of a provider, as they are known. Clones are the same.
#[derive(Debug, Clone)]
pub struct Keys {
    known: watch::Receiver<Known>,
    ask: Arc<Notify>,
    settings: KeeperSettings,
}

/// Fetches the keys of a provider.
#[derive(Debug)]
pub struct Keeper {
    source: Source,
    fetcher: Fetcher,
    settings: KeeperSettings,
    known: watch::Sender<Known>,
    ask: Arc<Notify>,
}

/// Why no keys are known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// They were never had, or too long ago.
    #[error("the keys of the provider cannot be had: {0}")]
    Failed(String),
    /// Nobody fetches them.
    #[error("the keys of the provider are not fetched any more")]
    Ended,
}

#[derive(Debug, Clone, Default)]
struct Known {
    keys: Option<(Arc<KeySet>, Instant)>,
    /// Fetches that have ended.
    fetches: u64,
    last: Option<Instant>,
    failure: Option<String>,
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    #[error("the key set")]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Keys(#[from] KeySetError),
}

/// The keys at `source`, and who has to be run so that they are fetched.
pub fn keep(fetcher: Fetcher, source: Source, settings: KeeperSettings) -> (Keys, Keeper) {
    let (sender, known) = watch::channel(Known::default());
    let ask = Arc::new(Notify::new());
    let keeper = Keeper { source, fetcher, settings, known: sender, ask: ask.clone() };
    (Keys { known, ask, settings }, keeper)
}

impl Keys {
    /// The newest keys; waits for the first fetch where none has ended. Dropping the future is safe.
    pub async fn newest(&self) -> Result<Arc<KeySet>, KeysError> {
        let mut known = self.known.clone();
        let first = known.wait_for(|known| known.fetches > 0);
        let known = match tokio::time::timeout(WAIT_MAX, first).await {
            Ok(Ok(known)) => known.clone(),
            Ok(Err(_)) => return Err(KeysError::Ended),
            Err(_) => return Err(KeysError::Failed("they take too long".to_owned())),
        };
        match known.keys {
            Some((keys, fetched_at)) if fetched_at.elapsed() <= self.settings.stale_max => Ok(keys),
            _ => Err(KeysError::Failed(known.failure.unwrap_or_else(|| "they are too old".to_owned()))),
        }
    }

    /// The newest keys, where they are known and not too old. Nobody waits.
    pub fn at_hand(&self) -> Option<Arc<KeySet>> {
        let known = self.known.borrow();
        let (keys, fetched_at) = known.keys.as_ref()?;
        (fetched_at.elapsed() <= self.settings.stale_max).then(|| keys.clone())
    }

    /// Newer keys than these, for a token of a key that is not among them; `None`: there are none now.
    pub async fn newer(&self, than: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        let mut known = self.known.clone();
        let before = known.borrow().clone();
        let other = |known: &Known| {
            let keys = known.keys.as_ref().map(|(keys, _)| keys.clone());
            keys.filter(|keys| !Arc::ptr_eq(keys, than))
        };
        if let Some(newer) = other(&before) {
            return Some(newer);
        }
        if before.last.is_some_and(|last| last.elapsed() < self.settings.unknown_interval) {
            return None;
        }
        self.ask.notify_one();
        let fetched = known.wait_for(|known| known.fetches > before.fetches);
        let fetched = tokio::time::timeout(WAIT_MAX, fetched).await.ok()?.ok()?.clone();
        other(&fetched)
    }
}

impl Keeper {
    /// Fetches the keys in time, and when a token names one that is not known. Never ends; dropping the future is safe.
    pub async fn run(self) -> Infallible {
        let mut retry = self.settings.retry_first;
        let mut text = Bytes::new();
        loop {
            let fetched = self.fetch().await;
            let now = Instant::now();
            let pause = match fetched {
                Ok((fetched, keys)) => {
                    retry = self.settings.retry_first;
                    let is_same = std::mem::replace(&mut text, fetched.clone()) == fetched;
                    self.known.send_modify(|known| {
                        // Whatever was verified by the same keys stays so.
                        let before = known.keys.take().map(|(keys, _)| keys).filter(|_| is_same);
                        known.keys = Some((before.unwrap_or_else(|| Arc::new(keys)), now));
                        (known.fetches, known.last, known.failure) = (known.fetches + 1, Some(now), None);
                    });
                    self.settings.refresh_interval
                }
                Err(failure) => {
                    let told = chain(&failure);
                    tracing::warn!(source = ?self.source, failure = told, "the keys of a provider were not fetched");
                    self.known.send_modify(|known| {
                        (known.fetches, known.last, known.failure) =
                            (known.fetches + 1, Some(now), Some(told));
                    });
                    let pause = retry;
                    retry = (retry * 2).min(self.settings.refresh_interval);
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.asked(now) => {}
            }
        }
    }

    /// Waits until somebody asks, as early as that may be heard.
    async fn asked(&self, last: Instant) {
        tokio::time::sleep_until(last + self.settings.unknown_interval).await;
        self.ask.notified().await;
    }

    async fn fetch(&self) -> Result<(Bytes, KeySet), Failure> {
        let url = match &self.source {
            Source::Issuer(issuer) => discover(&self.fetcher, issuer).await?.jwks_uri,
            Source::Jwks(url) => url.clone(),
        };
        let text = self.fetcher.get(&url).await?;
        let keys = KeySet::parse(&text)?;
        Ok((text, keys))
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
