//! The library that writes down what a process does to a directory: compiled once, loaded into children.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A failure to put under a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Which change fails, counted from 1.
    pub(crate) change: u64,
    /// What the operating system says.
    pub(crate) errno: i32,
    /// Whether every later change fails as well.
    pub(crate) stays: bool,
}

/// Puts the library between a process and the files below `root`; what it does is written to `trace`.
pub(crate) fn put_under(process: &mut Command, root: &Path, trace: &Path, failure: Option<Failure>) {
    process.env("LD_PRELOAD", library()).env("GANTRY_DISK_ROOT", root).env("GANTRY_DISK_TRACE", trace);
    if let Some(Failure { change, errno, stays }) = failure {
        let until = if stays { "on" } else { "once" };
        process.env("GANTRY_DISK_FAIL", format!("{change} {errno} {until}"));
    }
}

/// Where the library is. Needs the C compiler that building this workspace needs as well.
fn library() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("disk.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disk/disk.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([&path, &source])
            .output()
            .expect("a C compiler under the name cc");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        (directory, path)
    });
    path
}
