//! The audit file of a `gantry dev` under test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::eventually::eventually;

/// How long a record may take from the answer to the file. It takes milliseconds.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);

/// The file, read anew every time.
#[derive(Debug, Clone)]
pub struct Trail {
    path: PathBuf,
}

impl Trail {
    /// The audit file below a data directory.
    #[must_use]
    pub fn below(data_dir: &Path) -> Self {
        Self { path: data_dir.join("data-plane").join("audit.jsonl") }
    }

    /// Every record that is written whole, oldest first.
    ///
    /// # Panics
    /// When a line is no JSON: a record is JSON from its first byte to its last.
    #[must_use]
    pub fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| match serde_json::from_str(line) {
                Ok(record) => record,
                Err(error) => panic!("{error}: {line}"),
            })
            .collect()
    }

    /// Waits until a record is there that fits, and returns all of them.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn until(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        eventually(what, WRITE_TIME_MAX, async || {
            let records = self.records();
            records.iter().any(&fits).then_some(records)
        })
        .await
    }

    /// Waits until so many records are there, and returns all of them, which may be more.
    ///
    /// # Panics
    /// When they do not come in time.
    pub async fn at_least(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} records"), WRITE_TIME_MAX, async || {
            let records = self.records();
            (records.len() >= count).then_some(records)
        })
        .await
    }
}
