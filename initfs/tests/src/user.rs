//! The calls on files of `user-daemon`, a daemon that takes over its clients' pages and does nothing
//! else: the first metadata word. Sending a file an fd gives it the address space for the next
//! [`TAKE`].

/// Take over the pages at the address in the second word, as many as in the third; answers the
/// set's number.
pub const TAKE: u64 = 1;
/// The same, but forget it at once: answers when nothing is left of it.
pub const TAKE_AND_ABANDON: u64 = 2;
/// Let go of the set in the second word.
pub const RELEASE: u64 = 3;
/// Where page number (third word) of the set in the second word lies.
pub const LOCATE: u64 = 4;
/// How many pages were unmapped.
pub const UNMAPPED: u64 = 5;
/// Answers the second word.
pub const ECHO: u64 = 6;
/// The byte at the daemon's mapping of the set in the second word, at the offset in the third.
pub const READ: u64 = 7;
/// Adds one to that byte.
pub const ADD: u64 = 8;

/// `dup` with this: the daemon's own address space, which no other daemon would give away.
pub const DUP_OWN_SPACE: &[u8] = b"own-space";

/// Where a set's pages are for `fmap`: its number times this.
pub const SET_OFFSET: u64 = 1 << 40;
