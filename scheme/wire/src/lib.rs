//! The calls of the gem scheme, as both sides see them: numbers, layouts, flags, packing.
//!
//! This crate owns no state and does no I/O. The server turns bytes into its types, the client
//! library makes bytes of them; `docs/wire.md` is the same thing as a table. What a client may
//! *do* is not decided here (`docs/authority.md`), only what a well-formed call is.
//!
//! A call is a `SYS_CALL` on a node fd whose first metadata word is the number: below
//! [`native::BASE`] it is a DRM ioctl number with the ioctl's struct as payload, from there on a
//! native call, which has no payload at all because a payload doubles what a call costs. What a
//! client reads from a node fd is [`event`]s.

#![no_std]
#![forbid(unsafe_code)]

pub mod drm;
pub mod event;
pub mod limit;
pub mod native;
pub mod path;
pub mod userptr;

/// The largest payload of a call, in bytes: under one page the kernel hands the server a copy,
/// from a whole page on it lends the client's own memory, which the client can change meanwhile.
pub const MAX_PAYLOAD: usize = 4095;

/// Why bytes are no call. A client sees EINVAL for each of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Malformed {
    /// There is no call of this number (in this form).
    UnknownCall(u64),
    /// The payload is not as long as the call's struct and its arrays together.
    PayloadLength,
    /// A bit is set that has no meaning.
    UnknownFlags,
    /// A word or field that must be zero is not.
    NotZero,
    /// A number is outside the range of its kind: handle 0, a name beyond 31 bits, a limit of 0.
    OutOfRange,
}
