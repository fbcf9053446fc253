//! Where the admin service is and what proves the admin, a token or a certificate: flags, environment, or a context file, of
//! `gantry dev` or of a cluster.
//!
//! Always holds: a token is sent only to the address that it belongs to, and only over loopback or over TLS to a control
//! plane that the authority of the cluster has named; a context file that others can read is not used.

mod certificate;
mod cluster;
mod file;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_node::tls::{Certified, Trust, read_authorities};
use url::{Host, Url};

use crate::failure::{Failure, chain};
use cluster::ClusterContext;
pub(crate) use file::{Context, ContextError, ContextFile, SecretText};

/// Where `gantry dev` leaves its context unless it is told otherwise, from the working directory.
pub(crate) const CONTEXT_PATH: &str = ".gantry/context.json";

/// The flags by which every admin verb finds the admin service.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Access {
    /// Address of the admin service, such as 127.0.0.1:8081.
    #[arg(long, env = "GANTRY_ADMIN", value_name = "HOST:PORT")]
    admin: Option<String>,
    /// File with the admin token.
    #[arg(long, env = "GANTRY_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificate of the cluster's authority, as PEM: the admin service is reached over TLS.
    #[arg(long, env = "GANTRY_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Your certificate in place of a token: a file of `gantry admin certificate`, or PEM with --key and --ca.
    #[arg(long, env = "GANTRY_CERT", value_name = "FILE", conflicts_with = "token_file")]
    cert: Option<PathBuf>,
    /// The key of --cert, as PEM, where that holds none.
    #[arg(long, env = "GANTRY_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    #[command(flatten)]
    context: ContextFlag,
}

/// The flag that names the context file.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ContextFlag {
    /// Context file of `gantry dev`; found as .gantry/context.json here or in a parent when absent.
    #[arg(long, env = "GANTRY_CONTEXT", value_name = "FILE", help_heading = "Connection")]
    context: Option<PathBuf>,
}

/// How the admin service is reached.
#[derive(Debug)]
pub(crate) struct AdminAccess {
    /// Where it is.
    pub(crate) address: AdminAddress,
    /// Whom to believe that it is there; `None`: without TLS.
    pub(crate) trust: Option<Arc<Trust>>,
    /// What proves the admin.
    pub(crate) proof: Proof,
    /// The tenant that is meant when none is named.
    pub(crate) tenant: Option<String>,
}

/// What proves an admin.
#[derive(Debug)]
pub(crate) enum Proof {
    /// On each call.
    Token(SecretText),
    /// In the handshake; there is TLS.
    Certificate(Certified),
}

/// Host and port of an admin service: on loopback, or anywhere for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdminAddress(Url);

impl AdminAddress {
    /// Reads `HOST:PORT`, with `http://` before it or not.
    pub(crate) fn parse(text: &str) -> Result<AdminAddress, Failure> {
        AdminAddress::parse_as("admin address", "--admin", text)
    }

    /// As [`AdminAddress::parse`]; a failure names what the address is of, and the flag that says it.
    pub(crate) fn parse_as(what: &str, flag: &str, text: &str) -> Result<AdminAddress, Failure> {
        let url = AdminAddress::read(what, flag, text)?;
        let is_loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if !is_loopback {
            let encrypted = match flag {
                "--admin" => "name the certificate of the cluster's authority with --ca FILE",
                _ => "join the cluster with --join-token-file FILE",
            };
            return Err(Failure::error(
                format!("{what} {text:?} is not on this machine, and the token would travel unencrypted"),
                format!(
                    "{encrypted}, or forward the port to this machine, such as `ssh -L 8081:127.0.0.1:8081 HOST`"
                ),
            ));
        }
        Ok(AdminAddress(url))
    }

    /// Reads `HOST:PORT`, with `https://` before it or not, for TLS.
    fn parse_secured(text: &str) -> Result<AdminAddress, Failure> {
        let bare = text.strip_prefix("https://").unwrap_or(text);
        Ok(AdminAddress(AdminAddress::read("admin address", "--admin", bare)?))
    }

    fn read(what: &str, flag: &str, text: &str) -> Result<Url, Failure> {
        let next = format!("name it as HOST:PORT, such as `{flag} 127.0.0.1:8081`");
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&with_scheme)
            .map_err(|error| Failure::usage(format!("{what} {text:?}: {error}"), next.clone()))?;
        if url.scheme() != "http" || url.path() != "/" || url.query().is_some() {
            return Err(Failure::usage(format!("{what} {text:?} is not HOST:PORT"), next));
        }
        Ok(url)
    }

    /// The address as a URL.
    pub(crate) fn as_url(&self) -> &str {
        self.0.as_str()
    }
}

impl Access {
    /// Finds address and proof. The token of a context of `gantry dev` is used for the address of that only; that of a
    /// cluster is used for each member that the cluster's authority has named.
    pub(crate) fn resolve(&self) -> Result<AdminAccess, Failure> {
        let Some(kept) = self.context.cluster()? else { return self.find() };
        let tenant = kept.tenant.clone();
        Ok(AdminAccess { tenant, ..kept.fill(self).find()? })
    }

    /// The same by the flags alone, whatever is kept.
    pub(crate) fn given(&self) -> Result<AdminAccess, Failure> {
        Access { context: ContextFlag::default(), ..self.clone() }.find()
    }

    /// Keeps these flags for the next commands; where.
    pub(crate) fn keep(&self, tenant: Option<String>) -> Result<PathBuf, Failure> {
        let path = self.context.context.clone().unwrap_or_else(|| CONTEXT_PATH.into());
        if path.exists() && self.context.cluster()?.is_none() {
            let told = format!("{} is the context of a `gantry dev`", path.display());
            return Err(Failure::error(
                told,
                "name another file with `--context FILE`, or change to another directory",
            ));
        }
        ClusterContext::of(self, tenant)?.write(&path)?;
        Ok(path)
    }

    fn find(&self) -> Result<AdminAccess, Failure> {
        if self.admin.is_none() && (self.ca.is_some() || self.cert.is_some()) {
            return Err(Failure::usage("no admin service is named", "add `--admin HOST:PORT`"));
        }
        if let (Some(admin), Some(cert)) = (&self.admin, &self.cert) {
            let ca = self.ca.as_deref().map(trust).transpose()?;
            let (certified, trust) = certificate::read(cert, self.key.as_deref(), ca)?;
            return Ok(AdminAccess {
                address: AdminAddress::parse_secured(admin)?,
                trust: Some(trust),
                proof: Proof::Certificate(certified),
                tenant: self.context.find()?.map(|context| context.tenant),
            });
        }
        if let (Some(admin), Some(_), None) = (&self.admin, &self.ca, &self.token_file) {
            return Err(Failure::usage(
                format!("nothing proves to the admin service at {admin} who calls"),
                "add `--token-file FILE`, or `--cert FILE`",
            ));
        }
        let found = match (&self.admin, &self.token_file) {
            (Some(admin), Some(token_file)) => {
                let context = self.context.find()?;
                let (address, trust) = match &self.ca {
                    None => (AdminAddress::parse(admin)?, None),
                    Some(ca) => (AdminAddress::parse_secured(admin)?, Some(trust(ca)?)),
                };
                return Ok(AdminAccess {
                    address,
                    trust,
                    proof: Proof::Token(read_secret(token_file)?),
                    tenant: context.map(|context| context.tenant),
                });
            }
            _ => self.context.find()?,
        };
        let Some(context) = found else {
            return Err(no_context(self.admin.as_deref()));
        };
        let own = AdminAddress::parse(&context.admin_address)?;
        let address = match &self.admin {
            Some(admin) => AdminAddress::parse(admin)?,
            None => own.clone(),
        };
        let token = match &self.token_file {
            Some(token_file) => read_secret(token_file)?,
            None if address == own => context.admin_token,
            None => return Err(no_context(self.admin.as_deref())),
        };
        Ok(AdminAccess { address, trust: None, proof: Proof::Token(token), tenant: Some(context.tenant) })
    }
}

fn trust(ca: &Path) -> Result<Arc<Trust>, Failure> {
    let next = "name the certificate of the cluster's authority, as PEM";
    let authorities = read_authorities(ca).map_err(|error| Failure::error(chain(&error), next))?;
    Trust::new(&authorities)
        .map_err(|error| Failure::error(format!("{}: {}", ca.display(), chain(&error)), next))
}

impl AdminAccess {
    /// The tenant that was named, else the one of the context.
    pub(crate) fn tenant_or(&self, named: Option<&str>) -> Result<String, Failure> {
        named.map(str::to_owned).or_else(|| self.tenant.clone()).ok_or_else(|| {
            Failure::usage("no tenant is named", "add `--tenant NAME`; `gantry get tenants` lists them")
        })
    }
}

impl ContextFlag {
    /// The context of a `gantry dev`: of the file that was named, else of the nearest `.gantry/context.json`; `None`: there
    /// is none, or it is that of a cluster.
    pub(crate) fn find(&self) -> Result<Option<ContextFile>, Failure> {
        match self.read()? {
            Some(Context::Dev(context)) => Ok(Some(context)),
            Some(Context::Cluster(_)) | None => Ok(None),
        }
    }

    fn cluster(&self) -> Result<Option<ClusterContext>, Failure> {
        match self.read()? {
            Some(Context::Cluster(context)) => Ok(Some(context)),
            Some(Context::Dev(_)) | None => Ok(None),
        }
    }

    fn read(&self) -> Result<Option<Context>, Failure> {
        let path = match &self.context {
            Some(path) => path.clone(),
            None => match nearest_context() {
                Some(path) => path,
                None => return Ok(None),
            },
        };
        Context::read(&path).map(Some).map_err(|error| {
            let next = match &error {
                ContextError::OthersCanRead { path } => {
                    format!("`chmod 600 {}`", shell_words::quote(&path.to_string_lossy()))
                }
                ContextError::Read { .. } | ContextError::Format { .. } | ContextError::Write { .. } => {
                    "`gantry dev` writes a new one; or name another with `--context FILE`".to_owned()
                }
            };
            Failure::error(chain(&error), next)
        })
    }
}

fn no_context(admin: Option<&str>) -> Failure {
    match admin {
        Some(admin) => Failure::error(
            format!("there is no token for the admin service at {admin}"),
            "add `--token-file FILE`",
        ),
        None => Failure::error(
            format!("no admin service is known: there is no {CONTEXT_PATH} here or in a parent directory"),
            "start one with `gantry dev`, or name one with `--admin HOST:PORT --token-file FILE`",
        ),
    }
}

fn nearest_context() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors().map(|directory| directory.join(CONTEXT_PATH)).find(|path| path.is_file())
}

/// Reads a secret from a file, without the line end at its end.
pub(crate) fn read_secret(path: &Path) -> Result<SecretText, Failure> {
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::error(
            format!("{}: {error}", path.display()),
            "name a file that holds the secret and nothing else",
        )
    })?;
    let trimmed = text.trim_end_matches(['\r', '\n']);
    if trimmed.is_empty() {
        return Err(Failure::error(format!("{} is empty", path.display()), "write the secret into it"));
    }
    Ok(SecretText::new(trimmed.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_address_is_a_host_and_a_port_of_this_machine() -> Result<(), Failure> {
        for text in ["127.0.0.1:8081", "http://127.0.0.1:8081", "http://127.0.0.1:8081/"] {
            assert_eq!(AdminAddress::parse(text)?.as_url(), "http://127.0.0.1:8081/");
        }
        assert_eq!(AdminAddress::parse("[::1]:1")?.as_url(), "http://[::1]:1/");
        assert_eq!(AdminAddress::parse("localhost:1")?.as_url(), "http://localhost:1/");
        for text in ["https://127.0.0.1:1", "http://127.0.0.1:1/x", "10.0.0.1:1", "example.com:1", ""] {
            assert!(AdminAddress::parse(text).is_err(), "{text}");
        }
        Ok(())
    }
}
