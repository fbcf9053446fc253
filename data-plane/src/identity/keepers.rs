//! The keys of providers, kept for all tenants that believe them.
//!
//! Always holds: keys of one place are fetched once, however many tenants name it, as long as one of them does; at most
//! [`KEEPERS_MAX`] places; at most [`WAITING_MAX`] callers wait for one of them, and whose key is known waits for nobody.
//! Keys are not kept over a restart: a node that restarts while a provider is away takes none of its tokens until it is
//! back, and API keys as ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use gantry_model::resource::IssuerSpec;
use gantry_token::{Fetcher, FetcherError, KeeperSettings, Keys, PlainHttp, Source, keep};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

/// Places whose keys are fetched at once: each is asked every ten minutes, which makes less than two questions a second.
const KEEPERS_MAX: usize = 1_024;
/// Callers that wait for keys of one place at once, none of whom is known yet: others are told to come again, so that
/// strangers with invented keys cannot take all the places that there are for requests.
pub(super) const WAITING_MAX: usize = 256;

/// Whose keys are fetched.
#[derive(Debug, Default)]
pub(crate) struct Keepers(Mutex<HashMap<String, Weak<Kept>>>);

/// The keys of one place; they are fetched until nobody has this any more.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) keys: Keys,
    pub(crate) waiting: Semaphore,
    _keeper: AbortOnDropHandle<()>,
}

/// Why keys cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error("the keys of {KEEPERS_MAX} other places are fetched already")]
    TooMany,
    #[error("the address of its keys is none")]
    Address(#[from] url::ParseError),
    #[error("nobody can be asked")]
    Fetcher(#[from] FetcherError),
    #[error("nothing runs that could ask")]
    NoRuntime,
}

impl Keepers {
    /// The keys of a provider; fetched from now on where they were not yet.
    pub(crate) fn of(&self, spec: &IssuerSpec) -> Result<Arc<Kept>, KeepError> {
        let (place, source) = match &spec.jwks_url {
            Some(url) => (format!("keys {url}"), Source::Jwks(url.parse()?)),
            None => (format!("issuer {}", spec.issuer), Source::Issuer(spec.issuer.clone())),
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.get(&place).and_then(Weak::upgrade) {
            return Ok(known);
        }
        kept.retain(|_, known| known.strong_count() > 0);
        if kept.len() >= KEEPERS_MAX {
            return Err(KeepError::TooMany);
        }
        let plain = if spec.is_plain() { PlainHttp::OnLoopback } else { PlainHttp::Refused };
        let (keys, keeper) = keep(Fetcher::new(&[], plain)?, source, KeeperSettings::default());
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| KeepError::NoRuntime)?;
        let keeper = runtime.spawn(async move {
            keeper.run().await;
        });
        let (waiting, _keeper) = (Semaphore::new(WAITING_MAX), AbortOnDropHandle::new(keeper));
        let begun = Arc::new(Kept { keys, waiting, _keeper });
        kept.insert(place, Arc::downgrade(&begun));
        Ok(begun)
    }

    /// Places whose keys are fetched now.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.values().filter(|known| known.strong_count() > 0).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(issuer: &str) -> IssuerSpec {
        serde_json::from_value(serde_json::json!({"issuer": issuer})).expect("a specification")
    }

    #[tokio::test]
    async fn keys_are_fetched_once_for_all_who_name_them_and_no_longer_than_somebody_does() {
        let keepers = Keepers::default();
        let one = keepers.of(&spec("https://id.example.com")).expect("kept");
        let same = keepers.of(&spec("https://id.example.com")).expect("kept");
        assert!(Arc::ptr_eq(&one, &same));
        let other = keepers.of(&spec("https://other.example.com")).expect("kept");
        assert_eq!(keepers.count(), 2);
        drop((one, same));
        assert_eq!(keepers.count(), 1);
        drop(other);
        assert_eq!(keepers.count(), 0);
    }

    #[tokio::test]
    async fn places_are_bounded_and_those_that_nobody_names_make_room() {
        let keepers = Keepers::default();
        let place = |number| spec(&format!("https://{number}.example.com"));
        let mut kept: Vec<_> =
            (0..KEEPERS_MAX).map(|number| keepers.of(&place(number)).expect("kept")).collect();
        assert!(matches!(keepers.of(&place(KEEPERS_MAX)), Err(KeepError::TooMany)));
        kept.pop();
        keepers.of(&place(KEEPERS_MAX)).expect("kept");
    }
}
