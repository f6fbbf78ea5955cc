//! Memory that other processes see and change at the same time.
//!
//! A [`Mapping`] gives out no references: `&[u8]` would promise that nobody writes. Bytes are
//! copied in and out with relaxed atomics, a word at a time where they are aligned, so a race
//! with another process can mix old and new bytes and nothing worse.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use libredox::call::MmapArgs;
use libredox::flag::{MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE};
use syscall::error::{EACCES, EINVAL};

use crate::error::{Error, Result};
use crate::object_fd::Rights;

const WORD: usize = size_of::<u64>();

/// Bytes that are copied from mapping to mapping at a time: a multiple of `WORD`.
const PIECE: usize = 1024;

/// A mapped buffer. Dropping it unmaps.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    size: usize,
    rights: Rights,
}

// SAFETY: the mapping belongs to the process, not to a thread, and all access to it is atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `size` bytes, whole pages, of this fd from `offset` on.
    pub(crate) fn new(fd: usize, offset: u64, size: usize, rights: Rights) -> Result<Self> {
        let prot = match rights {
            Rights::ReadWrite => PROT_READ | PROT_WRITE,
            Rights::ReadOnly => PROT_READ,
        };
        let args = MmapArgs {
            addr: core::ptr::null_mut(),
            length: size,
            prot,
            flags: MAP_SHARED,
            fd,
            offset,
        };
        Self::anywhere("map a buffer", args, rights)
    }

    /// Memory that is of no buffer: `size` bytes, whole pages, this process's own.
    pub(crate) fn anonymous(size: usize) -> Result<Self> {
        let args = MmapArgs {
            addr: core::ptr::null_mut(),
            length: size,
            prot: PROT_READ | PROT_WRITE,
            flags: MAP_PRIVATE,
            fd: usize::MAX,
            offset: 0,
        };
        Self::anywhere("allocate memory", args, Rights::ReadWrite)
    }

    /// Memory that is mapped already.
    ///
    /// # Safety
    ///
    /// `base` is page-aligned; `size` bytes from there are mapped and writeable, and accessed
    /// atomically only, as long as this is used. Dropping it unmaps them.
    pub(crate) unsafe fn from_parts(base: NonNull<u8>, size: usize) -> Self {
        let rights = Rights::ReadWrite;
        Self { base, size, rights }
    }

    /// `args` have no fixed address.
    fn anywhere(action: &'static str, args: MmapArgs, rights: Rights) -> Result<Self> {
        let size = args.length;
        // SAFETY: without a fixed address the kernel chooses one where nothing is mapped.
        let base = unsafe { libredox::call::mmap(args) }.map_err(Error::of(action))?;
        let base = NonNull::new(base.cast()).ok_or(Error::new(action, EINVAL))?;
        Ok(Self { base, size, rights })
    }

    /// The size in bytes.
    pub fn len(&self) -> usize {
        self.size
    }

    /// Never: buffers have at least a page.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// The first byte. Valid until the mapping is dropped; others may write at any time.
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Copies bytes from `offset` on out of the buffer.
    ///
    /// # Errors
    ///
    /// EINVAL where they are not all inside.
    pub fn read_at(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.check("read a buffer", offset, bytes.len())?;
        let (head, rest) = bytes.split_at_mut(unaligned(offset, bytes.len()));
        let (words, tail) = rest.as_chunks_mut::<WORD>();
        let mut at = offset;
        for byte in head {
            *byte = self.byte(at).load(Relaxed);
            at += 1;
        }
        for word in words {
            *word = self.word(at).load(Relaxed).to_ne_bytes();
            at += WORD;
        }
        for byte in tail {
            *byte = self.byte(at).load(Relaxed);
            at += 1;
        }
        Ok(())
    }

    /// Copies bytes into the buffer, from `offset` on.
    ///
    /// # Errors
    ///
    /// EINVAL where there is no room; EACCES where the mapping is read-only.
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.check_write("write a buffer", offset, bytes.len())?;
        let (head, rest) = bytes.split_at(unaligned(offset, bytes.len()));
        let (words, tail) = rest.as_chunks::<WORD>();
        let mut at = offset;
        for &byte in head {
            self.byte(at).store(byte, Relaxed);
            at += 1;
        }
        for &word in words {
            self.word(at).store(u64::from_ne_bytes(word), Relaxed);
            at += WORD;
        }
        for &byte in tail {
            self.byte(at).store(byte, Relaxed);
            at += 1;
        }
        Ok(())
    }

    /// Sets every byte.
    ///
    /// # Errors
    ///
    /// EACCES where the mapping is read-only.
    pub fn fill(&self, byte: u8) -> Result<()> {
        self.check_write("fill a buffer", 0, self.size)?;
        let word = u64::from_ne_bytes([byte; WORD]);
        // Mappings are whole pages.
        for at in (0..self.size).step_by(WORD) {
            self.word(at).store(word, Relaxed);
        }
        Ok(())
    }

    /// Copies `length` bytes from `offset` on to `target_offset` in another mapping. They go
    /// through the stack, a piece at a time, since neither mapping lends references; where both
    /// are the same memory, the ranges must not overlap, or what is copied is a mix.
    ///
    /// # Errors
    ///
    /// EINVAL where they are not all inside, on either side; EACCES where `target` is read-only.
    /// Nothing is copied then.
    pub fn copy_to(
        &self,
        offset: usize,
        target: &Self,
        target_offset: usize,
        length: usize,
    ) -> Result<()> {
        self.check("read a buffer", offset, length)?;
        target.check_write("write a buffer", target_offset, length)?;
        let mut piece = [0; PIECE];
        for done in (0..length).step_by(PIECE) {
            let (piece, _) = piece.split_at_mut(PIECE.min(length - done));
            self.read_at(offset + done, piece)?;
            target.write_at(target_offset + done, piece)?;
        }
        Ok(())
    }

    fn check(&self, action: &'static str, offset: usize, length: usize) -> Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Error::new(action, EINVAL)),
        }
    }

    fn check_write(&self, action: &'static str, offset: usize, length: usize) -> Result<()> {
        if self.rights == Rights::ReadOnly {
            return Err(Error::new(action, EACCES));
        }
        self.check(action, offset, length)
    }

    fn byte(&self, at: usize) -> &AtomicU8 {
        debug_assert!(at < self.size);
        // SAFETY: callers have checked that `at` lies inside the mapping, which lives as long as
        // `self`; nothing here accesses it but atomically. On a read-only mapping only loads are
        // made (`check_write`).
        unsafe { AtomicU8::from_ptr(self.base.as_ptr().add(at)) }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        debug_assert!(at.is_multiple_of(WORD) && at + WORD <= self.size);
        // SAFETY: as in `byte`, for `WORD` bytes; the mapping begins at a page, so `at` decides
        // the alignment, and callers have checked it.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at).cast()) }
    }
}

/// How many of `length` bytes from `offset` on come before the first whole word.
fn unaligned(offset: usize, length: usize) -> usize {
    (offset.wrapping_neg() % WORD).min(length)
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping's own, and no reference into it outlives `self`.
        // Unmapping what is mapped does not fail.
        let _ = unsafe { libredox::call::munmap(self.base.as_ptr().cast(), self.size) };
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    /// Memory that belongs to no buffer.
    pub(crate) fn anonymous(size: usize, rights: Rights) -> Mapping {
        Mapping::new(usize::MAX, 0, size, rights).unwrap()
    }

    #[test]
    fn bytes_at_any_alignment_come_back_and_the_rest_is_untouched() {
        let mapping = anonymous(4096, Rights::ReadWrite);
        for offset in 0..20 {
            for length in 0..40 {
                mapping.fill(0xee).unwrap();
                let bytes: Vec<u8> = (0..length).collect();
                mapping.write_at(offset, &bytes).unwrap();
                let mut expected = vec![0xee; 4096];
                expected[offset..offset + bytes.len()].copy_from_slice(&bytes);
                let mut whole = vec![0; 4096];
                mapping.read_at(0, &mut whole).unwrap();
                assert_eq!(whole, expected, "{length} bytes at {offset}");
                let mut back = vec![0; bytes.len()];
                mapping.read_at(offset, &mut back).unwrap();
                assert_eq!(back, bytes);
            }
        }
    }

    #[test]
    fn nothing_outside_of_a_mapping_is_touched() {
        let mapping = anonymous(4096, Rights::ReadWrite);
        for (offset, length) in [(4096, 1), (4090, 7), (usize::MAX, 2), (0, 4097)] {
            let mut bytes = vec![0; length];
            let errno = |result: Result<()>| result.unwrap_err().errno();
            assert_eq!(errno(mapping.read_at(offset, &mut bytes)), EINVAL);
            assert_eq!(errno(mapping.write_at(offset, &bytes)), EINVAL);
            assert_eq!(errno(mapping.copy_to(offset, &mapping, 0, length)), EINVAL);
            assert_eq!(errno(mapping.copy_to(0, &mapping, offset, length)), EINVAL);
        }
        mapping.read_at(4096, &mut []).unwrap();
    }

    #[test]
    fn a_read_only_mapping_is_not_written() {
        let mapping = anonymous(4096, Rights::ReadOnly);
        assert_eq!(mapping.fill(1).unwrap_err().errno(), EACCES);
        assert_eq!(mapping.write_at(0, &[1]).unwrap_err().errno(), EACCES);
        let source = anonymous(4096, Rights::ReadWrite);
        assert_eq!(
            source.copy_to(0, &mapping, 0, 1).unwrap_err().errno(),
            EACCES
        );
    }

    #[test]
    fn a_copy_moves_more_than_a_piece_between_unaligned_offsets() {
        let (source, target) = (
            anonymous(8192, Rights::ReadWrite),
            anonymous(8192, Rights::ReadWrite),
        );
        let bytes: Vec<u8> = (0..5000).map(|n: usize| n as u8).collect();
        source.write_at(3, &bytes).unwrap();
        source.copy_to(3, &target, 1001, bytes.len()).unwrap();
        let mut copied = vec![0; bytes.len()];
        target.read_at(1001, &mut copied).unwrap();
        assert_eq!(copied, bytes);
        let mut after = [1];
        target.read_at(1001 + bytes.len(), &mut after).unwrap();
        assert_eq!(after, [0]);
    }
}
