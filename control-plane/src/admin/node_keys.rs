//! Rotating the keys that nodes share.
//!
//! Always holds: one call makes one generation; two at once do not make two. The clock that says how long ago the last
//! rotation was is this process's, so it guards against haste, not against an adversary.

use std::time::Duration;

use gantry_control_state::{Command, Outcome};
use gantry_wire::admin_v1::{RotateNodeKeysRequest, RotateNodeKeysResponse};
use tonic::Status;

use super::call::Call;
use super::rejection::refused;
use crate::plane::now_ms;
use crate::vault::SecretError;

/// How long what nodes seal is good for. Nodes open what the generation before the newest sealed, and no older; a
/// second rotation within this time would end sessions that clients still hold.
const SEALED_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) async fn rotate(
    call: &Call,
    request: &RotateNodeKeysRequest,
) -> Result<RotateNodeKeysResponse, Status> {
    let now_ms = now_ms();
    let state = call.view().state;
    let rotated_at_ms = state.cluster().and_then(|cluster| cluster.node_keys_rotated_at_ms);
    if let Some(left) = rotated_at_ms.and_then(|rotated_at_ms| too_soon(rotated_at_ms, now_ms))
        && !request.force
    {
        let minutes = left.as_secs().div_ceil(60);
        return Err(Status::failed_precondition(format!(
            "the keys were rotated less than {} hours ago, and sessions sealed before that would end now; \
             wait {} h {:02} min, or add --force",
            SEALED_LIFETIME.as_secs() / 3600,
            minutes / 60,
            minutes % 60,
        )));
    }
    let command = call.plane.vault.rotate_node_keys(&state, now_ms).map_err(|error| unsealed(&error))?;
    let Command::RotateNodeKeys { generation, .. } = command else {
        return Err(Status::internal("the vault made another command"));
    };
    let committed = call.propose(command).await?;
    match committed.outcome {
        Outcome::Done(_) => Ok(RotateNodeKeysResponse { revision: committed.revision.0, generation }),
        Outcome::Refused(refusals) => Err(refused(&refusals)),
    }
}

/// How long to wait until everything sealed before the last rotation has expired; `None`: it has.
fn too_soon(rotated_at_ms: u64, now_ms: u64) -> Option<Duration> {
    // A rotation in the future is as if it were now.
    let passed = Duration::from_millis(now_ms.saturating_sub(rotated_at_ms));
    SEALED_LIFETIME.checked_sub(passed).filter(|left| !left.is_zero())
}

fn unsealed(error: &SecretError) -> Status {
    let error: &dyn std::error::Error = error;
    tracing::error!(error, "the keys of the nodes cannot be rotated");
    Status::internal("the vault cannot rotate the keys; the control plane's log says why")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_waits_until_what_was_sealed_before_the_last_one_has_expired() {
        let day = SEALED_LIFETIME.as_millis() as u64;
        assert_eq!(too_soon(5, 5), Some(SEALED_LIFETIME));
        assert_eq!(too_soon(5, 5 + day - 1), Some(Duration::from_millis(1)));
        assert_eq!(too_soon(5, 5 + day), None);
        assert_eq!(too_soon(day, 5), Some(SEALED_LIFETIME));
    }
}
