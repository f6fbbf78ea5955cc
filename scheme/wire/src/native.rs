//! Native calls: three metadata words in, one packed result out, no payload.
//!
//! Results cannot be taken for errors: the kernel of August 2026 looks at the low 32 bits only
//! (`redox_syscall` 0.9.2, `Error::demux`), where an errno is a small negative number. Handles
//! are small, names have 31 bits, offsets are whole pages.

use crate::Malformed;
use crate::limit::Limit;
use crate::userptr::UserptrFlags;

/// The first native call number; every DRM ioctl number is below (they are bytes).
pub const BASE: u64 = 0x100;

/// The version of the native protocol that this crate describes.
pub const VERSION: u16 = 1;

/// The most pages an object may have, so that `handle | pages << 32` stays a positive number.
pub const MAX_OBJECT_PAGES: u64 = i32::MAX as u64;

bitflags::bitflags! {
    /// What a server can do, as HELLO tells it.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct Features: u32 {
        /// Buffers: create, map, close.
        const BUFFERS = 1 << 0;
        /// Global names: FLINK and OPEN.
        const NAMES = 1 << 1;
        /// Object fds: export by dup, import by two-fd call.
        const PRIME = 1 << 2;
        /// A client's own pages.
        const USERPTR = 1 << 3;
        /// A GPU address space behind the objects.
        const GTT = 1 << 4;
        /// Events on node fds.
        const EVENTS = 1 << 5;
        /// Advice: what is not needed may be purged.
        const ADVICE = 1 << 6;
    }
}

bitflags::bitflags! {
    /// How a new object's pages are to be.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct CreateFlags: u64 {
        /// Write-combined instead of cached.
        const WRITE_COMBINING = 1 << 0;
        /// Uncached instead of cached.
        const UNCACHED = 1 << 1;
        /// In one piece of physical memory.
        const CONTIGUOUS = 1 << 2;
    }
}

/// Whether an object's contents are worth keeping.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Advice {
    /// They are, as of every new object.
    WillNeed = 0,
    /// They may be lost where memory runs short.
    DontNeed = 1,
}

impl Advice {
    /// The advice of this number, which is that of Linux's `I915_MADV_*`.
    pub fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::WillNeed),
            1 => Some(Self::DontNeed),
            _ => None,
        }
    }
}

/// A native call, checked: whoever holds one knows that its words are in range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Call {
    /// Who are you? `version` is the client's protocol version. Answers [`Hello`].
    Hello {
        /// The client's protocol version.
        version: u16,
    },
    /// A new object of `size` bytes, rounded up to pages. Answers [`Sized`].
    Create {
        /// Size in bytes, not 0.
        size: u64,
        /// How its pages are to be.
        flags: CreateFlags,
    },
    /// Drops a handle.
    Close {
        /// The handle, as the client wrote it.
        handle: u32,
    },
    /// The object's global name, made on first use. Answers the name.
    Flink {
        /// The handle, as the client wrote it.
        handle: u32,
    },
    /// A new handle on the object of this name. Answers [`Sized`].
    Open {
        /// The name, as the client wrote it.
        name: u32,
    },
    /// Where to map the object through this node fd. Answers the fake offset in bytes.
    Map {
        /// The handle, as the client wrote it.
        handle: u32,
    },
    /// How big the object is. Answers the number of pages.
    Size {
        /// The handle, as the client wrote it.
        handle: u32,
    },
    /// A handle on the object behind the second fd of a two-fd call. Answers [`Sized`].
    Import,
    /// This open's magic number, for AuthMagic. Answers the number.
    GetMagic,
    /// As master: lets the open of this magic number use names.
    AuthMagic {
        /// The magic number, as the client wrote it.
        magic: u32,
    },
    /// Whether the object's contents are worth keeping. Answers 1 where it has its pages still, 0
    /// where it was purged.
    Advise {
        /// The handle, as the client wrote it.
        handle: u32,
        /// Are they?
        advice: Advice,
    },
    /// The handle on pages that a `sendfd` has taken over. Answers
    /// [`Claimed`](crate::userptr::Claimed).
    Userptr {
        /// From where they were taken, in bytes, as the client wrote it.
        address: u64,
        /// How many pages, as the client wrote it.
        pages: u64,
        /// As they were taken.
        flags: UserptrFlags,
    },
    /// A limit. Answers its value, packed ([`Limit::pack`]).
    GetLimit {
        /// Which.
        limit: Limit,
    },
    /// As root: another limit from now on, for what is new.
    SetLimit {
        /// Which.
        limit: Limit,
        /// In its range.
        value: u64,
    },
    /// As root: takes everything from the open of this number (as in `clients/<number>`).
    Revoke {
        /// The number, as the client wrote it.
        client: u64,
    },
}

impl Call {
    const HELLO: u64 = BASE;
    const CREATE: u64 = BASE + 1;
    const CLOSE: u64 = BASE + 2;
    const FLINK: u64 = BASE + 3;
    const OPEN: u64 = BASE + 4;
    const MAP: u64 = BASE + 5;
    const SIZE: u64 = BASE + 6;
    const IMPORT: u64 = BASE + 7;
    const GET_MAGIC: u64 = BASE + 8;
    const AUTH_MAGIC: u64 = BASE + 9;
    const USERPTR: u64 = BASE + 0x10;
    const ADVISE: u64 = BASE + 0xa;
    // What is root's has numbers of its own.
    const GET_LIMIT: u64 = BASE + 0x20;
    const SET_LIMIT: u64 = BASE + 0x21;
    const REVOKE: u64 = BASE + 0x22;

    /// The call that these metadata words are. Every word that a call does not use must be zero.
    // Every native call comes through here; out of line, its result is copied twice more.
    #[inline(always)]
    pub fn decode(words: [u64; 3]) -> Result<Self, Malformed> {
        let [number, first, second] = words;
        let call = match number {
            Self::CREATE => {
                return Ok(Self::Create {
                    size: first,
                    flags: CreateFlags::from_bits(second)
                        .filter(|flags| {
                            !flags.contains(CreateFlags::WRITE_COMBINING | CreateFlags::UNCACHED)
                        })
                        .ok_or(Malformed::UnknownFlags)?,
                });
            }
            Self::USERPTR => {
                return Ok(Self::Userptr {
                    address: first,
                    pages: second >> 8,
                    flags: UserptrFlags::from_bits(second as u8 as u32)
                        .ok_or(Malformed::UnknownFlags)?,
                });
            }
            Self::SET_LIMIT => {
                let limit = limit(first)?;
                if !limit.range().contains(&second) {
                    return Err(Malformed::OutOfRange);
                }
                let value = second;
                return Ok(Self::SetLimit { limit, value });
            }
            Self::ADVISE => {
                return Ok(Self::Advise {
                    handle: small(first)?,
                    advice: Advice::from_number(second).ok_or(Malformed::OutOfRange)?,
                });
            }
            Self::CLOSE => Self::Close {
                handle: small(first)?,
            },
            Self::FLINK => Self::Flink {
                handle: small(first)?,
            },
            Self::OPEN => Self::Open {
                name: small(first)?,
            },
            Self::MAP => Self::Map {
                handle: small(first)?,
            },
            Self::SIZE => Self::Size {
                handle: small(first)?,
            },
            Self::HELLO => Self::Hello {
                version: first.try_into().map_err(|_| Malformed::OutOfRange)?,
            },
            Self::AUTH_MAGIC => Self::AuthMagic {
                magic: small(first)?,
            },
            Self::GET_LIMIT => Self::GetLimit {
                limit: limit(first)?,
            },
            Self::REVOKE => Self::Revoke { client: first },
            Self::IMPORT if first == 0 => Self::Import,
            Self::GET_MAGIC if first == 0 => Self::GetMagic,
            Self::IMPORT | Self::GET_MAGIC => return Err(Malformed::NotZero),
            _ => return Err(Malformed::UnknownCall(number)),
        };
        if second == 0 {
            Ok(call)
        } else {
            Err(Malformed::NotZero)
        }
    }

    /// The metadata words of this call. `Import` goes out with its first two words only, on two
    /// fds.
    pub fn encode(self) -> [u64; 3] {
        match self {
            Self::Hello { version } => [Self::HELLO, version.into(), 0],
            Self::Create { size, flags } => [Self::CREATE, size, flags.bits()],
            Self::Close { handle } => [Self::CLOSE, handle.into(), 0],
            Self::Flink { handle } => [Self::FLINK, handle.into(), 0],
            Self::Open { name } => [Self::OPEN, name.into(), 0],
            Self::Map { handle } => [Self::MAP, handle.into(), 0],
            Self::Size { handle } => [Self::SIZE, handle.into(), 0],
            Self::Import => [Self::IMPORT, 0, 0],
            Self::GetMagic => [Self::GET_MAGIC, 0, 0],
            Self::AuthMagic { magic } => [Self::AUTH_MAGIC, magic.into(), 0],
            Self::Userptr {
                address,
                pages,
                flags,
            } => [Self::USERPTR, address, u64::from(flags.bits()) | pages << 8],
            Self::Advise { handle, advice } => [Self::ADVISE, handle.into(), advice as u64],
            Self::GetLimit { limit } => [Self::GET_LIMIT, limit.number(), 0],
            Self::SetLimit { limit, value } => [Self::SET_LIMIT, limit.number(), value],
            Self::Revoke { client } => [Self::REVOKE, client, 0],
        }
    }
}

fn small(word: u64) -> Result<u32, Malformed> {
    word.try_into().map_err(|_| Malformed::OutOfRange)
}

fn limit(word: u64) -> Result<Limit, Malformed> {
    Limit::from_number(word).ok_or(Malformed::OutOfRange)
}

/// The answer to HELLO: `version | features << 16`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hello {
    /// The server's protocol version.
    pub version: u16,
    /// What it can do. Bits unknown to this crate are dropped.
    pub features: Features,
}

impl Hello {
    /// As one word.
    pub fn pack(self) -> u64 {
        u64::from(self.version) | u64::from(self.features.bits()) << 16
    }

    /// From one word.
    pub fn unpack(word: u64) -> Self {
        Self {
            version: word as u16,
            features: Features::from_bits_truncate((word >> 16) as u32),
        }
    }
}

/// A handle and the size of its object: `handle | pages << 32`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sized {
    /// The handle, 1 or more.
    pub handle: u32,
    /// The object's size in pages, at most [`MAX_OBJECT_PAGES`].
    pub pages: u32,
}

impl Sized {
    /// As one word. `None` where the object has more pages than fit.
    pub fn pack(handle: u32, pages: u64) -> Option<u64> {
        (pages <= MAX_OBJECT_PAGES).then_some(u64::from(handle) | pages << 32)
    }

    /// From one word.
    pub fn unpack(word: u64) -> Self {
        Self {
            handle: word as u32,
            pages: (word >> 32) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: [Call; 16] = [
        Call::Hello { version: 1 },
        Call::Create {
            size: u64::MAX,
            flags: CreateFlags::WRITE_COMBINING,
        },
        Call::Close { handle: 1 },
        Call::Flink { handle: u32::MAX },
        Call::Open { name: 0 },
        Call::Map { handle: 7 },
        Call::Size { handle: 7 },
        Call::Import,
        Call::GetMagic,
        Call::AuthMagic { magic: 3 },
        Call::Advise {
            handle: 7,
            advice: Advice::WillNeed,
        },
        Call::Advise {
            handle: 7,
            advice: Advice::DontNeed,
        },
        Call::Userptr {
            address: u64::MAX,
            pages: u64::MAX >> 8,
            flags: UserptrFlags::READ_ONLY.union(UserptrFlags::UNSYNCHRONIZED),
        },
        Call::GetLimit {
            limit: Limit::Memory,
        },
        Call::SetLimit {
            limit: Limit::Object,
            value: 1,
        },
        Call::Revoke { client: u64::MAX },
    ];

    #[test]
    fn every_call_survives_the_wire() {
        for call in CALLS {
            assert_eq!(Call::decode(call.encode()), Ok(call));
        }
    }

    #[test]
    fn a_word_that_a_call_does_not_use_must_be_zero() {
        for call in CALLS {
            let [number, first, second] = call.encode();
            let uses_both = matches!(
                call,
                Call::Create { .. }
                    | Call::SetLimit { .. }
                    | Call::Advise { .. }
                    | Call::Userptr { .. }
            );
            if !uses_both {
                assert_eq!(
                    Call::decode([number, first, second + 1]),
                    Err(Malformed::NotZero)
                );
            }
        }
        let [import, ..] = Call::Import.encode();
        assert_eq!(Call::decode([import, 1, 0]), Err(Malformed::NotZero));
    }

    #[test]
    fn unknown_numbers_flags_and_wide_handles_are_refused() {
        assert_eq!(
            Call::decode([BASE + 0x1f, 0, 0]),
            Err(Malformed::UnknownCall(BASE + 0x1f))
        );
        let [create, ..] = CALLS[1].encode();
        for flags in [1 << 3, 1 << 63, 0b11] {
            assert_eq!(
                Call::decode([create, 4096, flags]),
                Err(Malformed::UnknownFlags)
            );
        }
        let userptr = CALLS
            .iter()
            .find(|call| matches!(call, Call::Userptr { .. }));
        let [userptr, ..] = userptr.unwrap().encode();
        for flags in [4, 8, 0x40, 0x84] {
            let refused = Call::decode([userptr, 4096, flags | 1 << 8]);
            assert_eq!(refused, Err(Malformed::UnknownFlags));
        }
        let [close, ..] = CALLS[2].encode();
        assert_eq!(
            Call::decode([close, 1 << 32 | 1, 0]),
            Err(Malformed::OutOfRange)
        );
    }

    #[test]
    fn an_advice_that_is_none_is_refused() {
        let [advise, ..] = Call::Advise {
            handle: 1,
            advice: Advice::WillNeed,
        }
        .encode();
        for advice in [2, 1 << 32, u64::MAX] {
            assert_eq!(
                Call::decode([advise, 1, advice]),
                Err(Malformed::OutOfRange)
            );
        }
    }

    #[test]
    fn a_limit_that_cannot_be_is_refused() {
        for &limit in Limit::ALL {
            let [number, which, _] = Call::SetLimit { limit, value: 1 }.encode();
            let set = |value| Call::decode([number, which, value]);
            for value in [0, limit.most() + 1, -1_i64 as u64, u64::MAX / 2] {
                assert_eq!(set(value), Err(Malformed::OutOfRange), "{limit} {value}");
            }
            assert!(set(limit.most()).is_ok());
            for which in [0, 99, u64::MAX] {
                let refused = Call::decode([number, which, 1]);
                assert_eq!(refused, Err(Malformed::OutOfRange));
            }
        }
    }

    #[test]
    fn results_stay_below_the_errno_range() {
        let largest = Sized::pack(u32::MAX, MAX_OBJECT_PAGES).unwrap();
        assert!(i64::try_from(largest).is_ok());
        assert_eq!(Sized::pack(1, MAX_OBJECT_PAGES + 1), None);
        assert_eq!(Sized::unpack(largest).handle, u32::MAX);
        let hello = Hello {
            version: VERSION,
            features: Features::all(),
        };
        assert_eq!(Hello::unpack(hello.pack()), hello);
    }
}
