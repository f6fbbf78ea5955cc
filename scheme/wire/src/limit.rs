//! Limits that root can read and set while the server runs: their numbers, names and ranges.
//!
//! One table for the calls, the server's flags, its `stats` and the command-line tool, so that
//! all of them mean the same and refuse the same. What a limit *does* is the server's business.

use core::fmt;
use core::ops::RangeInclusive;

/// What a limit is counted in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Pages of 4096 bytes.
    Pages,
    /// One by one.
    Count,
}

/// 8 EiB in pages: more memory than a machine can have.
const MAX_PAGES: u64 = 1 << 51;
/// Far from where the low half of a result is taken for an errno.
const MAX_HANDLES: u64 = 1 << 24;
/// As many files as a server has.
const MAX_FILES: u64 = 1 << 20;
const MAX_COUNT: u64 = 1 << 30;

macro_rules! limits {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $unit:ident, $most:expr;)*) => {
        /// A limit.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Limit {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Limit {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its number in calls.
            pub const fn number(self) -> u64 {
                self as u64
            }

            /// The limit with this number.
            pub fn from_number(number: u64) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Its name; in `stats` its key is `limit-` and this.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What it is counted in.
            pub const fn unit(self) -> Unit {
                match self {
                    $(Self::$variant => Unit::$unit,)*
                }
            }

            /// The most that it can be. The least is 1.
            pub const fn most(self) -> u64 {
                match self {
                    $(Self::$variant => $most,)*
                }
            }
        }
    };
}

limits! {
    /// Memory of all clients together.
    Memory = 1, "memory-pages", Pages, MAX_PAGES;
    /// Memory of one user.
    MemoryPerUid = 2, "memory-pages-per-uid", Pages, MAX_PAGES;
    /// Memory of one object.
    Object = 3, "object-pages", Pages, crate::native::MAX_OBJECT_PAGES;
    /// Pages mapped by one user, each mapping counted.
    MappedPerUid = 4, "mapped-pages-per-uid", Pages, MAX_PAGES;
    /// Objects mapped by the opens of one user.
    MappedObjectsPerUid = 5, "mapped-objects-per-uid", Count, MAX_COUNT;
    /// Opens of one user.
    OpensPerUid = 6, "opens-per-uid", Count, MAX_FILES;
    /// Objects of one user.
    ObjectsPerUid = 7, "objects-per-uid", Count, MAX_COUNT;
    /// Handles of one user, and free numbers below them.
    HandlesPerUid = 8, "handles-per-uid", Count, MAX_COUNT;
    /// Handles of one open.
    HandlesPerOpen = 9, "handles-per-open", Count, MAX_HANDLES;
    /// Object fds made by one user.
    ObjectFdsPerUid = 10, "object-fds-per-uid", Count, MAX_FILES;
    /// Object fds made through one open.
    ObjectFdsPerOpen = 11, "object-fds-per-open", Count, MAX_FILES;
    /// Objects of one user that have a name.
    NamesPerUid = 12, "names-per-uid", Count, MAX_COUNT;
    /// Objects of one user that have a fake offset.
    OffsetsPerUid = 13, "offsets-per-uid", Count, MAX_COUNT;
    /// Requests of one user that wait at a time.
    WaitingPerUid = 14, "waiting-per-uid", Count, MAX_FILES;
    /// Requests of one user on one open file that wait at a time.
    WaitingPerOpen = 15, "waiting-per-open", Count, MAX_FILES;
    /// Pages of one user's clients that are taken over.
    UserPagesPerUid = 16, "userptr-pages-per-uid", Pages, MAX_PAGES;
    /// Ranges of one user's clients that those pages make.
    UserRangesPerUid = 17, "userptr-ranges-per-uid", Count, MAX_COUNT;
    /// Memory that is to be left to the machine.
    KeepFree = 18, "keep-free-pages", Pages, MAX_PAGES;
}

impl Limit {
    /// The limit of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|limit| limit.name() == name)
    }

    /// The values that it can have.
    pub const fn range(self) -> RangeInclusive<u64> {
        1..=self.most()
    }

    /// A value as the result of a call. The low byte stays 0, so that its low half is never taken
    /// for an errno.
    pub const fn pack(value: u64) -> u64 {
        value << 8
    }

    /// The value in the result of a call.
    pub const fn unpack(word: u64) -> u64 {
        word >> 8
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_found_by_its_number_and_by_its_name() {
        for &limit in Limit::ALL {
            assert_eq!(Limit::from_number(limit.number()), Some(limit));
            assert_eq!(Limit::from_name(limit.name()), Some(limit));
            assert_eq!(
                limit.unit() == Unit::Pages,
                limit.name().contains("pages"),
                "a name says what is counted"
            );
        }
        assert_eq!(Limit::from_number(0), None);
        assert_eq!(Limit::from_number(Limit::ALL.len() as u64 + 1), None);
        assert_eq!(Limit::from_name("limit"), None);
    }

    #[test]
    fn a_value_as_a_result_is_never_an_errno() {
        for &limit in Limit::ALL {
            for value in [1, limit.most(), u64::from(u32::MAX), (1 << 32) - 130] {
                let word = Limit::pack(value);
                assert!(i64::try_from(word).is_ok());
                assert!(!(-132..=-1).contains(&(word as u32 as i32)), "{value}");
                assert_eq!(Limit::unpack(word), value);
            }
        }
    }
}
