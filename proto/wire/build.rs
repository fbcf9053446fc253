//! Generates the Rust code of the protocol files with protox, so that no `protoc` is needed.

use std::error::Error;
use std::path::Path;

const FILES: &[&str] = &[
    "gantry/resource/v1/resource.proto",
    "gantry/raft/v1/command.proto",
    "gantry/raft/v1/log.proto",
    "gantry/raft/v1/peer.proto",
    "gantry/sync/v1/sync.proto",
    "gantry/admin/v1/admin.proto",
    "gantry/mesh/v1/mesh.proto",
    "gantry/enrol/v1/enrol.proto",
    "gantry/check/v1/check.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    println!("cargo:rerun-if-changed={}", root.join("gantry").display());
    let files: Vec<_> = FILES.iter().map(|file| root.join(file)).collect();
    let descriptors = protox::compile(&files, [&root])?;
    // So that a test finds a call that nobody made a rule for.
    let services = descriptors.file.iter().filter(|file| file.package() == "gantry.admin.v1");
    let methods = services.flat_map(|file| &file.service).flat_map(|service| &service.method);
    let names: Vec<&str> = methods.map(|method| method.name()).collect();
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("admin_methods.rs"), format!("&{names:?}"))?;
    tonic_prost_build::configure()
        .include_file("protocol.rs")
        .bytes(".gantry.sync.v1.Entry.record")
        .bytes(".gantry.sync.v1.KeptBan.record")
        .bytes(".gantry.mesh.v1.Notice.notice")
        .bytes(".gantry.raft.v1.Batch.commands")
        .bytes(".gantry.raft.v1.Propose.command")
        .bytes(".gantry.raft.v1.Propose.more")
        .bytes(".gantry.raft.v1.RecordNews.records")
        .bytes(".gantry.raft.v1.CheckpointData.bytes")
        .compile_fds(descriptors)?;
    Ok(())
}
