//! What a node needs to start without a control plane: what it last served, on its disk, sealed.
//!
//! Always holds: what is kept was acknowledged; nothing of it stands on the disk unencrypted; requests never wait for
//! it. At most one file is written at a time. Of configurations it is at most one a second, and writing them takes at
//! most a twentieth of the time: what comes meanwhile replaces what waits. Files that cannot be written cost the next
//! start, not this one, and are tried again.
//!
//! It is no record of what was served when: updates that follow each other quickly leave one file.

mod contents;
mod directory;
mod key;
mod sealed;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_node::seal::NodeSealKey;
use gantry_wire::sync_v1::KeptUrgent;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::holdings::{Holdings, Touched, UpdateError};
use crate::config::image::Image;
use directory::Directory;
use key::{Key, KeyError};

/// Shortest time from one file to the next.
const REST_MIN: Duration = Duration::from_secs(1);
/// As many times as writing took, the disk has rest: a large configuration that changes every second shall not
/// occupy it.
const REST_FACTOR: u32 = 19;
/// Time after a failure: most pass neither sooner nor unseen.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(30);

/// Whether a node keeps what it serves on its disk, and under which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastKnownGood {
    /// Nothing is kept: a node that starts serves nobody until it found a control plane.
    Off,
    /// Under a key in the data directory, which is made at the first start.
    KeyInDataDir,
    /// Under the key in this file, which must be there.
    KeyFile(PathBuf),
}

/// Why nothing can be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the directory of the files cannot be read")]
    Directory(#[source] io::Error),
    #[error("the start was interrupted")]
    Interrupted,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
enum UnusableError {
    #[error(transparent)]
    Read(#[from] contents::ReadError),
    #[error("what is in it cannot be taken")]
    Take(#[from] UpdateError),
}

/// What a node begins with.
pub(crate) struct Beginning {
    pub(crate) holdings: Holdings,
    /// What is to be compiled; absent when nothing was kept.
    pub(crate) touched: Option<Touched>,
    /// Bans that are in no configuration that was kept.
    pub(crate) urgent: KeptUrgent,
    /// When the node last heard from a control plane, in milliseconds since 1970; 0: never, as far as is known.
    pub(crate) heard_at_ms: u64,
    pub(crate) keeper: Keeper,
}

/// Keeps what it is offered. End it with [`Keeper::finish`].
pub(crate) struct Keeper(Option<Running>);

struct Running {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// Before these moments nothing of the sort is written.
struct Rest {
    anything: Instant,
    configuration: Instant,
}

/// What there is to do.
enum Due {
    Now(Next),
    At(Instant),
    /// When something comes.
    Later,
    End,
}

/// Keeps what it is given, without the pauses that configurations have.
pub(crate) struct UrgentKeeper(Option<Arc<Shared>>);

impl UrgentKeeper {
    /// Keeps these bans, in place of those that were kept before.
    pub(crate) fn keep(&self, urgent: KeptUrgent) {
        if let Some(shared) = &self.0 {
            shared.lock().urgent = Some(urgent);
            shared.changed.notify_one();
        }
    }
}

pub(crate) struct Shared {
    next: Mutex<Next>,
    /// Told of each change of `next`.
    changed: Notify,
}

#[derive(Default)]
struct Next {
    /// All that is there is of another cluster.
    clear: bool,
    /// Files before the next have what the node may hold no more. Stays so until there is a next.
    is_alone: bool,
    image: Option<Image>,
    /// When a control plane was heard, in milliseconds since 1970.
    heard_at_ms: Option<u64>,
    /// Bans that are in no configuration yet.
    urgent: Option<KeptUrgent>,
    end: bool,
}

impl Next {
    /// Whether there is nothing to write.
    fn is_nothing(&self) -> bool {
        !self.clear && self.image.is_none() && self.heard_at_ms.is_none() && self.urgent.is_none()
    }
}

/// Finds what was kept. Blocks as long as the disk takes, aside.
pub(crate) async fn begin(
    how: &LastKnownGood,
    data_dir: &Path,
    seal: Arc<NodeSealKey>,
) -> Result<Beginning, KeepError> {
    if *how == LastKnownGood::Off {
        let holdings = Holdings::new(seal);
        let (urgent, keeper) = (KeptUrgent::default(), Keeper(None));
        return Ok(Beginning { holdings, touched: None, urgent, heard_at_ms: 0, keeper });
    }
    let (how, data_dir) = (how.clone(), data_dir.to_owned());
    let found = tokio::task::spawn_blocking(move || {
        let key = match how {
            LastKnownGood::KeyFile(path) => Key::read(&path)?,
            LastKnownGood::Off | LastKnownGood::KeyInDataDir => Key::read_or_make(&data_dir)?,
        };
        let directory = Directory::new(&data_dir, key);
        let found = newest_of(&directory, &seal).map_err(KeepError::Directory)?;
        let heard_at_ms = found.2.max(directory.read_heard());
        let urgent = directory.read_urgent();
        Ok::<_, KeepError>((directory, found.0, found.1, (urgent, heard_at_ms)))
    });
    let (directory, holdings, touched, rest) = found.await.map_err(|_| KeepError::Interrupted)??;
    let (urgent, heard_at_ms) = rest;
    Ok(Beginning { holdings, touched, urgent, heard_at_ms, keeper: Keeper::start(directory) })
}

/// The newest file that can be used, read, and when its writer had last heard. Each that cannot is said in the log.
fn newest_of(directory: &Directory, seal: &Arc<NodeSealKey>) -> io::Result<(Holdings, Option<Touched>, u64)> {
    for (revision, path) in directory.files()? {
        let started = Instant::now();
        let mut holdings = Holdings::new(seal.clone());
        let read = directory.read(&path).map_err(UnusableError::from);
        match read.and_then(|read| Ok((read.heard_at_ms, holdings.restore(read.kept)?))) {
            Ok((heard_at_ms, touched)) => {
                let (took, age_s) = (started.elapsed(), now_ms().saturating_sub(heard_at_ms) / 1_000);
                tracing::info!(%revision, age_s, ?took, "what was last known to be good is served until a control plane answers");
                return Ok((holdings, Some(touched), heard_at_ms));
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(path = %path.display(), error, "a last-known-good file cannot be used; trying the one before");
            }
        }
    }
    Ok((Holdings::new(seal.clone()), None, 0))
}

impl Keeper {
    fn start(directory: Directory) -> Keeper {
        let shared = Arc::new(Shared { next: Mutex::default(), changed: Notify::new() });
        let task = tokio::spawn(keep(Arc::new(directory), shared.clone()));
        Keeper(Some(Running { shared, task }))
    }

    /// Says that what is kept is of a cluster that the node no longer belongs to.
    pub(crate) fn clear(&self) {
        self.change(|next| *next = Next { clear: true, end: next.end, ..Next::default() });
    }

    /// Says that what was kept before has tenants that the node may hold no more: the next file is the only one.
    pub(crate) fn forget_older(&self) {
        self.change(|next| next.is_alone = true);
    }

    /// Offers what was just acknowledged, in place of what still waits.
    pub(crate) fn offer(&self, image: Option<Image>) {
        if image.is_some() {
            self.change(|next| next.image = image);
        }
    }

    /// Notes that a control plane is heard now.
    pub(crate) fn heard(&self) {
        self.change(|next| next.heard_at_ms = Some(now_ms()));
    }

    /// Keeps bans that come ahead of the configuration.
    pub(crate) fn urgent(&self) -> UrgentKeeper {
        UrgentKeeper(self.0.as_ref().map(|running| running.shared.clone()))
    }

    /// Keeps what still waits, and ends.
    pub(crate) async fn finish(self) {
        self.change(|next| next.end = true);
        if let Some(running) = self.0
            && running.task.await.is_err()
        {
            tracing::error!("the task that keeps last-known-good files panicked");
        }
    }

    fn change(&self, change: impl FnOnce(&mut Next)) {
        if let Some(Running { shared, .. }) = &self.0 {
            change(&mut shared.lock());
            shared.changed.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be done now; before an end, everything. What is due is taken.
    fn due(&self, rest: &Rest, now: Instant) -> Due {
        let mut next = self.lock();
        let end = next.end;
        if next.is_nothing() {
            return if end { Due::End } else { Due::Later };
        }
        if !end && now < rest.anything {
            return Due::At(rest.anything);
        }
        let image = match end || now >= rest.configuration {
            true => None,
            false => next.image.take(),
        };
        let waits = image.is_some();
        // It is for the next file.
        let is_alone = next.is_alone && (waits || next.image.is_none());
        let due = std::mem::replace(&mut *next, Next { end, image, is_alone, ..Next::default() });
        match due.is_nothing() && waits {
            true => Due::At(rest.configuration),
            false => Due::Now(due),
        }
    }

    /// What could not be done is to be done still, unless something newer came.
    fn put_back(&self, failed: Next) {
        let mut next = self.lock();
        if !next.clear {
            next.image = next.image.take().or(failed.image);
            next.urgent = next.urgent.take().or(failed.urgent);
        }
        next.clear |= failed.clear;
        next.is_alone |= failed.is_alone;
    }
}

/// Writes one file after the other until it is to end.
async fn keep(directory: Arc<Directory>, shared: Arc<Shared>) {
    let now = Instant::now();
    let mut rest = Rest { anything: now, configuration: now };
    loop {
        match shared.due(&rest, Instant::now()) {
            Due::Now(next) => write(&directory, &shared, next, &mut rest).await,
            // Also when something comes, which may be due before.
            Due::At(moment) => drop(tokio::time::timeout_at(moment, shared.changed.notified()).await),
            Due::Later => shared.changed.notified().await,
            Due::End => return,
        }
    }
}

/// Writes what is next, and says how long to rest. What cannot be written waits again, unless this was the end.
async fn write(directory: &Arc<Directory>, shared: &Shared, next: Next, rest: &mut Rest) {
    let (started, directory) = (Instant::now(), directory.clone());
    let (is_end, is_configuration) = (next.end, next.image.is_some());
    let write = move || {
        let write = || {
            if next.clear {
                directory.clear()?;
            }
            // First: it is small, and no configuration has it.
            if let Some(urgent) = &next.urgent {
                directory.write_urgent(urgent)?;
            }
            if let Some(image) = &next.image {
                directory.write(image, now_ms(), next.is_alone)?;
            }
            next.heard_at_ms.map_or(Ok(()), |heard_at_ms| directory.write_heard(heard_at_ms))
        };
        (write(), next)
    };
    let written = tokio::task::spawn_blocking(write).await;
    let now = Instant::now();
    match written {
        Ok((Ok(()), _)) if is_configuration => {
            rest.configuration = now + REST_MIN.max((now - started) * REST_FACTOR);
        }
        Ok((Ok(()), _)) => {}
        Ok((Err(error), next)) => {
            tracing::error!(%error, "last-known-good cannot be written: a node that starts now has to find a control plane");
            if !is_end {
                shared.put_back(next);
            }
            rest.anything = now + REST_AFTER_FAILURE;
        }
        Err(error) => {
            tracing::error!(%error, "writing last-known-good broke off");
            rest.anything = now + REST_AFTER_FAILURE;
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(next: Next) -> Shared {
        Shared { next: Mutex::new(next), changed: Notify::new() }
    }

    #[test]
    fn bans_do_not_wait_for_a_configuration_nor_end_its_rest() {
        let now = Instant::now();
        let rest = Rest { anything: now, configuration: now + REST_MIN };
        let (image, urgent) = (Some(Image::empty()), Some(KeptUrgent::default()));
        let shared = shared(Next { image, urgent, ..Next::default() });
        let Due::Now(bans) = shared.due(&rest, now) else { panic!("they are due") };
        assert_eq!((bans.image.is_none(), bans.urgent), (true, Some(KeptUrgent::default())));
        assert!(matches!(shared.due(&rest, now), Due::At(moment) if moment == rest.configuration));
        let Due::Now(later) = shared.due(&rest, rest.configuration) else { panic!("it is due") };
        assert!(later.image.is_some());
        assert!(matches!(shared.due(&rest, now), Due::Later));
    }

    #[test]
    fn after_a_failure_everything_waits_and_an_end_does_not() {
        let now = Instant::now();
        let rest = Rest { anything: now + REST_AFTER_FAILURE, configuration: now + REST_AFTER_FAILURE };
        let (image, urgent) = (Some(Image::empty()), Some(KeptUrgent::default()));
        let shared = shared(Next { image, urgent, ..Next::default() });
        assert!(matches!(shared.due(&rest, now), Due::At(moment) if moment == rest.anything));
        shared.lock().end = true;
        let Due::Now(last) = shared.due(&rest, now) else { panic!("everything is due") };
        assert_eq!((last.image.is_some(), last.urgent.is_some()), (true, true));
        assert!(matches!(shared.due(&rest, now), Due::End));
    }
}
