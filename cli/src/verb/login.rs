//! `gantry login`: a token of the organisation's issuer, by which an admin is known.
//!
//! It is the device grant (RFC 8628): this machine shows an address and a code, and any browser anywhere does the rest, so
//! that it works on a jump host as on a laptop.
//!
//! Always holds: only the token is kept, in a file that only its owner can read. No refresh token is asked for: it would lie
//! there for weeks, and be worth as much as the admin. Whoever needs longer than the token counts logs in again.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_node::owner_only;
use gantry_node::tls::read_authorities;
use gantry_token::{Fetcher, Metadata, PlainHttp, discover};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use crate::context::SecretText;
use crate::failure::{Exit, Failure, chain};
use crate::output;

/// How long a code may count, whatever the issuer says: nobody waits longer.
const CODE_LIFE_MAX: Duration = Duration::from_secs(30 * 60);
/// How often is asked when the issuer does not say, and how much rarer when it asks for that (RFC 8628, 3.2 and 3.5).
const INTERVAL: u64 = 5;
const INTERVAL_MORE: u64 = 5;
/// Longest pause that an issuer may ask for.
const INTERVAL_MAX: u64 = 60;

/// Have a token of the organisation's issuer, which `gantry admin issuer put` has named, for --token-file.
#[derive(Debug, clap::Args)]
pub(crate) struct Login {
    /// The issuer's URL.
    #[arg(long, env = "GANTRY_ISSUER", value_name = "URL")]
    issuer: String,
    /// The id by which it knows the command line as a client, without a secret, with the device grant.
    #[arg(long, env = "GANTRY_CLIENT_ID", value_name = "ID")]
    client_id: String,
    /// Where the token goes; replaced when it is there.
    #[arg(long, env = "GANTRY_TOKEN_FILE", value_name = "FILE")]
    token_file: PathBuf,
    /// What is asked for; `openid` always is. May be repeated.
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// Certificates of authorities that the issuer may be served by, as PEM; the public ones when absent.
    #[arg(long, value_name = "FILE")]
    issuer_ca: Option<PathBuf>,
    /// Let the issuer be asked over http on loopback: for tests.
    #[arg(long)]
    plain_on_loopback: bool,
}

/// The answer to the first question.
#[derive(Deserialize)]
struct Begun {
    device_code: SecretText,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

/// The answer to the others.
#[derive(Deserialize)]
struct Given {
    id_token: Option<SecretText>,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

/// What comes of asking once.
enum Polled {
    Given(SecretText),
    Pending,
    TooOften,
}

impl Login {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let authorities = match &self.issuer_ca {
            None => Vec::new(),
            Some(path) => read_authorities(path)
                .map_err(|error| Failure::error(chain(&error), "name a PEM file with `--issuer-ca FILE`"))?,
        };
        let plain = if self.plain_on_loopback { PlainHttp::OnLoopback } else { PlainHttp::Refused };
        let fetcher = Fetcher::new(&authorities, plain)
            .map_err(|error| Failure::error(chain(&error), "name a PEM file with `--issuer-ca FILE`"))?;
        let metadata = discover(&fetcher, &self.issuer).await.map_err(|error| {
            let next = "name the issuer's URL as it calls itself with `--issuer URL`";
            Failure::new(Exit::Unavailable, format!("{}: {}", self.issuer, chain(&error)), next)
        })?;
        let (device, token) = endpoints(metadata)?;
        let begun = self.begin(&fetcher, &device).await?;
        let address = begun.verification_uri_complete.as_ref().unwrap_or(&begun.verification_uri);
        // What an issuer sends is for a browser and a person, and not for this terminal.
        let is_code = begun.user_code.chars().all(|one| one.is_ascii_graphic() || one == ' ');
        let address = Url::parse(address).ok().filter(|_| is_code).ok_or_else(unreadable)?;
        output::say(&format!("open {address}\nand confirm the code {}", begun.user_code));
        let id_token = self.wait(&fetcher, &token, &begun).await?;
        write(&self.token_file, &id_token).map_err(|error| {
            let told = format!("{} cannot be written: {error}", self.token_file.display());
            Failure::error(told, "name another file with `--token-file FILE`")
        })?;
        output::say(&format!("next: gantry admin whoami --token-file {}", self.token_file.display()));
        Ok(Exit::Done)
    }

    async fn begin(&self, fetcher: &Fetcher, device: &Url) -> Result<Begun, Failure> {
        let scope = self.scope.iter().fold("openid".to_owned(), |all, scope| format!("{all} {scope}"));
        let form = [("client_id", self.client_id.as_str()), ("scope", &scope)];
        let answer = fetcher.post(device, &form).await.map_err(|error| unavailable(&error))?;
        if !answer.status.is_success() {
            return Err(refused(&answer.body));
        }
        serde_json::from_slice(&answer.body).map_err(|_| unreadable())
    }

    /// Asks until somebody has confirmed the code, or it has ended.
    async fn wait(&self, fetcher: &Fetcher, token: &Url, begun: &Begun) -> Result<SecretText, Failure> {
        let ends = Instant::now() + Duration::from_secs(begun.expires_in).min(CODE_LIFE_MAX);
        let mut interval = begun.interval.unwrap_or(INTERVAL).min(INTERVAL_MAX);
        while Instant::now() < ends {
            tokio::time::sleep(Duration::from_secs(interval)).await;
            match self.poll(fetcher, token, begun).await? {
                Polled::Given(token) => return Ok(token),
                Polled::Pending => {}
                Polled::TooOften => interval = (interval + INTERVAL_MORE).min(INTERVAL_MAX),
            }
        }
        Err(Failure::error("nobody confirmed the code in time", "run `gantry login` again"))
    }

    async fn poll(&self, fetcher: &Fetcher, token: &Url, begun: &Begun) -> Result<Polled, Failure> {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("client_id", self.client_id.as_str()),
            ("device_code", begun.device_code.expose()),
        ];
        let answer = match fetcher.post(token, &form).await {
            Ok(answer) => answer,
            // It may answer the next time (RFC 8628, 3.5).
            Err(gantry_token::FetchError::Unreachable { .. } | gantry_token::FetchError::Deadline(_)) => {
                return Ok(Polled::TooOften);
            }
            Err(error) => return Err(unavailable(&error)),
        };
        if answer.status.is_success() {
            let given: Given = serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
            return given.id_token.map(Polled::Given).ok_or_else(|| {
                Failure::error("the issuer gave no id token", "let it give the client the scope `openid`")
            });
        }
        match serde_json::from_slice::<Refused>(&answer.body).map(|refused| refused.error).as_deref() {
            Ok("authorization_pending") => Ok(Polled::Pending),
            Ok("slow_down") => Ok(Polled::TooOften),
            _ => Err(refused(&answer.body)),
        }
    }
}

fn endpoints(metadata: Metadata) -> Result<(Url, Url), Failure> {
    let both = metadata.device_authorization_endpoint.zip(metadata.token_endpoint);
    both.ok_or_else(|| {
        let next = "let it offer the device authorization grant (RFC 8628), or make an admin with `gantry admin create`";
        Failure::error("the issuer does not offer what a machine without a browser needs", next)
    })
}

/// What the issuer says; of its words only those that the standards name.
fn refused(body: &[u8]) -> Failure {
    let said = serde_json::from_slice::<Refused>(body).map(|refused| refused.error).unwrap_or_default();
    let (told, next) = match said.as_str() {
        "access_denied" => ("the code was refused in the browser", "run `gantry login` again"),
        "expired_token" => ("nobody confirmed the code in time", "run `gantry login` again"),
        "invalid_client" | "unauthorized_client" => (
            "the issuer does not know this client, or does not let it use the device grant",
            "look at the client's settings at the issuer, and name it with `--client-id ID`",
        ),
        "invalid_scope" => ("the issuer does not give that scope", "leave it out of `--scope`"),
        _ => ("the issuer refuses", "look at the client's settings at the issuer"),
    };
    Failure::new(Exit::Denied, told, next)
}

fn unavailable(error: &gantry_token::FetchError) -> Failure {
    Failure::new(
        Exit::Unavailable,
        chain(error),
        "look whether the issuer runs, then run `gantry login` again",
    )
}

fn unreadable() -> Failure {
    Failure::error(
        "the issuer's answer cannot be read",
        "look whether `--issuer` names an issuer of OpenID Connect",
    )
}

/// Replaces the file as a whole.
fn write(path: &Path, token: &SecretText) -> io::Result<()> {
    owner_only::replace(path, format!("{}\n", token.expose()).as_bytes())
}
