//! The calls on a link: the fd through which a puppet gets its orders. Its master serves it.

/// First metadata word: wait for the next order. The answer is its length; the payload, of at most
/// [`PART`] bytes, is filled with its beginning.
pub const NEXT: u64 = 0;
/// First metadata word: fill the payload with the order from the offset in the second word on.
pub const MORE: u64 = 2;
/// Bytes in a payload that may have to wait. It is less than a page, because whole pages would be
/// lent to the master: a puppet that is killed meanwhile would keep its memory, and all that is
/// mapped there, until the master answers; and the master would then wait for gemd inside the
/// kernel, holding a lock.
pub const PART: usize = 2048;
/// First metadata word: the payload is what came of the order.
pub const REPLY: u64 = 1;
/// `dup` with this: the fd that the master holds for this puppet. Sending an fd to the link is the
/// other direction.
pub const DUP_CARRIED: &[u8] = b"carried";
