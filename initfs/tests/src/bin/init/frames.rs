//! Frames: what a promise takes of the machine's memory, it gives back.

use core::time::Duration;

use libredox::Fd;
use libredox::data::StatVfs;
use libredox::flag::O_RDONLY;
use rt::time::{Instant, sleep};

use crate::{Broken, Outcome, expect};

/// How long what is closed may take to reach the kernel.
const SETTLING: Duration = Duration::from_secs(2);

/// Frames that the machine has left.
pub fn free() -> Result<u64, Broken> {
    Ok(ask()?.f_bfree)
}

/// Frames that the machine has, used or not.
pub fn all() -> Result<u64, Broken> {
    Ok(ask()?.f_blocks)
}

fn ask() -> Result<StatVfs, Broken> {
    let memory = Fd::open("/scheme/memory/zeroed", O_RDONLY, 0);
    memory
        .and_then(|memory| memory.statvfs())
        .map_err(|error| Broken::Call("ask for free memory", error.into()))
}

/// Keeps a promise and looks whether all frames have come back. The first time may leave heap and
/// page tables behind, in the kernel, the bootstrap process and this one, which the second time finds
/// but for a piece that lies badly; what is lost the third time is lost every time.
pub fn kept_without_loss(keep: impl Fn() -> Outcome) -> Outcome {
    let mut lost = 0;
    for _ in 0..3 {
        let before = free()?;
        keep()?;
        lost = settle(before)?;
        if lost == 0 {
            return Ok(());
        }
    }
    expect("frames lost", lost, 0)
}

/// How many frames are missing of `before`, when nothing more comes back.
pub fn settle(before: u64) -> Result<u64, Broken> {
    let end = Instant::now().after(SETTLING);
    loop {
        let lost = before.saturating_sub(free()?);
        if lost == 0 || Instant::now() >= end {
            return Ok(lost);
        }
        sleep(Duration::from_millis(1));
    }
}
