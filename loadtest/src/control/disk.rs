//! The floor that the disk sets: how long an append and its `fdatasync` take, by themselves.
//!
//! Always holds: it is measured on the file system of the data that it is compared with, by one writer at a time.

use std::{fs::File, io::Write, path::Path, time::Instant};

use crate::latency::Latencies;

/// Appends that are measured at a time: some hundred milliseconds.
const APPEND_COUNT: usize = 400;

/// Appends `bytes` at a time to a new file in `folder`. Blocks.
pub(super) fn measure(folder: &Path, bytes: usize) -> std::io::Result<Latencies> {
    let path = folder.join("floor");
    let mut file = File::create(&path)?;
    let block = vec![0x5a; bytes];
    let mut latencies = Latencies::new();
    for _ in 0..APPEND_COUNT {
        let began = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        latencies.record(began.elapsed());
    }
    std::fs::remove_file(&path)?;
    Ok(latencies)
}
