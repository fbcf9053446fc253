//! What a child did to its directory, in order, as `disk.c` wrote it down.

use std::path::Path;

/// One record. Names are relative to the directory; a file is known by its inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    MakeDirectory(String),
    Create {
        file: u64,
        name: String,
    },
    Write {
        file: u64,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetLength {
        file: u64,
        length: u64,
    },
    SyncFile(u64),
    /// The operating system was asked to write some of it, which promises nothing.
    Hint(u64),
    SyncDirectory(String),
    Rename {
        from: String,
        to: String,
    },
    Remove(String),
    RemoveDirectory(String),
    /// Written to standard output.
    Said(String),
    /// A change that was made to fail.
    Failed,
}

const HEAD_BYTES: usize = 40;

/// Reads a trace. A last record that the end of the process cut short is left out: nothing came after it.
pub(crate) fn read(path: &Path) -> Vec<Op> {
    let bytes = std::fs::read(path).expect("a trace");
    let mut rest = bytes.as_slice();
    let mut ops = Vec::new();
    while let Some(op) = next(&mut rest) {
        ops.push(op);
    }
    ops
}

/// The lines that were said, without what the test harness says, which has no `mark`.
pub(crate) fn said<'a>(ops: impl IntoIterator<Item = &'a Op>, mark: &str) -> Vec<String> {
    let said = ops.into_iter().filter_map(|op| match op {
        Op::Said(text) => Some(text.as_str()),
        _ => None,
    });
    let all: String = said.collect();
    let whole = all.rfind('\n').map_or("", |end| &all[..end]);
    whole.lines().filter_map(|line| line.split_once(mark).map(|(_, line)| line.to_owned())).collect()
}

fn next(rest: &mut &[u8]) -> Option<Op> {
    let (head, after) = rest.split_at_checked(HEAD_BYTES)?;
    let number = |at: usize| u64::from_ne_bytes(head[at * 8..][..8].try_into().expect("eight bytes"));
    let (file, offset, name_bytes, data_bytes) =
        (number(1), number(2), number(3) as usize, number(4) as usize);
    let (name, after) = after.split_at_checked(name_bytes)?;
    let (data, after) = after.split_at_checked(data_bytes)?;
    *rest = after;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let name = text(name);
    Some(match number(0) as u8 {
        b'M' => Op::MakeDirectory(name),
        b'C' => Op::Create { file, name },
        b'W' => Op::Write { file, offset, bytes: data.to_vec() },
        b'T' => Op::SetLength { file, length: offset },
        b'F' => Op::SyncFile(file),
        b'G' => Op::Hint(file),
        b'D' => Op::SyncDirectory(name),
        b'R' => Op::Rename { from: name, to: text(data) },
        b'U' => Op::Remove(name),
        b'X' => Op::RemoveDirectory(name),
        b'S' => Op::Said(text(data)),
        b'E' => Op::Failed,
        other => panic!("record {other} is not known"),
    })
}
