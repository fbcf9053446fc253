//! `gantry connect`: an endpoint as a server of standard input and output, for agents that speak nothing else.
//!
//! Always holds: standard output has messages only; a key is never an argument, and goes to the URL that was named.

use std::path::PathBuf;

use http::{HeaderName, HeaderValue};

use super::call::{is_loopback, parse_url};
use crate::context::{SecretText, read_secret};
use crate::failure::{Exit, Failure};
use crate::mcp::{Relay, Target};
use crate::output;

/// Variables with an agent key, the first before the second.
const KEY_VARIABLES: [&str; 2] = ["GANTRY_KEY", "GANTRY_AGENT_KEY"];

/// Headers that are the relay's own, or that a secret would stand in.
const RESERVED: [&str; 8] = [
    "accept",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    "x-api-key",
];

/// Serve MCP by standard input and output, and forward it to an endpoint.
///
/// For agents that start their servers as a child process: name `gantry connect URL` as the server's command.
#[derive(Debug, clap::Args)]
pub(crate) struct Connect {
    /// URL of the endpoint.
    url: String,
    /// File with the agent's key; else GANTRY_KEY or GANTRY_AGENT_KEY.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// A header for every request; never a secret. Repeatable.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// PEM file with a certificate to trust, for an endpoint with one of its own.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl Connect {
    /// Runs until standard input ends.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let url = parse_url(&self.url)?;
        let key = match &self.key_file {
            Some(path) => Some(read_secret(path)?),
            None => key_of_environment(),
        };
        if url.scheme() == "http" && key.is_some() && !is_loopback(&url) {
            output::warn(&format!("the agent key goes to {url} unencrypted"));
        }
        let next = match &key {
            Some(_) => format!(
                "check that {url} is the endpoint's URL and that it runs; `gantry status` on its side"
            ),
            None => {
                "name a key with `--key-file FILE` or GANTRY_KEY, where the endpoint wants one".to_owned()
            }
        };
        let target = Target { url, key, certificate: self.ca_file };
        let relay = Relay::new(target, self.headers, next)
            .map_err(|error| Failure::error(error.to_string(), "`gantry connect --help`"))?;
        relay.run().await?;
        Ok(Exit::Done)
    }
}

fn key_of_environment() -> Option<SecretText> {
    let set = KEY_VARIABLES.into_iter().filter_map(|name| std::env::var(name).ok());
    set.into_iter().find(|key| !key.is_empty()).map(SecretText::new)
}

/// Reads `NAME=VALUE`.
fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a header is NAME=VALUE")?;
    let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is no header's name"))?;
    HeaderValue::from_str(value).map_err(|_| format!("{name} cannot have this value"))?;
    if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("mcp-") {
        return Err(format!("{name} cannot be set; a key is read from a file or the environment"));
    }
    Ok((name.as_str().to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_taken_unless_it_is_the_relays_own_or_a_secret() {
        assert_eq!(parse_header("X-Team=a=b"), Ok(("x-team".to_owned(), "a=b".to_owned())));
        for refused in ["Authorization=Bearer x", "Mcp-Name=x", "X-Team", "x y=1", "x=\n"] {
            assert!(parse_header(refused).is_err(), "{refused}");
        }
    }
}
