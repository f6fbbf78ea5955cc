//! What root does while clients are there: limits, and ending an open.
//!
//! That it is root who asks has been decided before. Also the one table of which limit on the
//! wire is which of the memory manager's.

use gem::units::PageCount;
use gem::{Limits, OpenId};
use gem_wire::limit::Limit;
use syscall::error::{EINVAL, ENODEV, ENOENT};

use super::{Server, Stop};
use crate::answer::Errno;
use crate::platform::Platform;
use crate::sqe::Operation;

impl<P: Platform> Server<P> {
    /// Sets a limit. What is there beyond it stays.
    pub(super) fn set_limit(&mut self, limit: Limit, value: u64) -> Result<(), Stop> {
        let mut limits = *self.device.limits();
        set(&mut limits, limit, value).ok_or(Errno(EINVAL))?;
        log::info!("limit {limit}: {value}");
        let changes = get(self.device.limits(), limit) != value;
        self.device.set_limits(limits);
        if changes {
            self.device.announce_limit(limit.number() as u32, value);
        }
        Ok(())
    }

    /// Takes everything from the open of this number. Its file stays, because the kernel knows
    /// it, and answers ENODEV.
    pub(super) fn revoke(&mut self, client: u64) -> Result<(), Stop> {
        let open = self.device.client(client).ok_or(Errno(ENOENT))?;
        self.device.revoke(open)?;
        if let Some(&fd) = self.nodes.get(&open) {
            self.ends(fd, Errno(ENODEV));
        }
        log::info!("client {client} was revoked");
        Ok(())
    }

    /// A revoked open's calls are refused, except that the kernel's notices are heard: what was
    /// mapped is charged until it is unmapped.
    #[inline]
    pub(super) fn refuse_if_revoked(&self, open: OpenId, operation: Operation) -> Result<(), Stop> {
        if self.device.is_revoked(open) && !matches!(operation, Operation::Unmap { .. }) {
            return Err(Errno(ENODEV).into());
        }
        Ok(())
    }
}

/// The value of a limit.
pub fn get(limits: &Limits, limit: Limit) -> u64 {
    match limit {
        Limit::Memory => limits.total.get(),
        Limit::MemoryPerUid => limits.uid.get(),
        Limit::Object => limits.object.get(),
        Limit::MappedPerUid => limits.mapped_per_uid.get(),
        Limit::MappedObjectsPerUid => limits.mapped_objects_per_uid.into(),
        Limit::OpensPerUid => limits.opens_per_uid.into(),
        Limit::ObjectsPerUid => limits.objects_per_uid.into(),
        Limit::HandlesPerUid => limits.handles_per_uid.into(),
        Limit::HandlesPerOpen => limits.handles_per_open.into(),
        Limit::ObjectFdsPerUid => limits.object_fds_per_uid.into(),
        Limit::ObjectFdsPerOpen => limits.object_fds_per_open.into(),
        Limit::NamesPerUid => limits.names_per_uid.into(),
        Limit::OffsetsPerUid => limits.offsets_per_uid.into(),
        Limit::WaitingPerUid => limits.waiting_per_uid.into(),
        Limit::WaitingPerOpen => limits.waiting_per_open.into(),
        Limit::UserPagesPerUid => limits.user_pages_per_uid.get(),
        Limit::UserRangesPerUid => limits.user_ranges_per_uid.into(),
        Limit::KeepFree => limits.keep_free.get(),
    }
}

/// Another value, if it is one that the limit can have.
pub fn set(limits: &mut Limits, limit: Limit, value: u64) -> Option<()> {
    let pages = PageCount::new(value)?;
    let count = u32::try_from(value).unwrap_or(u32::MAX);
    if !limit.range().contains(&value) {
        return None;
    }
    match limit {
        Limit::Memory => limits.total = pages,
        Limit::MemoryPerUid => limits.uid = pages,
        Limit::Object => limits.object = pages,
        Limit::MappedPerUid => limits.mapped_per_uid = pages,
        Limit::MappedObjectsPerUid => limits.mapped_objects_per_uid = count,
        Limit::OpensPerUid => limits.opens_per_uid = count,
        Limit::ObjectsPerUid => limits.objects_per_uid = count,
        Limit::HandlesPerUid => limits.handles_per_uid = count,
        Limit::HandlesPerOpen => limits.handles_per_open = count,
        Limit::ObjectFdsPerUid => limits.object_fds_per_uid = count,
        Limit::ObjectFdsPerOpen => limits.object_fds_per_open = count,
        Limit::NamesPerUid => limits.names_per_uid = count,
        Limit::OffsetsPerUid => limits.offsets_per_uid = count,
        Limit::WaitingPerUid => limits.waiting_per_uid = count,
        Limit::WaitingPerOpen => limits.waiting_per_open = count,
        Limit::UserPagesPerUid => limits.user_pages_per_uid = pages,
        Limit::UserRangesPerUid => limits.user_ranges_per_uid = count,
        Limit::KeepFree => limits.keep_free = pages,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_what_it_was_set_to_and_no_other_changes() {
        for &limit in Limit::ALL {
            let before = Limits::for_memory(PageCount::ZERO);
            let mut limits = before;
            set(&mut limits, limit, 77).unwrap();
            for &other in Limit::ALL {
                let expected = if other == limit {
                    77
                } else {
                    get(&before, other)
                };
                assert_eq!(get(&limits, other), expected, "{other} after {limit}");
            }
            for value in [0, limit.most() + 1, u64::MAX] {
                assert_eq!(set(&mut limits, limit, value), None);
            }
            assert_eq!(get(&limits, limit), 77);
        }
    }
}
