//! Reading what `-f` names.
//!
//! Always holds: hidden files and directories are passed over; a directory is read in the order of its paths. Cases of
//! `gantry policy test` that stand beside documents are none: they are read where they are asked for, or named.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Most bytes of a whole set: what one message carries, with room for its encoding.
const BYTES_MAX: u64 = 6 * 1024 * 1024;
/// Most files below the directories that are named.
const FILES_MAX: usize = 10_000;
/// Deepest directory below one that is named; a loop of links ends here.
const DEPTH_MAX: usize = 16;
/// How standard input is told of.
const STDIN: &str = "stdin";

/// The text of a file.
#[derive(Debug)]
pub(super) struct File {
    /// Its path as it was named or found.
    pub(super) name: String,
    /// Its text.
    pub(super) text: String,
    /// Whether it is JSON by its name; YAML otherwise.
    pub(super) is_json: bool,
    /// Whether it has cases by its name, and no documents.
    pub(super) is_cases: bool,
}

/// Reads the files, directories and standard input that are named; of directories the files of cases too where they are
/// `cases_wanted`.
pub(super) fn read(names: &[String], cases_wanted: bool) -> Result<Vec<File>, Failure> {
    let mut files = Vec::new();
    let mut room = BYTES_MAX;
    let mut stdin_read = false;
    for name in names {
        if name == "-" {
            if stdin_read {
                return Err(Failure::usage("standard input is named twice", "name `-f -` once"));
            }
            stdin_read = true;
            let text = read_text(STDIN, &mut io::stdin().lock(), &mut room)?;
            files.push(File { name: STDIN.to_owned(), text, is_json: false, is_cases: false });
            continue;
        }
        let mut paths = Vec::new();
        let root = Path::new(name);
        if fs::metadata(root).map_err(|error| unreadable(name, &error))?.is_dir() {
            collect(root, 0, &mut paths)?;
            paths.retain(|path| cases_wanted || !is_cases(path));
            if paths.is_empty() {
                return Err(Failure::error(
                    format!("there is no .yaml, .yml or .json file below {name}"),
                    "name a file or another directory",
                ));
            }
        } else {
            paths.push(root.to_owned());
        }
        for path in paths {
            let name = path.display().to_string();
            let mut file = fs::File::open(&path).map_err(|error| unreadable(&name, &error))?;
            let text = read_text(&name, &mut file, &mut room)?;
            let (is_json, is_cases) = (has_extension(&path, &["json"]), is_cases(&path));
            files.push(File { text, is_json, is_cases, name });
        }
    }
    Ok(files)
}

fn collect(directory: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let name = directory.display().to_string();
    if depth > DEPTH_MAX {
        return Err(Failure::error(
            format!("{name} is more than {DEPTH_MAX} directories deep"),
            "name the directories that hold documents",
        ));
    }
    let entries: Result<Vec<_>, _> = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    let mut entries = entries.map_err(|error| unreadable(&name, &error))?;
    entries.sort();
    for path in entries {
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        let metadata =
            fs::metadata(&path).map_err(|error| unreadable(&path.display().to_string(), &error))?;
        if metadata.is_dir() {
            collect(&path, depth + 1, paths)?;
        } else if has_extension(&path, &["yaml", "yml", "json"]) {
            paths.push(path);
        }
        if paths.len() > FILES_MAX {
            return Err(Failure::error(
                format!("there are more than {FILES_MAX} files below {name}"),
                "name fewer directories",
            ));
        }
    }
    Ok(())
}

/// Whether a file is called `NAME.test.yaml`, `.yml` or `.json`.
fn is_cases(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| has_extension(Path::new(stem), &["test"]))
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|own| extensions.iter().any(|extension| own.eq_ignore_ascii_case(extension)))
}

fn read_text(name: &str, source: &mut dyn Read, room: &mut u64) -> Result<String, Failure> {
    let mut text = String::new();
    let length =
        source.take(*room + 1).read_to_string(&mut text).map_err(|error| unreadable(name, &error))?;
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    *room = room.checked_sub(length).ok_or_else(|| {
        Failure::error(
            format!("{name}: the documents have more than {BYTES_MAX} bytes together"),
            "apply them in several steps",
        )
    })?;
    Ok(text)
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::error(
        format!("{name} cannot be read: {error}"),
        "name a file or a directory that exists, or `-f -`",
    )
}
