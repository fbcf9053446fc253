//! A member as a process on a disk that is full, or that fails once: it ends with 1 and says why, and what it acknowledged
//! is there when it starts on a mended disk. Where each change of the store fails is tried in the control plane's own tests;
//! this is what the person sees who runs the binary.

use std::path::{Path, PathBuf};
use std::process::Command;

use gantry_tests::members::{DEADLINE, Error, Member, Members, done};
use gantry_tests::process::{Running, Stream, run};
use serde_json::Value;
use tempfile::TempDir;

/// Which change of the store fails, counted from its start; a few tenants are made before.
const CHANGE: u64 = 120;
/// Tenants that are made until then, at most; seven when this was written.
const TENANTS_MAX: usize = 60;

/// Compiles the library that lets changes of files fail. Takes the C compiler that building this workspace takes.
fn library(folder: &TempDir) -> Result<PathBuf, Error> {
    let library = folder.path().join("disk.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../control-plane/tests/disk/disk.c");
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).args([&library, &source]).output()?;
    match compiled.status.success() {
        true => Ok(library),
        false => Err(String::from_utf8_lossy(&compiled.stderr).into()),
    }
}

/// Makes a tenant; whether that was acknowledged.
async fn make(members: &Members, address: &str, tenant: &str) -> Result<bool, Error> {
    let file = members.path("tenant.yaml");
    std::fs::write(&file, format!("kind: Tenant\nname: {tenant}\n"))?;
    let mut apply = members.gantry(&["apply", "--admin", address, "-f"])?;
    apply.arg(file).arg("--token-file").arg(members.path("one/admin-token"));
    apply.arg("--ca").arg(members.path("one/ca.pem"));
    Ok(run(apply, DEADLINE).await?.status.success())
}

async fn tenants(members: &Members, member: &Member) -> Result<Vec<String>, Error> {
    let got = done(member.admin(members, &["get", "tenants", "--output", "json"]).await?)?;
    let listed: Value = serde_json::from_str(&got.stdout)?;
    let listed = listed.as_array().ok_or("a list")?.iter();
    Ok(listed.filter_map(|tenant| Some(tenant["name"].as_str()?.to_owned())).collect())
}

/// Fails with `errno`, from one change on or only there; `says` is what the system calls it.
async fn fails(errno: i32, until: &str, says: &str) -> Result<(), Error> {
    let (members, folder) = (Members::new()?, tempfile::tempdir()?);
    members.found("one").await?.terminate().await?;
    let mut command = members.run_command("one")?;
    command.env("LD_PRELOAD", library(&folder)?).env("GANTRY_DISK_ROOT", members.path("one/consensus"));
    command.env("GANTRY_DISK_TRACE", folder.path().join("trace"));
    command.env("GANTRY_DISK_FAIL", format!("{CHANGE} {errno} {until}"));
    let line = |stream, line: &str| (stream == Stream::Out).then(|| line.to_owned());
    let (mut running, line) = Running::start(command, DEADLINE, line).await?;
    let ready: Value = serde_json::from_str(&line)?;
    let address = ready["address"].as_str().ok_or("an address")?;

    let mut acknowledged = Vec::new();
    for number in 0..TENANTS_MAX {
        let tenant = format!("tenant-{number}");
        if !make(&members, address, &tenant).await? {
            break;
        }
        acknowledged.push(tenant);
    }
    assert!(!acknowledged.is_empty() && acknowledged.len() < TENANTS_MAX, "{acknowledged:?}");
    let status = running.ended(DEADLINE).await?;
    let output = running.output();
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("the control plane died: ") && output.contains(says), "{output}");
    assert!(output.contains("start it again: what was acknowledged is stored"), "{output}");

    let member = members.run("one").await?;
    let there = tenants(&members, &member).await?;
    let lost: Vec<_> = acknowledged.iter().filter(|tenant| !there.contains(tenant)).collect();
    assert!(lost.is_empty(), "{lost:?} of {acknowledged:?}");
    assert!(make(&members, &member.address.to_string(), "afterwards").await?, "it takes changes again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_on_a_full_disk_ends_with_1_says_so_and_loses_nothing() -> Result<(), Error> {
    fails(28, "on", "No space left on device").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_on_a_disk_that_fails_once_ends_with_1_says_so_and_loses_nothing() -> Result<(), Error> {
    fails(5, "once", "Input/output error").await
}
