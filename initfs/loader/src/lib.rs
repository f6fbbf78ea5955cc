//! A multiboot loader that starts a Redox kernel in QEMU. It exists for the test image only: a
//! real machine boots Redox with Redox's own bootloader.
//!
//! This library is the part that only computes: it reads what QEMU hands over ([`multiboot`]),
//! checks the kernel ([`kernel`]), finds the ACPI root ([`rsdp`]) and decides where things go
//! ([`handover`]). It touches no hardware and no memory but what it is given; the program in
//! `main.rs` does.

#![cfg_attr(not(test), no_std)]

pub mod handover;
pub mod kernel;
pub mod multiboot;
pub mod rsdp;

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 4096;

/// Physical memory, as far as the loader can see it.
pub trait PhysicalMemory {
    /// `length` bytes from `address` on, or `None` where they cannot be read.
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]>;
}

/// The `u32` at `offset`, or `None` past the end.
fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let end = offset.checked_add(4)?;
    Some(u32::from_le_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

/// The `u64` at `offset`, or `None` past the end.
fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let end = offset.checked_add(8)?;
    Some(u64::from_le_bytes(bytes.get(offset..end)?.try_into().ok()?))
}
