//! The programs: a tar archive behind the bootstrap image in memory.

use syscall::error::{EIO, ENOENT, Error, Result};
use tar_no_std::TarArchiveRef;

/// The image's head (`start.s`).
#[repr(C)]
struct Head {
    magic: [u8; 8],
    archive_start: u64,
    archive_size: u64,
}

/// Where the kernel maps the image.
const IMAGE: *const Head = 0x1000 as *const Head;

/// The file of this name.
///
/// # Errors
///
/// ENOENT; EIO where the archive is damaged.
pub fn file(name: &str) -> Result<&'static [u8]> {
    let archive = TarArchiveRef::new(bytes()).map_err(|_| Error::new(EIO))?;
    archive
        .entries()
        .find(|entry| entry.filename().as_str() == Ok(name))
        .map(|entry| entry.data())
        .ok_or(Error::new(ENOENT))
}

fn bytes() -> &'static [u8] {
    // SAFETY: the kernel has mapped the image at this address, head first, and the image builder
    // has put the archive where the head says. Nobody writes to either.
    unsafe {
        let head = IMAGE.read();
        core::slice::from_raw_parts(head.archive_start as *const u8, head.archive_size as usize)
    }
}
