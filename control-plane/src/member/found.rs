//! Founding a cluster: its first member, in a directory of its own.
//!
//! Always holds: the certificate is kept last; what a founding that was cut short left is taken up by the next.

use std::path::Path;
use std::time::SystemTime;

use gantry_control_state::State;
use gantry_model::Labels;
use gantry_model::identity::{MemberId, PeerName};
use gantry_node::membership::Membership;
use gantry_node::tls::CertificateRequest;

use super::{IDENTITY, MakeError, Member, Place, keep_place};
use crate::ca::{Ca, CertifyError};
use crate::feed::Feed;
use crate::raft::{self, Consensus, Formation};
use crate::start::{CONSENSUS_DIRECTORY, ONLY_VOTER, StartError, make_directory, open_vault};
use crate::transport::SecureError;
use crate::vault::Vault;

/// Founds a cluster of one voter in `data_dir`. A directory in which a control plane ran that had no name for itself
/// becomes that of its first member.
pub async fn found(data_dir: &Path, place: Place) -> Result<Member, MakeError> {
    if data_dir.join(IDENTITY).exists() {
        return Err(MakeError::Used(data_dir.to_owned()));
    }
    make_directory(data_dir.to_owned()).await?;
    let mut options = raft::Options::new(data_dir.join(CONSENSUS_DIRECTORY), ONLY_VOTER);
    options.formation = Formation::Found(place.advertise.clone());
    let consensus = Consensus::start(options, Feed::new()).await.map_err(StartError::from)?;
    let certified = certify(&consensus, data_dir, &place).await;
    let closed = consensus.shutdown().await;
    let (id, membership) = certified?;
    closed?;
    Ok(Member { id, membership, place })
}

async fn certify(
    consensus: &Consensus,
    data_dir: &Path,
    place: &Place,
) -> Result<(MemberId, Membership), MakeError> {
    let vault = open_vault(consensus, data_dir, true).await?;
    keep_founder(&vault, &consensus.feed().latest().state, data_dir, place).await
}

/// Makes the founder's part of its directory: its addresses, and its certificate last.
pub(crate) async fn keep_founder(
    vault: &Vault,
    state: &State,
    directory: &Path,
    place: &Place,
) -> Result<(MemberId, Membership), MakeError> {
    let ca = Ca::open(vault, state).map_err(SecureError::from)?;
    let id = MemberId::new(ONLY_VOTER.0).ok_or(SecureError::Member(ONLY_VOTER.0))?;
    let name = PeerName::control_plane(ca.cluster().clone(), id);
    let (request, certified) = certify_as(&ca, &name).map_err(SecureError::from)?;
    keep_place(directory, place).await?;
    let authorities = [ca.certificate().clone()];
    let kept = Membership::keep(&request, certified, &authorities, directory.join(IDENTITY)).await?;
    Ok((id, kept))
}

fn certify_as(
    ca: &Ca,
    name: &PeerName,
) -> Result<(CertificateRequest, gantry_node::tls::Certified), CertifyError> {
    let request = CertificateRequest::new()?;
    let chain = ca.issue(request.as_der(), (name, &Labels::default()), SystemTime::now());
    let chain = chain.map_err(|error| CertifyError::Issue(error.to_string()))?;
    let certified = request.complete(chain)?;
    Ok((request, certified))
}
