//! Memory that a client only lends us: the payload of one request.
//!
//! The kernel maps a request's payload into the daemon until the request is answered. A
//! [`Payload`] is that claim: an address and a length that came in an SQE, reachable only through
//! copies, so that nothing is checked twice with different contents. It belongs to the request;
//! whoever answers the request drops the payload first.

use core::ptr;

/// A request's payload, valid until the request's CQE is written.
#[derive(Debug)]
pub struct Payload {
    address: usize,
    length: usize,
}

impl Payload {
    /// The payload of a request without one.
    pub const EMPTY: Self = Self {
        address: 0,
        length: 0,
    };

    /// The payload that an SQE describes.
    ///
    /// # Safety
    ///
    /// `address` and `length` are those of an SQE that the kernel delivered and that is not yet
    /// answered, and the `Payload` does not outlive that answer.
    pub unsafe fn from_sqe(address: u64, length: u64) -> Self {
        match (usize::try_from(address), usize::try_from(length)) {
            (Ok(address), Ok(length)) if length > 0 && isize::try_from(length).is_ok() => {
                Self { address, length }
            }
            _ => Self::EMPTY,
        }
    }

    /// How many bytes the client lent.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the client lent nothing.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Copies the first bytes out, as many as fit, and returns them.
    pub fn head<'a>(&self, buffer: &'a mut [u8]) -> &'a [u8] {
        let length = self.length.min(buffer.len());
        let head = &mut buffer[..length];
        if length > 0 {
            // SAFETY: the kernel keeps `length` bytes at `address` mapped readable until the
            // request is answered (`from_sqe`), `length` is at most that, and `head` is our own
            // memory, so the two cannot overlap. A client that writes at the same time changes
            // which bytes are copied, and every byte value is valid.
            unsafe {
                ptr::copy_nonoverlapping(self.address as *const u8, head.as_mut_ptr(), length)
            };
        }
        head
    }

    /// Copies `bytes` to byte `offset` of the payload, as much as there is room for; returns how
    /// many bytes that was.
    pub fn put(&mut self, offset: usize, bytes: &[u8]) -> usize {
        let length = self.length.saturating_sub(offset).min(bytes.len());
        if length > 0 {
            // SAFETY: as in `head`; a payload is always writeable for the daemon, whatever the
            // client's own protection (kernel `src/scheme/user.rs`, `capture_inner`), and
            // `offset + length` is at most the payload's length.
            unsafe {
                ptr::copy_nonoverlapping(
                    bytes.as_ptr(),
                    (self.address as *mut u8).add(offset),
                    length,
                );
            }
        }
        length
    }

    /// The whole payload as bytes to be copied from or into at once, for data that is only moved
    /// and never looked at.
    pub fn bytes(&mut self) -> &mut [u8] {
        if self.length == 0 {
            return &mut [];
        }
        // SAFETY: the range is mapped readable and writeable until the request is answered
        // (`from_sqe`), its length fits an `isize`, every byte value is valid, and the borrow of
        // `self` ends before the answer. Only bulk copies see the slice, so a client that writes
        // meanwhile can spoil its own data and nothing else.
        unsafe { core::slice::from_raw_parts_mut(self.address as *mut u8, self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lent(memory: &mut [u8]) -> Payload {
        // SAFETY: the test's own memory outlives the payload.
        unsafe { Payload::from_sqe(memory.as_mut_ptr() as u64, memory.len() as u64) }
    }

    #[test]
    fn copies_stop_at_the_end_of_the_shorter_side() {
        let mut memory = *b"abcdef";
        let mut payload = lent(&mut memory);
        assert_eq!(payload.head(&mut [0; 4]), b"abcd");
        assert_eq!(payload.head(&mut [0; 9]), b"abcdef");
        assert_eq!(payload.put(4, b"xyz"), 2);
        assert_eq!(payload.put(7, b"xyz"), 0);
        assert_eq!(payload.put(usize::MAX, b"xyz"), 0);
        assert_eq!(&memory, b"abcdxy");
    }

    #[test]
    fn the_kernels_dangling_address_of_an_empty_payload_is_never_touched() {
        // SAFETY: nothing is lent.
        let mut payload = unsafe { Payload::from_sqe(1 << 62, 0) };
        assert!(payload.is_empty());
        assert_eq!(payload.head(&mut [0; 4]), b"");
        assert_eq!(payload.put(0, b"x"), 0);
        assert!(payload.bytes().is_empty());
    }

    #[test]
    fn a_length_that_no_memory_can_have_is_nothing() {
        // SAFETY: nothing of the range is accessed.
        assert!(unsafe { Payload::from_sqe(4096, u64::MAX) }.is_empty());
    }
}
