//! Events: what a client reads from its node fd.
//!
//! A record has 32 bytes and begins like Linux's `struct drm_event`: a type and a length, so that a
//! reader can step over records that it does not know. The types are those that DRM leaves to
//! drivers, from [`FIRST_KIND`] on.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first type that DRM leaves to drivers.
pub const FIRST_KIND: u32 = 0x8000_0000;

/// Bytes in a record. A read with less room is EINVAL.
pub const RECORD_SIZE: usize = size_of::<Record>();

/// One event as it is read. All numbers are little-endian.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Record {
    /// What happened.
    pub kind: u32,
    /// Bytes in this record: [`RECORD_SIZE`].
    pub length: u32,
    /// What it happened to: a handle, a limit's number, a level.
    pub subject: u32,
    /// Zero.
    pub reserved: u32,
    /// How much, or who.
    pub value: u64,
    /// Zero.
    pub reserved_too: u64,
}

/// How short the machine's memory is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pressure {
    /// There is enough again.
    Eased = 0,
    /// Let go of what can be made again.
    Low = 1,
    /// Allocations are about to fail, or do.
    Critical = 2,
}

/// What happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// Events did not fit into what is kept for an open that does not read.
    Lost {
        /// How many, at least 1.
        count: u64,
    },
    /// The pages behind a user pointer are no longer the object's.
    Revoked {
        /// The object, by this open's handle.
        handle: u32,
        /// The process that took them away; 0: the server.
        pid: u64,
    },
    /// An object has lost its address in the GPU's address space.
    Evicted {
        /// The object, by this open's handle.
        handle: u32,
    },
    /// Memory runs short, or does so no longer.
    Pressure {
        /// How short.
        level: Pressure,
        /// Pages that were free.
        free_pages: u64,
    },
    /// Root has set a limit.
    LimitChanged {
        /// Its number; one that this crate does not know is a newer server's.
        limit: u32,
        /// What it is now.
        value: u64,
    },
}

const LOST: u32 = FIRST_KIND;
const REVOKED: u32 = FIRST_KIND + 1;
const EVICTED: u32 = FIRST_KIND + 2;
const PRESSURE: u32 = FIRST_KIND + 3;
const LIMIT_CHANGED: u32 = FIRST_KIND + 4;

impl Record {
    /// The event that this is; `None` for one that this crate does not know.
    pub fn event(&self) -> Option<Event> {
        let (number, value) = (u32::from_le(self.subject), u64::from_le(self.value));
        Some(match u32::from_le(self.kind) {
            LOST => Event::Lost { count: value },
            REVOKED => Event::Revoked {
                handle: number,
                pid: value,
            },
            EVICTED => Event::Evicted { handle: number },
            PRESSURE => Event::Pressure {
                level: match number {
                    0 => Pressure::Eased,
                    1 => Pressure::Low,
                    2 => Pressure::Critical,
                    _ => return None,
                },
                free_pages: value,
            },
            LIMIT_CHANGED => Event::LimitChanged {
                limit: number,
                value,
            },
            _ => return None,
        })
    }
}

impl From<Event> for Record {
    fn from(event: Event) -> Self {
        let (kind, subject, value) = match event {
            Event::Lost { count } => (LOST, 0, count),
            Event::Revoked { handle, pid } => (REVOKED, handle, pid),
            Event::Evicted { handle } => (EVICTED, handle, 0),
            Event::Pressure { level, free_pages } => (PRESSURE, level as u32, free_pages),
            Event::LimitChanged { limit, value } => (LIMIT_CHANGED, limit, value),
        };
        Self {
            kind: kind.to_le(),
            length: (RECORD_SIZE as u32).to_le(),
            subject: subject.to_le(),
            value: value.to_le(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_survives_the_wire() {
        for event in [
            Event::Lost { count: u64::MAX },
            Event::Revoked {
                handle: u32::MAX,
                pid: 7,
            },
            Event::Evicted { handle: 1 },
            Event::Pressure {
                level: Pressure::Eased,
                free_pages: 0,
            },
            Event::Pressure {
                level: Pressure::Low,
                free_pages: 9,
            },
            Event::Pressure {
                level: Pressure::Critical,
                free_pages: u64::MAX,
            },
            Event::LimitChanged {
                limit: 15,
                value: 1 << 51,
            },
        ] {
            assert_eq!(Record::from(event).event(), Some(event));
        }
    }

    #[test]
    fn a_record_begins_with_type_and_length_and_is_little_endian() {
        let record = Record::from(Event::LimitChanged {
            limit: 0x0102,
            value: 0x0304,
        });
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&[4, 0, 0, 0x80]);
        bytes[4] = 32;
        bytes[8..10].copy_from_slice(&[2, 1]);
        bytes[16..18].copy_from_slice(&[4, 3]);
        assert_eq!(record.as_bytes(), bytes);
    }

    #[test]
    fn what_is_not_known_is_no_event() {
        for (kind, subject) in [(0, 0), (LIMIT_CHANGED + 1, 0), (PRESSURE, 3)] {
            let record = Record {
                kind,
                subject,
                ..Record::default()
            };
            assert_eq!(record.event(), None);
        }
    }
}
