//! The calls on files of `bare-daemon`: the first metadata word. Sending a file an fd of an address
//! space has it take pages over; the word that goes with it is the number of the first page,
//! shifted by [`PAGES_BITS`], and how many pages.

/// Answers 0: where a client learns its handle, which the answer to a sendfd cannot tell.
pub const CLAIM: u64 = 1;
/// Let go of the pages.
pub const RELEASE: u64 = 2;

/// So many bits say how many pages.
pub const PAGES_BITS: u32 = 16;
