//! What a process has mapped where, as Linux tells it: `/proc/PID/maps`; and which of its pages are
//! held (`/proc/PID/pagemap`).
//!
//! One mapping after the other is asked for by address (`PROCMAP_QUERY`, Linux 6.11), so that what
//! it costs does not depend on how many there are. An older Linux tells all of them at once; there
//! each question costs as much as the process has mappings.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use linux_raw_sys::general::{procmap_query, procmap_query_flags};
use nix::errno::Errno;

use super::uffd::Span;

/// How a file is told from others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FileId {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) inode: u64,
}

/// One mapping.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Vma {
    pub(crate) span: Span,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// Where its first byte lies in its file, in bytes.
    pub(crate) offset: u64,
    /// What is mapped; `None` for memory that has no name: the process's own.
    pub(crate) file: Option<FileId>,
    /// Whether it is memory that forked processes share (`MAP_SHARED | MAP_ANONYMOUS`).
    pub(crate) shared_anonymous: bool,
}

/// A process's mappings, as they are at the time of each question.
#[derive(Debug)]
pub(crate) struct Maps(File);

/// Room for the longest name that matters, and its end.
const NAME_ROOM: usize = 32;
/// What Linux calls shared memory without a name.
const SHARED_ANONYMOUS: &str = "/dev/zero (deleted)";

impl Maps {
    /// Those of process `pid`.
    ///
    /// # Errors
    ///
    /// EACCES where it is somebody else's, ENOENT where it is gone.
    pub(crate) fn open(pid: u64) -> std::io::Result<Self> {
        File::open(format!("/proc/{pid}/maps")).map(Self)
    }

    /// The mapping that covers `address`, or else the next one behind it.
    pub(crate) fn at_or_behind(&mut self, address: u64) -> Option<Vma> {
        match self.query(address) {
            Ok(vma) => Some(vma),
            Err(Errno::ENOTTY) => self.find_in_text(address),
            Err(_) => None,
        }
    }

    /// Calls `each` for the mappings that have a part in `span`, in order, until it says no;
    /// whether it never did, and they covered all of `span`.
    pub(crate) fn all_covered(&mut self, span: Span, mut each: impl FnMut(Vma) -> bool) -> bool {
        let mut next = span.start;
        while next < span.end {
            match self.at_or_behind(next) {
                Some(vma) if vma.span.start <= next && each(vma) => next = vma.span.end,
                _ => return false,
            }
        }
        true
    }

    fn query(&self, address: u64) -> nix::Result<Vma> {
        use procmap_query_flags::*;
        let mut name = [0_u8; NAME_ROOM];
        let mut query = procmap_query {
            size: size_of::<procmap_query>() as u64,
            query_flags: PROCMAP_QUERY_COVERING_OR_NEXT_VMA as u64,
            query_addr: address,
            vma_start: 0,
            vma_end: 0,
            vma_flags: 0,
            vma_page_size: 0,
            vma_offset: 0,
            inode: 0,
            dev_major: 0,
            dev_minor: 0,
            vma_name_size: NAME_ROOM as u32,
            build_id_size: 0,
            vma_name_addr: name.as_mut_ptr().expose_provenance() as u64,
            build_id_addr: 0,
        };
        let mut done = self.ask(&mut query);
        if done == Err(Errno::ENAMETOOLONG) {
            // A longer name is none of those that matter.
            name = [0; NAME_ROOM];
            query.vma_name_size = 0;
            query.vma_name_addr = 0;
            done = self.ask(&mut query);
        }
        done?;
        let is = |flag: procmap_query_flags| query.vma_flags & flag as u64 != 0;
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(Vma {
            span: Span {
                start: query.vma_start,
                end: query.vma_end,
            },
            readable: is(PROCMAP_QUERY_VMA_READABLE),
            writable: is(PROCMAP_QUERY_VMA_WRITABLE),
            offset: query.vma_offset,
            file: (query.inode != 0).then_some(FileId {
                major: query.dev_major,
                minor: query.dev_minor,
                inode: query.inode,
            }),
            shared_anonymous: name == SHARED_ANONYMOUS.as_bytes(),
        })
    }

    fn ask(&self, query: &mut procmap_query) -> nix::Result<()> {
        // `_IOWR(PROCFS_IOCTL_MAGIC, 17, struct procmap_query)` of `include/uapi/linux/fs.h`.
        let request = libc::_IOWR::<procmap_query>(u32::from(b'f'), 17);
        // SAFETY: the structure is the one that the request is defined with, and says its own
        // size; the name's address is that of a buffer of the size beside it, alive for the call.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), request, query) };
        Errno::result(done).map(drop)
    }

    fn find_in_text(&mut self, address: u64) -> Option<Vma> {
        let mut text = String::new();
        self.0.rewind().ok()?;
        self.0.read_to_string(&mut text).ok()?;
        let vmas = text.lines().filter_map(parse);
        vmas.into_iter().find(|vma| vma.span.end > address)
    }
}

/// Whether whoever writes to the page at `address` of process `pid` waits for a userfaultfd.
///
/// # Errors
///
/// EACCES where it is somebody else's, ENOENT where it is gone, EMFILE and ENFILE.
pub(crate) fn is_held(pid: u64, address: u64) -> std::io::Result<bool> {
    // Bit 57 of a page's entry, see Linux's `Documentation/admin-guide/mm/pagemap.rst`.
    const HELD: u64 = 1 << 57;
    const ENTRY: u64 = size_of::<u64>() as u64;
    let mut entry = [0; ENTRY as usize];
    let table = File::open(format!("/proc/{pid}/pagemap"))?;
    table.read_exact_at(&mut entry, address / gem::units::PAGE_SIZE * ENTRY)?;
    Ok(u64::from_ne_bytes(entry) & HELD != 0)
}

/// A line of the text: `start-end perms offset major:minor inode   name`.
fn parse(line: &str) -> Option<Vma> {
    let hexadecimal = |text| u64::from_str_radix(text, 16).ok();
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?.as_bytes();
    let offset = hexadecimal(words.next()?)?;
    let (major, minor) = words.next()?.split_once(':')?;
    let inode: u64 = words.next()?.parse().ok()?;
    let name = words.next().unwrap_or_default().trim_start();
    Some(Vma {
        span: Span {
            start: hexadecimal(start)?,
            end: hexadecimal(end)?,
        },
        readable: permissions.first() == Some(&b'r'),
        writable: permissions.get(1) == Some(&b'w'),
        offset,
        file: (inode != 0).then_some(FileId {
            major: u32::from_str_radix(major, 16).ok()?,
            minor: u32::from_str_radix(minor, 16).ok()?,
            inode,
        }),
        shared_anonymous: name == SHARED_ANONYMOUS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_asking_tell_the_same() {
        let mut maps = Maps::open(std::process::id().into()).unwrap();
        let own = both_ways_of_asking_tell_the_same as fn() as usize as u64;
        let stack = [0_u8; 1].as_ptr() as u64;
        for address in [own, stack] {
            let found = maps.at_or_behind(address).unwrap();
            assert!(found.span.start <= address && address < found.span.end);
            assert_eq!(maps.find_in_text(address), Some(found));
        }
    }

    #[test]
    fn a_hole_is_not_covered() {
        let mut maps = Maps::open(std::process::id().into()).unwrap();
        let bytes = 16 * 4096;
        // SAFETY: a new mapping, of which the middle is given up again; nobody else knows it.
        let start = unsafe {
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let made = libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, kind, -1, 0);
            assert_ne!(made, libc::MAP_FAILED);
            libc::munmap(made.byte_add(4 * 4096), 4096);
            made as u64
        };
        let span = |from: u64, to: u64| Span {
            start: start + from * 4096,
            end: start + to * 4096,
        };
        assert!(maps.all_covered(span(0, 4), |vma| vma.file.is_none()));
        assert!(maps.all_covered(span(5, 16), |vma| !vma.writable));
        assert!(!maps.all_covered(span(0, 16), |_| true));
        assert!(!maps.all_covered(span(0, 4), |vma| vma.writable));
    }

    #[test]
    fn shared_memory_without_a_name_is_known() {
        let mut maps = Maps::open(std::process::id().into()).unwrap();
        // SAFETY: a new mapping.
        let start = unsafe {
            let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, kind, -1, 0) as u64
        };
        let found = maps.at_or_behind(start).unwrap();
        assert!(found.shared_anonymous && found.file.is_some());
        assert_eq!(maps.find_in_text(start), Some(found));
    }
}
