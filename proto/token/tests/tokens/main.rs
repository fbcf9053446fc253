//! Tokens from the outside: those of the standards, those that are refused, and providers that answer over HTTP.

mod fetching;
mod properties;
mod provider;
mod refusals;
mod signer;
mod vectors;
