//! Files and directories that only their owner may read: keys, tokens, certificates with their keys.
//!
//! Always holds: one that others may read is refused, never repaired, since whoever wanted to has read it; a new one has
//! its mode from its first byte on. What is made or replaced is not there, the old file or the new one, whole, also after a
//! loss of power and when several do it at once: each writes to a file of its own beside it, `.NAME.RANDOM.tmp`, which becomes the
//! file and never has two names. One that a process left that was interrupted was never in use; it is removed by who writes there
//! an hour later. Only where a file system cannot rename without replacing (NFS), what is made is written in its place, and may
//! be cut short there by a loss of power. All of it blocks.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::rand;
use gantry_model::Secret;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

/// The owner may read and write; nobody else anything.
const MODE: u32 = 0o600;
/// The same of a directory.
const DIRECTORY_MODE: u32 = 0o700;
/// Bytes of randomness in the name of a file that is not whole yet.
const RANDOM_BYTES: usize = 8;
/// What such a name ends with.
const BESIDE_SUFFIX: &str = ".tmp";
/// After this a file that is not whole yet has nobody who writes it: each is written at once.
const LEFT_AFTER: Duration = Duration::from_secs(3600);
/// What others would need.
const MODE_OF_OTHERS: u32 = 0o077;

/// What was read.
#[derive(Debug)]
pub struct Found {
    /// The contents.
    pub contents: Secret<Vec<u8>>,
    /// The user that the file belongs to.
    pub owner: u32,
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not there.
    #[error("{} is missing", .0.display())]
    Missing(PathBuf),
    /// The disk, or its rights.
    #[error("{} cannot be read", .path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error("{path} is open to others (mode {mode:04o}); run `chmod 600 {path}`", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is a directory, a device, or too long to be what is looked for.
    #[error("{} is no file of at most {bytes_max} bytes", .path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// How many it may have.
        bytes_max: u64,
    },
}

/// Reads a file of at most so many bytes.
pub fn read(path: &Path, bytes_max: u64) -> Result<Found, ReadError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ReadError::Missing(path.to_owned()),
        _ => ReadError::Disk { path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(failed)?;
    // Of what was opened, not of the name, which may mean another file by now.
    let metadata = file.metadata().map_err(failed)?;
    let unformed = || ReadError::Form { path: path.to_owned(), bytes_max };
    if !metadata.is_file() {
        return Err(unformed());
    }
    let mode = metadata.mode() & 0o7777;
    if mode & MODE_OF_OTHERS != 0 {
        return Err(ReadError::Open { path: path.to_owned(), mode });
    }
    let expected = metadata.len().min(bytes_max) + 1;
    // Of one size from the beginning: what a growing vector leaves behind is not wiped.
    let mut contents = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
    let read = file.take(bytes_max + 1).read_to_end(&mut contents);
    let (length, contents) = (contents.len() as u64, Secret::new(contents));
    read.map_err(failed)?;
    if length > bytes_max {
        return Err(unformed());
    }
    Ok(Found { contents, owner: metadata.uid() })
}

/// Puts a file in the place of what is there, if anything is; of several that are put there at once, one is there in the
/// end. Durable when this returns.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    replace_by(path, &beside(path)?, |file| file.write_all(contents))
}

/// The same of what `write` writes, to a file beside it in the same directory until it is whole, which nobody else may use.
pub fn replace_by(
    path: &Path,
    beside: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    write_beside(beside, write, || fs::rename(beside, path))?;
    sync_directory_of(path)
}

/// Makes a file where there is none, and leaves one that is there as it is (`AlreadyExists`). Durable when this returns.
pub fn make(path: &Path, contents: &[u8]) -> io::Result<()> {
    make_by(path, contents, |beside| {
        rustix::fs::renameat_with(CWD, beside, CWD, path, RenameFlags::NOREPLACE).map_err(io::Error::from)
    })
}

/// The same, by a way of renaming that replaces nothing.
fn make_by(path: &Path, contents: &[u8], rename: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let beside = &beside(path)?;
    match write_beside(beside, |file| file.write_all(contents), || rename(beside)) {
        Err(error) if is_unsupported(&error) => {
            let mut file = create(path)?;
            let written = file.write_all(contents).and_then(|()| file.sync_all());
            if written.is_err() {
                // It is ours: there was none. The first error is the one to tell.
                let _ = fs::remove_file(path);
            }
            written?;
        }
        done => done?,
    }
    sync_directory_of(path)
}

/// Whether the file system, or the system, has no such operation.
fn is_unsupported(error: &io::Error) -> bool {
    let unsupported = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::PERM].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|number| unsupported.contains(&number))
}

/// Writes a file, has it under its name, and leaves nothing where that fails.
fn write_beside(
    beside: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
    name: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    // What an interrupted process left may have any mode.
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = create(beside)?;
    let named = write(&mut file).and_then(|()| file.sync_all()).and_then(|()| name());
    if named.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(beside);
    }
    named
}

/// A name beside a file that nobody else has, and none of those that were left long ago.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".");
    remove_left(path, &name);
    let mut random = [0; RANDOM_BYTES];
    rand::fill(&mut random).map_err(|_| io::Error::other("the system gives no randomness"))?;
    name.push(random.map(|byte| format!("{byte:02x}")).concat());
    name.push(BESIDE_SUFFIX);
    Ok(path.with_file_name(name))
}

/// What cannot be looked at, or removed, stays: it is in nobody's way.
fn remove_left(path: &Path, prefix: &OsStr) {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    for entry in fs::read_dir(directory.unwrap_or(Path::new("."))).into_iter().flatten().flatten() {
        let (name, prefix) = (entry.file_name(), prefix.as_encoded_bytes());
        let random = name.as_encoded_bytes().strip_prefix(prefix);
        let random = random.and_then(|rest| rest.strip_suffix(BESIDE_SUFFIX.as_bytes()));
        let is_ours = random.is_some_and(|random| {
            random.len() == 2 * RANDOM_BYTES && random.iter().all(u8::is_ascii_hexdigit)
        });
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if is_ours && age().is_some_and(|age| age >= LEFT_AFTER) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Begins a file where there is none.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)
}

/// Opens a file to write at its end, and makes it where there is none.
pub fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(MODE).open(path)
}

/// Makes a directory, with those above it, where there is none; one that is there keeps its mode.
pub fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// Makes what happened to the names in a file's directory durable.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    type Tested = Result<(), Box<dyn std::error::Error>>;

    fn mode(path: &Path) -> io::Result<u32> {
        Ok(fs::metadata(path)?.mode() & 0o7777)
    }

    fn text(path: &Path) -> Result<String, Box<dyn std::error::Error>> {
        Ok(String::from_utf8(read(path, 16)?.contents.expose().clone())?)
    }

    #[test]
    fn what_is_replaced_or_made_is_the_owners_alone_whatever_was_there() -> Tested {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("made/above/key");
        make_directory(path.parent().ok_or("a parent")?)?;
        assert_eq!(mode(path.parent().ok_or("a parent")?)?, DIRECTORY_MODE);
        // What an interrupted process left, for others to write into.
        let beside = path.with_file_name("next");
        fs::write(&beside, "half")?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o666))?;
        replace_by(&path, &beside, |file| file.write_all(b"one"))?;
        assert_eq!((text(&path)?.as_str(), mode(&path)?, beside.exists()), ("one", MODE, false));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        replace(&path, b"two")?;
        assert_eq!((text(&path)?.as_str(), mode(&path)?), ("two", MODE));

        let refused = make(&path, b"three").map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::AlreadyExists));
        assert_eq!(text(&path)?, "two");
        let other = path.with_file_name("other");
        make(&other, b"three")?;
        assert_eq!((text(&other)?.as_str(), mode(&other)?), ("three", MODE));
        append(&path.with_file_name("log"))?.write_all(b"a line")?;
        assert_eq!(mode(&path.with_file_name("log"))?, MODE);
        Ok(())
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_the_one_before() -> Tested {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("key");
        replace(&path, b"one")?;
        let broken = replace_by(&path, &directory.path().join("next"), |file| {
            file.write_all(b"tw")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(broken.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
        assert_eq!((text(&path)?.as_str(), names(directory.path())?), ("one", vec!["key".to_owned()]));
        Ok(())
    }

    fn names(directory: &Path) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(directory)?;
        let mut names: Vec<_> = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()?;
        names.sort();
        Ok(names)
    }

    #[test]
    fn of_many_who_replace_or_make_a_file_at_once_each_is_whole_and_one_is_there() -> Tested {
        let directory = tempfile::tempdir()?;
        let (path, made) = (directory.path().join("key"), directory.path().join("made"));
        let contents: Vec<Vec<u8>> =
            (0..8).map(|number: u8| vec![number; 300_000 + usize::from(number)]).collect();
        replace(&path, &contents[0])?;
        let is_whole = |found: &[u8]| contents.iter().any(|contents| contents == found);
        let wins = std::thread::scope(|scope| {
            let writers: Vec<_> = contents
                .iter()
                .map(|contents| {
                    scope.spawn(|| {
                        let replaced = (0..10).try_for_each(|_| replace(&path, contents));
                        (replaced.map_err(|error| error.to_string()), make(&made, contents).is_ok())
                    })
                })
                .collect();
            while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                assert!(is_whole(&fs::read(&path).expect("a file")), "half a file was put in place");
                if let Ok(found) = fs::read(&made) {
                    assert!(is_whole(&found), "half a file was made");
                    assert_eq!(
                        fs::metadata(&made).map(|made| made.nlink()).ok(),
                        Some(1),
                        "it has two names"
                    );
                }
            }
            let ended = writers.into_iter().map(|writer| writer.join().expect("no panic"));
            ended
                .map(|(replaced, made)| (replaced.expect("replaced"), made))
                .filter(|(_, made)| *made)
                .count()
        });
        assert_eq!((wins, names(directory.path())?), (1, vec!["key".to_owned(), "made".to_owned()]));
        Ok(())
    }

    #[test]
    fn a_file_is_made_also_where_renaming_always_replaces_and_never_over_another() -> Tested {
        let directory = tempfile::tempdir()?;
        let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
        make(&one, b"first")?;
        make_by(&other, b"second", |_| Err(Errno::INVAL.into()))?;
        assert_eq!((text(&one)?.as_str(), text(&other)?.as_str()), ("first", "second"));
        assert_eq!(
            (mode(&other)?, names(directory.path())?),
            (MODE, vec!["one".to_owned(), "other".to_owned()])
        );
        for unsupported in [Errno::NOSYS, Errno::OPNOTSUPP, Errno::PERM] {
            let again = make_by(&other, b"third", |_| Err(unsupported.into())).map_err(|error| error.kind());
            assert_eq!((again, text(&other)?.as_str()), (Err(io::ErrorKind::AlreadyExists), "second"));
        }
        let full = make_by(&directory.path().join("third"), b"third", |_| Err(Errno::NOSPC.into()));
        assert_eq!(full.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
        assert_eq!(names(directory.path())?, ["one", "other"]);
        Ok(())
    }

    #[test]
    fn what_an_interrupted_process_left_long_ago_goes_and_nothing_else() -> Tested {
        let directory = tempfile::tempdir()?;
        let left = [
            ".key.0123456789abcdef.tmp",
            ".key.mine.tmp",
            ".key.0123456789abcde.tmp",
            ".other.0123456789abcdef.tmp",
        ];
        let young = ".key.fedcba9876543210.tmp";
        for name in left {
            let file = File::create(directory.path().join(name))?;
            file.set_modified(std::time::SystemTime::now() - LEFT_AFTER)?;
        }
        File::create(directory.path().join(young))?;
        replace(&directory.path().join("key"), b"one")?;
        let mut expected = [&left[1..], &[young, "key"]].concat();
        expected.sort_unstable();
        assert_eq!(names(directory.path())?, expected);
        Ok(())
    }

    #[test]
    fn what_others_may_read_and_what_is_no_such_file_is_refused_with_the_next_step() -> Tested {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("key");
        let refused = |path: &Path| read(path, 4).map(drop).map_err(|error| error.to_string());
        let shown = path.display();
        assert_eq!(refused(&path), Err(format!("{shown} is missing")));
        replace(&path, b"four")?;
        assert_eq!(refused(&path), Ok(()));
        for open in [0o640, 0o604, 0o620, 0o601, 0o1644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open))?;
            let expected = format!("{shown} is open to others (mode {open:04o}); run `chmod 600 {shown}`");
            assert_eq!(refused(&path), Err(expected));
        }
        replace(&path, b"fiver")?;
        assert_eq!(refused(&path), Err(format!("{shown} is no file of at most 4 bytes")));
        let folder = directory.path().display();
        assert_eq!(refused(directory.path()), Err(format!("{folder} is no file of at most 4 bytes")));
        assert_eq!(read(&path, 5)?.owner, fs::metadata(&path)?.uid());
        Ok(())
    }
}
