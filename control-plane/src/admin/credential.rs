//! Putting a credential's secret.
//!
//! Always holds: the secret is sealed before it is proposed and is wiped when the call ends; no answer shows it.

use gantry_control_state::{Command, Outcome};
use gantry_model::{CredentialName, ResourceId, Secret, TenantName};
use gantry_wire::admin_v1::{PutCredentialRequest, PutCredentialResponse};
use tonic::Status;

use super::call::Call;
use super::rejection::{parse, refused, require};
use crate::vault::{SECRET_BYTES_MAX, SecretError};

/// Attempts when others put secrets of the same tenant at the same moment; each loses to one that got through.
const ATTEMPTS_MAX: usize = 8;

pub(super) async fn put(
    call: &Call,
    mut request: PutCredentialRequest,
) -> Result<PutCredentialResponse, Status> {
    let secret = Secret::new(std::mem::take(&mut request.secret));
    let tenant: TenantName = parse("tenant", &request.tenant)?;
    let credential: CredentialName = parse("credential", &request.name)?;
    check(&secret)?;
    let mut refusals = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        let state = call.view().state;
        require(&state, &ResourceId::credential(&tenant, &credential))?;
        let (secret, tenant_key) = call
            .plane
            .vault
            .seal_secret(&state, &tenant, &credential, &secret)
            .map_err(|error| unsealed(&error))?;
        let version = secret.version;
        let command = call.guarded(Command::PutSecret { secret, tenant_key });
        let committed = call.propose(command).await?;
        match committed.outcome {
            Outcome::Refused(reasons) if call.expects() => return Err(refused(&reasons)),
            Outcome::Done(_) => return Ok(PutCredentialResponse { revision: committed.revision.0, version }),
            // Something that the seal binds moved on meanwhile; the next attempt starts from the newer state.
            Outcome::Refused(reasons) => refusals = reasons,
        }
    }
    Err(refused(&refusals))
}

/// A secret that could not be sent as a header would fail at each call; it is refused here, where it was typed.
fn check(secret: &Secret<Vec<u8>>) -> Result<(), Status> {
    let bytes = secret.expose();
    if bytes.is_empty() {
        return Err(Status::invalid_argument("the secret is empty"));
    }
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(Status::invalid_argument(format!(
            "the secret has {} bytes, more than {SECRET_BYTES_MAX}",
            bytes.len()
        )));
    }
    if bytes.iter().any(|byte| byte.is_ascii_control()) {
        return Err(Status::invalid_argument(
            "the secret has a line break or another control character, which no header may have; put it without",
        ));
    }
    Ok(())
}

fn unsealed(error: &SecretError) -> Status {
    let error: &dyn std::error::Error = error;
    tracing::error!(error, "a secret cannot be sealed");
    Status::internal("the vault cannot seal the secret; the control plane's log says why")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_no_header_can_carry_is_refused() {
        let refused = |bytes: &[u8]| check(&Secret::new(bytes.to_vec())).err().map(|status| status.code());
        assert_eq!(refused(b"hunter2"), None);
        assert_eq!(refused(&[b'x'; SECRET_BYTES_MAX]), None);
        for secret in [b"".as_slice(), b"hunter2\n", b"a\0b", &[b'x'; SECRET_BYTES_MAX + 1]] {
            assert_eq!(refused(secret), Some(tonic::Code::InvalidArgument));
        }
    }
}
