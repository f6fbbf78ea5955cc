//! Flags in libredox's terms, which on Linux are Linux's numbers, and in those of the Redox kernel,
//! which are what a scheme sees.

use syscall::error::{EINVAL, Error, Result};
use syscall::flag::{self as redox, MapFlags};

/// Redox's number for close-on-exec in the flags of open, which the kernel passes on.
const REDOX_O_CLOEXEC: usize = 0x0100_0000;

const OPEN_FLAGS: &[(i32, usize)] = &[
    (libc::O_NONBLOCK, redox::O_NONBLOCK),
    (libc::O_APPEND, redox::O_APPEND),
    (libc::O_ASYNC, redox::O_ASYNC),
    (libc::O_SYNC, redox::O_FSYNC),
    (libc::O_CLOEXEC, REDOX_O_CLOEXEC),
    (libc::O_CREAT, redox::O_CREAT),
    (libc::O_TRUNC, redox::O_TRUNC),
    (libc::O_EXCL, redox::O_EXCL),
    (libc::O_DIRECTORY, redox::O_DIRECTORY),
    (libc::O_PATH, redox::O_STAT),
    (libc::O_NOFOLLOW, redox::O_NOFOLLOW),
];

/// The flags of open. A flag that Redox does not have is EINVAL.
pub(crate) fn open_flags(linux: u32) -> Result<usize> {
    let linux = linux as i32;
    let access = match linux & libc::O_ACCMODE {
        libc::O_RDONLY => redox::O_RDONLY,
        libc::O_WRONLY => redox::O_WRONLY,
        libc::O_RDWR => redox::O_RDWR,
        _ => return Err(Error::new(EINVAL)),
    };
    let mut rest = linux & !libc::O_ACCMODE;
    let mut flags = access;
    for &(from, to) in OPEN_FLAGS {
        if rest & from == from {
            rest &= !from;
            flags |= to;
        }
    }
    if rest != 0 {
        return Err(Error::new(EINVAL));
    }
    Ok(flags)
}

/// The argument of `F_SETFL`: Redox's numbers pass as they are, as does what nobody knows;
/// Linux's flag for not blocking counts as Redox's.
pub(crate) fn status_flags(argument: usize) -> usize {
    let linux = libc::O_NONBLOCK as usize;
    if argument & linux == 0 {
        return argument;
    }
    (argument & !linux) | redox::O_NONBLOCK
}

/// Protection and flags of mmap. A flag that Redox does not have is EINVAL.
pub(crate) fn map_flags(protection: u32, linux: u32) -> Result<MapFlags> {
    let known = [
        (libc::MAP_SHARED, MapFlags::MAP_SHARED),
        (libc::MAP_PRIVATE, MapFlags::MAP_PRIVATE),
        (libc::MAP_FIXED_NOREPLACE, MapFlags::MAP_FIXED_NOREPLACE),
        (libc::MAP_FIXED, MapFlags::MAP_FIXED),
    ];
    let protections = [
        (libc::PROT_READ, MapFlags::PROT_READ),
        (libc::PROT_WRITE, MapFlags::PROT_WRITE),
        (libc::PROT_EXEC, MapFlags::PROT_EXEC),
    ];
    let flags = translate(linux as i32, &known)? | translate(protection as i32, &protections)?;
    Ok(flags)
}

fn translate(mut linux: i32, known: &[(i32, MapFlags)]) -> Result<MapFlags> {
    let mut flags = MapFlags::empty();
    for (from, to) in known {
        if linux & from != 0 {
            linux &= !from;
            flags |= *to;
        }
    }
    if linux != 0 {
        return Err(Error::new(EINVAL));
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_flags_are_the_redox_kernels() {
        let linux = libc::O_RDWR | libc::O_CREAT | libc::O_SYNC | libc::O_CLOEXEC;
        let redox = redox::O_RDWR | redox::O_CREAT | redox::O_FSYNC | REDOX_O_CLOEXEC;
        assert_eq!(open_flags(linux as u32), Ok(redox));
        assert_eq!(open_flags(0), Ok(redox::O_RDONLY));
        assert_eq!(open_flags(libc::O_DIRECT as u32), Err(Error::new(EINVAL)));
        assert_eq!(open_flags(3), Err(Error::new(EINVAL)));
    }

    #[test]
    fn map_flags_are_the_redox_kernels() {
        let shared = MapFlags::MAP_SHARED | MapFlags::PROT_READ | MapFlags::PROT_WRITE;
        assert_eq!(map_flags(3, 1), Ok(shared));
        assert_eq!(
            map_flags(1, 0x10),
            Ok(MapFlags::MAP_FIXED | MapFlags::PROT_READ)
        );
        assert_eq!(map_flags(8, 1), Err(Error::new(EINVAL)));
        assert_eq!(map_flags(1, 4), Err(Error::new(EINVAL)));
    }

    #[test]
    fn both_flags_for_not_blocking_are_understood() {
        assert_eq!(status_flags(libc::O_NONBLOCK as usize), redox::O_NONBLOCK);
        assert_eq!(status_flags(redox::O_NONBLOCK), redox::O_NONBLOCK);
    }
}
