//! The facts of a cluster, without which a control plane serves nobody: made by its founder, awaited by everybody else.
//!
//! Always holds: they are committed before anything is done with them.

use std::path::Path;

use gantry_control_state::{Command, Outcome};
use gantry_model::enrolment::EnrolmentChange;

use super::StartError;
use crate::raft::Consensus;
use crate::vault::Vault;

/// Opens the vault; on a first start, makes the cluster.
pub(crate) async fn open_vault(
    consensus: &Consensus,
    directory: &Path,
    is_founder: bool,
) -> Result<Vault, StartError> {
    if !is_founder {
        let mut revisions = consensus.feed().subscribe();
        while consensus.feed().latest().state.cluster().is_none() {
            revisions.changed().await.map_err(|_| StartError::Interrupted)?;
        }
    } else if consensus.feed().latest().state.cluster().is_none() {
        let path = directory.to_owned();
        let found = tokio::task::spawn_blocking(move || Vault::found(&path)).await;
        let cluster = found.map_err(|_| StartError::Interrupted)??;
        let committed = consensus.propose(Command::Bootstrap(cluster)).await?;
        if let Outcome::Refused(_) = committed.outcome {
            tracing::info!("the cluster was made by another start meanwhile");
        }
    }
    let state = consensus.feed().latest().state;
    let cluster = state.cluster().cloned().ok_or(StartError::Interrupted)?;
    let has_authority = cluster.enrolment.authority.is_some();
    let path = directory.to_owned();
    let unsealed = tokio::task::spawn_blocking(move || Vault::unseal(&path, &cluster)).await;
    let vault = unsealed.map_err(|_| StartError::Interrupted)??;
    if !has_authority {
        // A build before authorities made the cluster. When another process was faster, its authority is as good.
        let founding = EnrolmentChange::FoundAuthority(vault.found_authority()?);
        consensus.propose(Command::ChangeEnrolment(founding)).await?;
    }
    Ok(vault)
}
