//! What the disk can do, without anything of ours.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How often a second 512 bytes can be appended and be on disk, in the directory where the log will be.
pub(crate) fn syncs_per_second(directory: &Path) -> Result<f64> {
    let path = directory.join("raw");
    let mut file = File::create(&path)?;
    let (begin, mut count) = (Instant::now(), 0.0);
    while begin.elapsed() < TIME {
        file.write_all(&[0x5A; 512])?;
        file.sync_data()?;
        count += 1.0;
    }
    let rate = count / begin.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}

const TIME: Duration = Duration::from_secs(2);
