//! The data directory of `gantry dev`: found again, refused when it is in use or of a newer version.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use gantry_tests::dev::{Options, sibling};
use gantry_tests::governed;
use gantry_tests::process::{self, Finished};
use tempfile::TempDir;
use tokio::process::Command;

/// A refused start takes a fraction of a second.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(30);

async fn refused_start(data_dir: &Path) -> Finished {
    let mut command = Command::new(sibling("gantry-under-test").expect("the program"));
    command.args(["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
    process::run(command, REFUSAL_TIME_MAX).await.expect("it ends")
}

/// Every file below a folder with its content.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(content(&path));
        } else {
            found.insert(path.display().to_string(), fs::read(&path).expect("a file"));
        }
    }
    found
}

#[tokio::test]
async fn a_directory_of_a_newer_version_is_refused_and_left_alone() {
    let folder = TempDir::new().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let options = Options { data_dir: Some(data_dir.clone()), ..Options::default() };
    let dev = governed::start(&options).await;
    assert!(dev.terminate().await.expect("it ends").success());
    let store = data_dir.join("control-plane/consensus");
    fs::write(store.join("FORMAT"), "gantry control-plane store 99\n").expect("FORMAT is written");
    let before = content(&data_dir);
    let refused = refused_start(&data_dir).await;
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert_eq!(refused.stdout, "");
    assert!(
        refused.stderr.contains("was written by a newer gantry (format 99, this build reads 1)"),
        "{}",
        refused.stderr
    );
    assert_eq!(content(&data_dir), before);
}

#[tokio::test]
async fn a_directory_in_use_is_refused_and_its_user_goes_on() {
    let folder = TempDir::new().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let dev = governed::start(&Options { data_dir: Some(data_dir.clone()), ..Options::default() }).await;
    let refused = refused_start(&data_dir).await;
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("in use"), "{}", refused.stderr);
    let status = dev.admin(&["status"]).await.expect("an answer");
    assert!(status.status.success(), "{}", status.stderr);
}
