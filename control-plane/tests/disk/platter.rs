//! What a disk holds after the power was cut: all that was synced, and of the rest whatever the disk felt like.
//!
//! - **Data** is durable once its file was synced. Of what was written since, a cut leaves, file by file: nothing; the
//!   first writes and half of the next; any of the sectors, in any order; or all of it. A sector (512 bytes) is there or
//!   not. A file's length goes with its data: what was not synced may be missing from the end.
//! - **Names** (making, renaming, removing files and directories) are durable once their directory was synced. Of later
//!   changes a cut leaves the first few of each directory: none, some, or all. Syncing a file does not keep its name,
//!   which is harsher than the journal of any usual file system.
//!
//! Not modelled: sectors that are damaged by the cut, sectors that were synced and are lost all the same, and a file
//! system that loses its own bearings.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::random::Random;
use crate::trace::Op;

const SECTOR_BYTES: usize = 512;

/// The disk under one directory.
#[derive(Debug, Default)]
pub(crate) struct Platter {
    files: Vec<File>,
    by_inode: HashMap<u64, usize>,
    directories: BTreeMap<String, Directory>,
}

#[derive(Debug, Default)]
struct File {
    /// The one that it was made under.
    name: String,
    durable: Vec<u8>,
    pending: Vec<Data>,
}

#[derive(Debug)]
enum Data {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Default)]
struct Directory {
    durable: BTreeMap<String, Entry>,
    pending: Vec<Name>,
}

#[derive(Debug, Clone, Copy)]
enum Entry {
    File(usize),
    Directory,
}

#[derive(Debug)]
enum Name {
    Add(String, Entry),
    Rename(String, String),
    Remove(String),
}

impl Platter {
    /// What lies in `root` now, all of it durable.
    pub(crate) fn of(root: &Path) -> Self {
        let mut platter = Self::default();
        platter.take_in(root, "");
        platter
    }

    fn take_in(&mut self, root: &Path, directory: &str) {
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(root.join(directory)).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_str().expect("a name in UTF-8").to_owned();
            if entry.file_type().expect("a type").is_dir() {
                self.take_in(root, &joined(directory, &name));
                names.insert(name, Entry::Directory);
            } else {
                let inode = entry.metadata().expect("metadata").ino();
                let durable = fs::read(entry.path()).expect("content");
                let file = File { name: joined(directory, &name), durable, pending: Vec::new() };
                names.insert(name, Entry::File(self.add(inode, file)));
            }
        }
        let pending = Vec::new();
        self.directories.insert(directory.to_owned(), Directory { durable: names, pending });
    }

    /// Does what a process did.
    pub(crate) fn follow(&mut self, op: &Op) {
        match op {
            Op::MakeDirectory(path) => {
                self.name(path, |name| Name::Add(name, Entry::Directory));
                self.directories.insert(path.clone(), Directory::default());
            }
            Op::Create { file, name } => {
                let file = self.add(*file, File { name: name.clone(), ..File::default() });
                self.name(name, |name| Name::Add(name, Entry::File(file)));
            }
            Op::Write { file, offset, bytes } => {
                let offset = usize::try_from(*offset).expect("a small file");
                self.file(*file).pending.push(Data::Write { offset, bytes: bytes.clone() });
            }
            Op::SetLength { file, length } => {
                let length = usize::try_from(*length).expect("a small file");
                self.file(*file).pending.push(Data::Length(length));
            }
            Op::SyncFile(file) => self.file(*file).sync(),
            Op::SyncDirectory(path) => self.directories.get_mut(path).expect("it was made").sync(),
            Op::Rename { from, to } => {
                let ((directory, to), (same, _)) = (split(to), split(from));
                assert_eq!(directory, same, "a rename from one directory to another is not modelled");
                self.name(from, |from| Name::Rename(from, to.to_owned()));
            }
            Op::Remove(path) | Op::RemoveDirectory(path) => self.name(path, Name::Remove),
            Op::Hint(_) | Op::Said(_) | Op::Failed => {}
        }
    }

    /// What sort of change it was, to what sort of file.
    pub(crate) fn sort_of(&self, op: &Op) -> String {
        let file = |file: &u64| self.files[self.by_inode[file]].name.as_str();
        let (what, name) = match op {
            Op::MakeDirectory(name) => ("make directory", name.as_str()),
            Op::Create { name, .. } => ("create", name.as_str()),
            Op::Write { file: written, .. } => ("write", file(written)),
            Op::SetLength { file: set, .. } => ("set length of", file(set)),
            Op::SyncFile(synced) => ("sync", file(synced)),
            Op::Hint(hinted) => ("hint at", file(hinted)),
            Op::SyncDirectory(name) => ("sync", name.as_str()),
            Op::Rename { to, .. } => ("rename to", to.as_str()),
            Op::Remove(name) | Op::RemoveDirectory(name) => ("remove", name.as_str()),
            Op::Said(_) | Op::Failed => ("no change", ""),
        };
        // Files whose names differ by a number or a position are of one sort.
        let (begin, end) = name.split_once("snap.").unwrap_or((name, ""));
        let begin: String = begin.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        let end = end.rsplit_once('.').map_or("", |(_, end)| end);
        format!("{what} {begin}{end}")
    }

    /// Makes everything durable, as some seconds without a cut would.
    pub(crate) fn sync(&mut self) {
        self.files.iter_mut().for_each(File::sync);
        self.directories.values_mut().for_each(Directory::sync);
    }

    /// Cuts the power, and puts what is left into `root`, which is empty.
    pub(crate) fn cut(&self, random: &mut Random, root: &Path) {
        self.put(random, root, "");
    }

    fn put(&self, random: &mut Random, root: &Path, directory: &str) {
        for (name, entry) in self.directories[directory].after_cut(random) {
            let path = joined(directory, &name);
            match entry {
                Entry::File(file) => {
                    fs::write(root.join(path), self.files[file].after_cut(random)).expect("write");
                }
                Entry::Directory => {
                    fs::create_dir(root.join(&path)).expect("make a directory");
                    self.put(random, root, &path);
                }
            }
        }
    }

    fn add(&mut self, inode: u64, file: File) -> usize {
        self.files.push(file);
        self.by_inode.insert(inode, self.files.len() - 1);
        self.files.len() - 1
    }

    fn file(&mut self, inode: u64) -> &mut File {
        let at = self.by_inode.get(&inode).expect("a file that was there or was made");
        &mut self.files[*at]
    }

    fn name(&mut self, path: &str, make: impl FnOnce(String) -> Name) {
        let (directory, name) = split(path);
        self.directories.get_mut(directory).expect("it was made").pending.push(make(name.to_owned()));
    }
}

impl File {
    fn sync(&mut self) {
        for data in self.pending.drain(..) {
            data.reach(&mut self.durable);
        }
    }

    fn after_cut(&self, random: &mut Random) -> Vec<u8> {
        let mut content = self.durable.clone();
        if self.pending.is_empty() {
            return content;
        }
        match random.below(4) {
            0 => {}
            1 => self.pending.iter().for_each(|data| data.reach(&mut content)),
            2 => {
                let whole = random.below(self.pending.len() as u64) as usize;
                self.pending[..whole].iter().for_each(|data| data.reach(&mut content));
                self.pending[whole].reach_in_part(&mut content, |sector, sectors| sector < sectors / 2);
            }
            _ => {
                for data in &self.pending {
                    data.reach_in_part(&mut content, |_, _| random.below(2) == 0);
                }
            }
        }
        content
    }
}

impl Data {
    fn reach(&self, content: &mut Vec<u8>) {
        self.reach_in_part(content, |_, _| true);
    }

    /// `reaches` is asked for each sector of it, with how many there are.
    fn reach_in_part(&self, content: &mut Vec<u8>, mut reaches: impl FnMut(usize, usize) -> bool) {
        match self {
            Self::Length(length) => {
                if reaches(0, 1) {
                    content.resize(*length, 0);
                }
            }
            Self::Write { offset, bytes } => {
                let begin = offset - offset % SECTOR_BYTES;
                let sectors = (offset + bytes.len() - begin).div_ceil(SECTOR_BYTES);
                for sector in (0..sectors).filter(|sector| reaches(*sector, sectors)) {
                    let from = (begin + sector * SECTOR_BYTES).max(*offset);
                    let to = (begin + (sector + 1) * SECTOR_BYTES).min(offset + bytes.len());
                    if content.len() < to {
                        content.resize(to, 0);
                    }
                    content[from..to].copy_from_slice(&bytes[from - offset..to - offset]);
                }
            }
        }
    }
}

impl Directory {
    fn sync(&mut self) {
        for name in self.pending.drain(..) {
            name.reach(&mut self.durable);
        }
    }

    fn after_cut(&self, random: &mut Random) -> BTreeMap<String, Entry> {
        let mut names = self.durable.clone();
        let left = match random.below(3) {
            0 => 0,
            1 => self.pending.len(),
            _ => random.below(self.pending.len() as u64 + 1) as usize,
        };
        self.pending[..left].iter().for_each(|name| name.reach(&mut names));
        names
    }
}

impl Name {
    fn reach(&self, names: &mut BTreeMap<String, Entry>) {
        match self {
            Self::Add(name, entry) => drop(names.insert(name.clone(), *entry)),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Rename(from, to) => {
                let entry = names.remove(from).expect("the first changes are there when a later one is");
                names.insert(to.clone(), entry);
            }
        }
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn joined(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}
