//! A client's own pages: what travels beside the calls.
//!
//! To register a range, a client sends an fd of its address space to its node: `sendfd` with one
//! metadata word, the [`Taking`], which says what is to be taken over. That waits until the pages
//! are taken. A USERPTR call then [claims](Claimed) them, and a mapping at the offset that it answers
//! makes them the client's again. The fd comes with a request of its own because a call carries
//! none, and is used up by it, because an fd of an address space that a server keeps would keep the
//! address space of a dead process.

use crate::Malformed;

/// Bytes in a page.
const PAGE: u64 = 4096;

/// The highest handle that an object of a client's own pages can have, so that [`Claimed`] has room
/// for the offset and its low half is never an errno.
pub const MAX_HANDLE: u32 = 0xff_ff00;

/// The lowest fake offset of an object of a client's own pages, in bytes.
pub const FIRST_OFFSET: u64 = 0x6000_0000_0000_0000;

/// The most pages of one range.
pub const MAX_PAGES: u64 = (1 << PAGES_BITS) - 1;

bitflags::bitflags! {
    /// How a range is registered: the values of Linux's `I915_USERPTR_*`, but that the last one is
    /// a low bit here.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct UserptrFlags: u32 {
        /// Devices may only read the pages.
        const READ_ONLY = 1 << 0;
        /// Fail now if a part is not mapped. Registering always does.
        const PROBE = 1 << 1;
        /// Do not notice when the client unmaps them: refused, as on Linux.
        const UNSYNCHRONIZED = 1 << 7;
    }
}

impl UserptrFlags {
    /// `I915_USERPTR_UNSYNCHRONIZED`.
    const DRM_UNSYNCHRONIZED: u32 = 1 << 31;

    /// From the flags of the DRM call.
    pub fn from_drm(flags: u32) -> Option<Self> {
        if flags & Self::UNSYNCHRONIZED.bits() != 0 {
            return None;
        }
        let unsynchronized = flags & Self::DRM_UNSYNCHRONIZED != 0;
        let rest = Self::from_bits(flags & !Self::DRM_UNSYNCHRONIZED)?;
        Some(
            rest | if unsynchronized {
                Self::UNSYNCHRONIZED
            } else {
                Self::empty()
            },
        )
    }
}

// An address is a page's number of 35 bits: user space ends at 2^47.
const ADDRESS_BITS: u32 = 35;
const PAGES_BITS: u32 = 27;
const HANDLE_BITS: u32 = 24;
const READ_ONLY: u64 = 1 << 62;
const AGAIN: u64 = 1 << 63;

/// What is to be taken over, as the metadata word of a `sendfd`. Addresses are in bytes, whole
/// pages, below 2^47; they are those from which the pages are taken, which need not be where they
/// are mapped afterwards.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taking {
    /// Pages for a new object.
    New {
        /// From where.
        address: u64,
        /// How many: 1 to [`MAX_PAGES`].
        pages: u64,
        /// Whether devices may only read them.
        read_only: bool,
    },
    /// Pages for an object whose pages went back to the client: as many as it had.
    Again {
        /// From where.
        address: u64,
        /// Which object.
        handle: u32,
    },
}

impl Taking {
    /// As one word. `None` where a number does not fit, or the address is not a page's.
    pub fn encode(self) -> Option<u64> {
        let (address, count, bits, flags) = match self {
            Self::New {
                address,
                pages,
                read_only: false,
            } => (address, pages, PAGES_BITS, 0),
            Self::New { address, pages, .. } => (address, pages, PAGES_BITS, READ_ONLY),
            Self::Again { address, handle } => (address, handle.into(), HANDLE_BITS, AGAIN),
        };
        let page = address / PAGE;
        let fits = page >> ADDRESS_BITS == 0 && count >> bits == 0;
        (fits && address.is_multiple_of(PAGE)).then_some(page | count << ADDRESS_BITS | flags)
    }

    /// From one word.
    ///
    /// # Errors
    ///
    /// [`Malformed`]: a bit is set that has no meaning, or there are no pages.
    pub fn decode(word: u64) -> Result<Self, Malformed> {
        let address = (word & ((1 << ADDRESS_BITS) - 1)) * PAGE;
        let rest = word >> ADDRESS_BITS;
        if word & AGAIN == 0 {
            let pages = rest & MAX_PAGES;
            if pages == 0 {
                return Err(Malformed::OutOfRange);
            }
            return Ok(Self::New {
                address,
                pages,
                read_only: word & READ_ONLY != 0,
            });
        }
        let handle = rest & !(AGAIN >> ADDRESS_BITS);
        if handle >> HANDLE_BITS != 0 {
            return Err(Malformed::UnknownFlags);
        }
        let handle = handle as u32;
        Ok(Self::Again { address, handle })
    }
}

/// The answer to USERPTR: `handle | page << 24`, where `page` counts from [`FIRST_OFFSET`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claimed {
    /// The handle, at most [`MAX_HANDLE`].
    pub handle: u32,
    /// Where to map the pages again: the fake offset in bytes.
    pub offset: u64,
}

impl Claimed {
    /// As one word. `None` where it does not fit.
    pub fn pack(self) -> Option<u64> {
        let page = self.offset.checked_sub(FIRST_OFFSET)? / PAGE;
        let fits = self.handle <= MAX_HANDLE && page < 1 << 39;
        fits.then_some(u64::from(self.handle) | page << HANDLE_BITS)
    }

    /// From one word.
    pub fn unpack(word: u64) -> Self {
        let page = word >> HANDLE_BITS;
        Self {
            handle: word as u32 & ((1 << HANDLE_BITS) - 1),
            offset: FIRST_OFFSET.wrapping_add(page.wrapping_mul(PAGE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_taking_survives_the_wire() {
        let last_page = (1 << 47) - PAGE;
        for address in [0, PAGE, last_page] {
            for pages in [1, 5, MAX_PAGES] {
                for read_only in [false, true] {
                    let taking = Taking::New {
                        address,
                        pages,
                        read_only,
                    };
                    assert_eq!(Taking::decode(taking.encode().unwrap()), Ok(taking));
                }
            }
            for handle in [0, 1, MAX_HANDLE, (1 << 24) - 1] {
                let taking = Taking::Again { address, handle };
                assert_eq!(Taking::decode(taking.encode().unwrap()), Ok(taking));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_no_taking() {
        let new = |address, pages| {
            let read_only = false;
            let taking = Taking::New {
                address,
                pages,
                read_only,
            };
            taking.encode()
        };
        assert_eq!(new(1 << 47, 1), None);
        assert_eq!(new(PAGE + 1, 1), None);
        assert_eq!(new(PAGE, MAX_PAGES + 1), None);
        let handle = 1 << 24;
        assert_eq!(Taking::Again { address: 0, handle }.encode(), None);
        assert_eq!(Taking::decode(0), Err(Malformed::OutOfRange));
        assert_eq!(Taking::decode(READ_ONLY | 5), Err(Malformed::OutOfRange));
        for bit in 59..63 {
            let refused = Taking::decode(AGAIN | 1 << bit);
            assert_eq!(refused, Err(Malformed::UnknownFlags));
        }
    }

    #[test]
    fn a_claim_is_never_an_errno() {
        for handle in [1, 7, MAX_HANDLE] {
            for page in [0, 0xff, 0xffff, (1 << 39) - 1] {
                let offset = FIRST_OFFSET + page * PAGE;
                let claimed = Claimed { handle, offset };
                let word = claimed.pack().unwrap();
                assert_eq!(Claimed::unpack(word), claimed);
                assert!(i64::try_from(word).is_ok());
                assert!(!(-132..=-1).contains(&(word as u32 as i32)));
            }
        }
        let claimed = |handle, offset| Claimed { handle, offset }.pack();
        assert_eq!(claimed(MAX_HANDLE + 1, FIRST_OFFSET), None);
        assert_eq!(claimed(1, FIRST_OFFSET - PAGE), None);
        assert_eq!(claimed(1, FIRST_OFFSET + (PAGE << 39)), None);
    }

    #[test]
    fn flags_of_the_drm_call_have_the_same_meaning() {
        for (drm, flags) in [
            (0, UserptrFlags::empty()),
            (1, UserptrFlags::READ_ONLY),
            (2, UserptrFlags::PROBE),
            (
                1 << 31 | 1,
                UserptrFlags::UNSYNCHRONIZED | UserptrFlags::READ_ONLY,
            ),
        ] {
            assert_eq!(UserptrFlags::from_drm(drm), Some(flags));
        }
        for unknown in [4, 0x80, 1 << 30] {
            assert_eq!(UserptrFlags::from_drm(unknown), None);
        }
    }
}
