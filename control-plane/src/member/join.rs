//! Joining a cluster as a member, in a directory of its own.
//!
//! Always holds: the directory was new; a join that was cut short after the token was used leaves a directory that does
//! not start, and a number that nobody has.

use std::path::Path;
use std::sync::Arc;

use gantry_model::identity::Party;
use gantry_node::membership::{JoinedMember, Membership};
use gantry_node::tls::Trust;
use gantry_node::token::JoinToken;

use super::{IDENTITY, MakeError, Member, Place, keep_place, refuse_used};
use crate::raft::{self, VoterId};
use crate::start::{CONSENSUS_DIRECTORY, StartError, make_directory};
use crate::vault::Vault;

/// Joins with a token through the member whose services are at `address` (`HOST:PORT`), which gives it its number,
/// its certificate and the key file of the vault. With `trust` that member is believed for what its organisation has
/// certified, in place of what the token says.
pub async fn join(
    data_dir: &Path,
    token: &JoinToken,
    address: &str,
    mut place: Place,
    trust: Option<Arc<Trust>>,
) -> Result<Member, MakeError> {
    refuse_used(data_dir)?;
    make_directory(data_dir.to_owned()).await?;
    let joined = Membership::join_as_member(token, address, data_dir.join(IDENTITY), trust).await?;
    let JoinedMember { membership, key_file, members } = joined;
    let Party::ControlPlane(id) = membership.name().party else {
        return Err(MakeError::NotMember(membership.name().clone()));
    };
    let (directory, key_file) = (data_dir.to_owned(), key_file.ok_or(MakeError::NoKeyFile)?);
    let kept = tokio::task::spawn_blocking(move || Vault::keep_key_file(&directory, &key_file)).await;
    kept.map_err(|_| StartError::Interrupted)??;
    place.contacts = members;
    keep_place(data_dir, &place).await?;
    raft::make(data_dir.join(CONSENSUS_DIRECTORY), VoterId(id.get())).await.map_err(StartError::from)?;
    Ok(Member { id, membership, place })
}
