//! Mapping and unmapping: the checks before the scheme is asked.

use gem::units::PAGE_SIZE;
use syscall::error::{EBUSY, EINVAL, ENOMEM, Error, Result};
use syscall::flag::MapFlags;
use syscall::schemev2::Opcode;

use super::{Invocation, Step};
use crate::kernel::State;
use crate::kernel::address_space::USER_END;
use crate::kernel::call::{After, AfterUnmapping, Caller, MapRequest, Unmapping};

impl State {
    pub(super) fn mmap(&mut self, made: &Invocation<'_>) -> Result<Step> {
        let description = self.description(made.caller, made.fd())?;
        let [address, size, flags, offset] = [0, 1, 2, 3].map(|index| made.arg(index));
        if size == 0 || !address.is_multiple_of(PAGE_SIZE) || !offset.is_multiple_of(PAGE_SIZE) {
            return Err(Error::new(EINVAL));
        }
        let Caller::Client(..) = made.caller else {
            return Err(Error::new(EBUSY));
        };
        let bytes = size.checked_next_multiple_of(PAGE_SIZE);
        let end = bytes.and_then(|bytes| address.checked_add(bytes));
        let fits = address != 0 && end.is_some_and(|end| end <= USER_END);
        let writeable = flags as usize & MapFlags::PROT_WRITE.bits() != 0;
        let request = MapRequest {
            address: fits.then_some(address),
            bytes: bytes.unwrap_or(u64::MAX),
            offset,
            writeable,
        };
        let call = made.call(After::Map(request)).holding(description.clone());
        let args = [description.number(), size, flags, offset, 0];
        self.ask(&description, made.context, Opcode::MmapPrep, args, call)
    }

    pub(super) fn munmap(&mut self, made: &Invocation<'_>) -> Result<Step> {
        let (address, size) = (made.arg(0), made.arg(1));
        let bytes = size
            .checked_next_multiple_of(PAGE_SIZE)
            .ok_or(Error::new(EINVAL))?;
        let end = address.checked_add(bytes).filter(|end| *end <= USER_END);
        if bytes == 0 || !address.is_multiple_of(PAGE_SIZE) || end.is_none() {
            return Err(Error::new(EINVAL));
        }
        let context = made.context;
        let space = &mut self.client_of(made.caller)?.space;
        if space.would_split(address, bytes) && !space.has_room() {
            return Err(Error::new(ENOMEM));
        }
        let pieces = space.carve(address, bytes);
        self.unmap_next(Unmapping {
            caller: Some((made.caller.clone(), AfterUnmapping::Nothing)),
            context,
            current: None,
            pieces,
            watched: None,
        });
        Ok(Step::Asked)
    }
}
