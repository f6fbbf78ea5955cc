//! Copies from and to memory that clients have mapped: they may write at any time, so nothing here
//! makes a reference to it. Words where they are aligned, bytes at the ends.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

const WORD: usize = size_of::<u64>();

/// Fills `bytes` from `source` on.
///
/// # Safety
///
/// `source` points to as many mapped bytes, which nobody accesses but atomically, or in another
/// address space.
pub unsafe fn read(source: usize, bytes: &mut [u8]) {
    let (head, rest) = bytes.split_at_mut(lead(source, bytes.len()));
    let (words, tail) = rest.as_chunks_mut::<WORD>();
    let mut at = source;
    for byte in head {
        // SAFETY: by contract.
        *byte = unsafe { self::byte(at) }.load(Relaxed);
        at += 1;
    }
    for word in words {
        // SAFETY: by contract; `lead` has aligned it.
        *word = unsafe { self::word(at) }.load(Relaxed).to_ne_bytes();
        at += WORD;
    }
    for byte in tail {
        // SAFETY: by contract.
        *byte = unsafe { self::byte(at) }.load(Relaxed);
        at += 1;
    }
}

/// Writes `bytes` from `target` on.
///
/// # Safety
///
/// As [`read`].
pub unsafe fn write(target: usize, bytes: &[u8]) {
    let (head, rest) = bytes.split_at(lead(target, bytes.len()));
    let (words, tail) = rest.as_chunks::<WORD>();
    let mut at = target;
    for &byte in head {
        // SAFETY: by contract.
        unsafe { self::byte(at) }.store(byte, Relaxed);
        at += 1;
    }
    for &word in words {
        // SAFETY: by contract; `lead` has aligned it.
        unsafe { self::word(at) }.store(u64::from_ne_bytes(word), Relaxed);
        at += WORD;
    }
    for &byte in tail {
        // SAFETY: by contract.
        unsafe { self::byte(at) }.store(byte, Relaxed);
        at += 1;
    }
}

/// How many of `length` bytes from `address` on come before the first whole word.
fn lead(address: usize, length: usize) -> usize {
    (address.wrapping_neg() % WORD).min(length)
}

unsafe fn byte(at: usize) -> &'static AtomicU8 {
    // SAFETY: by the callers' contract.
    unsafe { AtomicU8::from_ptr(at as *mut u8) }
}

unsafe fn word(at: usize) -> &'static AtomicU64 {
    // SAFETY: by the callers' contract, and aligned.
    unsafe { AtomicU64::from_ptr(at as *mut u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offset_and_length_copies_just_that() {
        for offset in 0..9 {
            for length in 0..27 {
                let source: Vec<u8> = (1..=length).collect();
                let mut target = [0u64; 6];
                let base = target.as_mut_ptr() as usize + offset;
                let mut copy = vec![0; source.len()];
                // SAFETY: 48 bytes, of which at most 35 are used, by this thread only.
                unsafe {
                    write(base, &source);
                    read(base, &mut copy);
                }
                assert_eq!(copy, source);
                let bytes: Vec<u8> = target.iter().flat_map(|word| word.to_ne_bytes()).collect();
                assert!(bytes[..offset].iter().all(|&byte| byte == 0));
                let end = offset + usize::from(length);
                assert!(bytes[end..].iter().all(|&byte| byte == 0));
            }
        }
    }
}
