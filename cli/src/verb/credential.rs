//! `gantry credential put`: a secret into the vault, from a file or standard input, never from the command line.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use gantry_model::Secret;
use gantry_wire::admin_v1::PutCredentialRequest;

use crate::admin::Admin;
use crate::change::{self, Changed, WriteFlags};
use crate::failure::{Exit, Failure};
use crate::output;

/// Most bytes that are read: far above any secret that fits into a header, so that a wrong file is noticed.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Put secrets into the vault. No command gives one back.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Credential {
    /// Put the secret of a credential, from a file or from standard input.
    Put(Put),
}

/// `gantry credential put`.
#[derive(Debug, clap::Args)]
pub(crate) struct Put {
    /// The credential, as a Credential document names it.
    name: String,
    /// Its tenant; the one of the context when absent.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// File with the secret; standard input when absent. A line end at its end is left out.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    write: WriteFlags,
}

impl Credential {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Credential::Put(put) => put.run().await,
        }
    }
}

impl Put {
    async fn run(self) -> Result<Exit, Failure> {
        let access = self.write.access.resolve()?;
        let tenant = access.tenant_or(self.tenant.as_deref())?;
        let secret = self.read()?;
        let admin = Admin::connect(&access).await?;
        let request = PutCredentialRequest {
            tenant: tenant.clone(),
            name: self.name.clone(),
            secret: secret.expose().clone(),
            expected_revision: self.write.expect,
        };
        let next = format!("`gantry get credentials --tenant {tenant}` lists the credentials");
        let answer = admin.ask(admin.service().put_credential(request), &next).await?;
        let stored = Changed { kind: "Credential".to_owned(), tenant, name: self.name, change: "stored" };
        output::say(&format!("version {} of the secret", answer.version));
        change::report(&admin, answer.revision, vec![stored], &self.write.report).await
    }

    fn read(&self) -> Result<Secret<Vec<u8>>, Failure> {
        let unreadable = |error: io::Error| {
            let name = self.file.as_ref().map_or("stdin".to_owned(), |path| path.display().to_string());
            Failure::error(format!("{name} cannot be read: {error}"), "name a file with `--file FILE`")
        };
        let mut bytes = Vec::new();
        match &self.file {
            Some(path) => {
                let file = fs::File::open(path).map_err(unreadable)?;
                file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
            }
            None if io::stdin().is_terminal() => {
                return Err(Failure::usage(
                    "the secret is read from standard input, which is a terminal and would show it",
                    format!("`gantry credential put {} --file FILE`, or pipe the secret in", self.name),
                ));
            }
            None => {
                io::stdin().lock().take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
            }
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
            output::say("the line end at the end of the secret is left out");
        }
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let secret = Secret::new(bytes);
        match length {
            0 => Err(Failure::error("the secret is empty", "write the secret and nothing else")),
            1..=SECRET_BYTES_MAX => Ok(secret),
            _ => Err(Failure::error(
                format!("the secret has more than {SECRET_BYTES_MAX} bytes"),
                "check that it is the right file",
            )),
        }
    }
}
