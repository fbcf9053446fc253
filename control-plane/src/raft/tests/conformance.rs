//! openraft's own suite on the durable store.

use openraft::testing::{StoreBuilder, Suite};
use openraft::{StorageError, StorageIOError};

use super::*;

struct Builder;

impl StoreBuilder<Config, Log, Machine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, Log, Machine), StorageError<u64>> {
        let failed =
            |error: &dyn std::error::Error| StorageIOError::read(openraft::AnyError::error(chain(error)));
        let dir = tempfile::tempdir().map_err(|error| failed(&error))?;
        let identity = entry::encode_identity(VOTER.0);
        let opened = Store::open(dir.path(), &identity).map_err(|error| failed(&error))?;
        opened.store.accept_any_order();
        let options = Options::new(dir.path(), VOTER);
        let (mut log, machine) = restore(&options, opened, Feed::new()).map_err(|error| failed(&error))?;
        log.accept_any_purge();
        Ok((dir, log, machine))
    }
}

#[test]
fn the_store_passes_the_suite_of_openraft() {
    Suite::test_all(Builder).expect("suite");
}
