//! `gantry admin request` and `gantry admin certificate`: certificates for admins.
//!
//! Always holds: a key stays on the machine where it was made, in a file that only its owner can read; a certificate
//! replaces the one before it only once the control plane has let its bearer in with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_node::membership::Membership;
use gantry_node::owner_only;
use gantry_node::tls::{CertificateRequest, Certified, Trust};
use gantry_wire::admin_v1::{AdminCertificate, CertifyAdminRequest, CertifyAdminResponse, WhoAmIRequest};
use pem::Pem;
use rustls::pki_types::CertificateDer;

use crate::admin::Admin as Client;
use crate::context::{Access, AdminAccess, Proof};
use crate::duration::Span;
use crate::failure::{Exit, Failure, chain};
use crate::moment::rfc3339;
use crate::output;

/// Longest request in bytes, as PEM: the control plane takes 4 KiB of what is in it.
const REQUEST_BYTES_MAX: u64 = 8 * 1024;

/// `gantry admin request`.
#[derive(Debug, clap::Args)]
pub(crate) struct MakeRequest {
    /// Where the new key goes; a new file.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// `gantry admin certificate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Certificate {
    /// Where key, certificate and authority go, together, for --cert; may be the file of the certificate that asks.
    #[arg(long, value_name = "FILE", required_unless_present = "request")]
    out: Option<PathBuf>,
    /// Certify the key of this request instead, as PEM, and print the certificate.
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    request: Option<PathBuf>,
    /// How long it counts, such as 8h; a day when absent, which is the longest.
    #[arg(long, value_name = "SPAN")]
    life: Option<Span>,
    #[command(flatten)]
    access: Access,
}

impl MakeRequest {
    /// Runs the command. The request is all that is on standard output.
    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        let request = new_request()?;
        let key = request.to_pem();
        owner_only::make(&self.key, key.expose().as_bytes()).map_err(|error| {
            let told = format!("{} cannot be written: {error}", self.key.display());
            Failure::error(told, "name a new file with `--key FILE`")
        })?;
        output::say("next: gantry admin create NAME --role ROLE --request FILE, by who may make admins");
        output::print(&request.request_to_pem())?;
        Ok(Exit::Done)
    }
}

impl Certificate {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let access = self.access.resolve()?;
        let Some(trust) = access.trust.clone() else {
            return Err(Failure::usage(
                "a certificate proves an admin over TLS only, and this control plane is reached without",
                "name the certificate of the cluster's authority with --ca FILE",
            ));
        };
        let Some(out) = &self.out else {
            let made = self.ask(&access, read_request(self.request.as_deref())?).await?;
            let certificate = made.certificate.as_ref().ok_or_else(unanswered)?;
            say(&made, certificate);
            output::print(&to_pem(&certificate.chain))?;
            return Ok(Exit::Done);
        };
        let request = new_request()?;
        let made = self.ask(&access, request.as_der().to_vec()).await?;
        let certificate = made.certificate.as_ref().ok_or_else(unanswered)?;
        let der = |parts: &[Vec<u8>]| parts.iter().cloned().map(CertificateDer::from).collect::<Vec<_>>();
        let authorities = der(&certificate.authorities);
        let certified = request.complete(der(&certificate.chain)).map_err(|error| unusable(&error))?;
        is_let_in(access, &certified, &trust).await?;
        let kept = Membership::keep(&request, certified, &authorities, out.clone()).await;
        kept.map_err(|error| Failure::error(chain(&error), "name another file with `--out FILE`"))?;
        say(&made, certificate);
        output::say(&format!("next: --cert {} in place of --token-file and --ca", out.display()));
        Ok(Exit::Done)
    }

    async fn ask(&self, access: &AdminAccess, request: Vec<u8>) -> Result<CertifyAdminResponse, Failure> {
        let client = Client::connect(access).await?;
        let request = CertifyAdminRequest {
            certificate_request: request,
            expires_in_seconds: self.life.map_or(0, |life| life.seconds),
        };
        client.ask(client.service().certify_admin(request), "`gantry admin whoami` shows who calls").await
    }
}

/// Whether the control plane believes the certificate: where it believes an organisation's authority, it does not.
async fn is_let_in(access: AdminAccess, certified: &Certified, trust: &Arc<Trust>) -> Result<(), Failure> {
    let proof = Proof::Certificate(certified.clone());
    let access = AdminAccess { proof, trust: Some(trust.clone()), ..access };
    let next =
        "where members show certificates of an organisation's authority, have that make the admins' too";
    let client = Client::connect(&access).await?;
    client.ask(client.service().who_am_i(WhoAmIRequest {}), next).await.map(|_| ())
}

/// The request in a file, as DER; empty without a file.
pub(super) fn read_request(path: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let next = "`gantry admin request --key FILE` makes a key and prints the request for it";
    let failed = |told: String| Failure::error(format!("{}: {told}", path.display()), next);
    let length = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if length > REQUEST_BYTES_MAX {
        return Err(failed(format!("longer than {REQUEST_BYTES_MAX} bytes")));
    }
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    CertificateRequest::read_pem(&text).ok_or_else(|| failed("no certificate request, as PEM".to_owned()))
}

/// A chain as PEM, leaf first.
pub(super) fn to_pem(chain: &[Vec<u8>]) -> String {
    chain.iter().map(|part| pem::encode(&Pem::new("CERTIFICATE", part.clone()))).collect()
}

fn say(made: &CertifyAdminResponse, certificate: &AdminCertificate) {
    let end = rfc3339(certificate.expires_at_ms);
    output::say(&format!(
        "certificate of {}, which ends {end}, and hangs on token {}",
        made.name, made.token_id
    ));
}

fn new_request() -> Result<CertificateRequest, Failure> {
    CertificateRequest::new()
        .map_err(|error| Failure::error(chain(&error), "the system gives no random numbers; try again"))
}

fn unanswered() -> Failure {
    let next = "compare `gantry --version` with the build that `gantry status` shows";
    Failure::error("there is no certificate in the answer", next)
}

fn unusable(error: &gantry_node::tls::CertifiedError) -> Failure {
    Failure::error(format!("the certificate cannot be used: {}", chain(error)), "run the command again")
}
