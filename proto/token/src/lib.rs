//! Tokens that a provider issued (JWT): whether one counts, and what it says.
//!
//! Always holds: what a token says is told to nobody before its signature, its issuer, its audience and its times were
//! checked ([`Rules::check`]); with which algorithms a provider signs is decided by who trusts it, never by the token; no
//! key is used for another algorithm than its own, and no secret key for any; how often keys are fetched is not for callers
//! to decide ([`keep`]). Errors name what is wrong and quote nothing of a token.
//!
//! [`Compact`], [`KeySet`], [`Rules`] and [`Claims`] are pure; [`Fetcher`], [`discover`] and [`Keeper`] speak HTTP.
//! [`Provider`] is both together. What claims mean to Gantry is for each plane to say.
//!
//! The signatures are those of aws-lc-rs, which is there for TLS; the form is read here, in 400 lines that refuse what
//! general libraries let pass (members that stand twice, critical headers, keys of the wrong kind or too small).

mod algorithm;
mod binding;
mod claims;
mod compact;
mod discovery;
mod fetch;
mod json;
mod keeper;
mod key_set;
mod provider;
mod rules;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use binding::{Binding, Thumbprint};
pub use claims::{ClaimPath, ClaimPathError, Claims};
pub use compact::{Compact, TOKEN_BYTES_MAX};
pub use discovery::{DiscoveryError, Metadata, discover};
pub use fetch::{Answer, FetchError, Fetcher, FetcherError, PlainHttp};
pub use keeper::{Keeper, KeeperSettings, Keys, KeysError, Source, keep};
pub use key_set::{KEYS_MAX, KeySet, KeySetError};
pub use provider::{Provider, VerifyError};
pub use rules::{Rules, RulesError, TokenError, Trusted};
