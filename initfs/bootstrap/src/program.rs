//! Programs: static ELF files from the archive, laid out in a new address space.

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use elf::segment::ProgramHeader;
use rt::fd::Owned;
use rt::protocol::StartInfo;
use rt::thread::write_words;
use syscall::data::Map;
use syscall::error::{E2BIG, ENOEXEC, Error, Result};
use syscall::{MapFlags, PAGE_SIZE};

use crate::archive;
use crate::context::{AddressSpace, Identity};

/// Above every program, below the stack's end.
const STACK_TOP: usize = 0x7fff_0000_0000;
const STACK: usize = 512 * 1024;
/// The start information, one page, a page above the stack.
const INFO: usize = STACK_TOP + PAGE_SIZE;
/// Where pages are filled, one segment at a time: far from every program, because the kernel moves
/// no pages to where they are, not even in another address space.
const STAGING: usize = 0x6000_0000_0000;
/// From here on the kernel maps what it maps for this process at addresses of its choice.
const OTHERS: usize = 0x7000_0000_0000;

/// Keeps the kernel from mapping anything where programs are loaded. It takes the smallest gap that
/// will do, and that is the one behind pages that are being filled: other programs' requests come
/// in at any time, and what comes with them would be where the next segment is to be.
///
/// # Errors
///
/// EMFILE.
pub fn keep_place(own: &Owned) -> Result<()> {
    write_words(&own.dup(b"mmap-min-addr")?, &[OTHERS])
}

/// Loads the program that `line` begins with (name and arguments, each ended by NUL) for the
/// context, which begins it when the fd that this returns is closed.
///
/// # Errors
///
/// ENOENT, ENOEXEC, E2BIG for more than a page of arguments, ENOMEM.
pub fn load(context: &Owned, own: &Owned, identity: Identity, line: &[u8]) -> Result<Owned> {
    let name = line.split(|&byte| byte == 0).next().unwrap_or_default();
    let name = core::str::from_utf8(name).map_err(|_| Error::new(ENOEXEC))?;
    let file = archive::file(name)?;
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| Error::new(ENOEXEC))?;
    if (elf.ehdr.e_type, elf.ehdr.e_machine) != (ET_EXEC, EM_X86_64) {
        return Err(Error::new(ENOEXEC));
    }

    let space = AddressSpace::new(own)?;
    let segments = elf.segments().ok_or(Error::new(ENOEXEC))?;
    for segment in segments.iter().filter(|segment| segment.p_type == PT_LOAD) {
        load_segment(&space, own, &segment, file)?;
    }
    let writeable = MapFlags::PROT_READ | MapFlags::PROT_WRITE;
    space.map(STACK_TOP - STACK, STACK, writeable)?;

    let info = StartInfo {
        pid: identity.pid,
        uid: identity.uid,
        gid: identity.gid,
        argument_bytes: u32::try_from(line.len()).map_err(|_| Error::new(E2BIG))?,
    };
    let mut page = Staging::new(PAGE_SIZE)?;
    page.bytes()
        .get_mut(StartInfo::ARGUMENTS..)
        .and_then(|rest| rest.get_mut(..line.len()))
        .ok_or(Error::new(E2BIG))?
        .copy_from_slice(line);
    // SAFETY: the page is ours, aligned, and large enough.
    unsafe { page.bytes().as_mut_ptr().cast::<StartInfo>().write(info) };
    page.move_to(&space, own, INFO, MapFlags::PROT_READ)?;

    space.give_to(context, STACK_TOP, elf.ehdr.e_entry as usize, INFO)
}

fn load_segment(
    space: &AddressSpace,
    own: &Owned,
    segment: &ProgramHeader,
    file: &[u8],
) -> Result<()> {
    let bad = Error::new(ENOEXEC);
    let offset = usize::try_from(segment.p_offset).map_err(|_| bad)?;
    let length = usize::try_from(segment.p_filesz).map_err(|_| bad)?;
    let address = usize::try_from(segment.p_vaddr).map_err(|_| bad)?;
    let size = usize::try_from(segment.p_memsz).map_err(|_| bad)?;
    let bytes = file.get(offset..).and_then(|rest| rest.get(..length));
    let bytes = bytes.ok_or(bad)?;
    let lead = address % PAGE_SIZE;
    let whole = lead.checked_add(size).ok_or(bad)?;
    let whole = whole.checked_next_multiple_of(PAGE_SIZE).ok_or(bad)?;
    if whole == 0 {
        return Ok(());
    }

    let mut memory = Staging::new(whole)?;
    memory
        .bytes()
        .get_mut(lead..)
        .and_then(|rest| rest.get_mut(..length))
        .ok_or(bad)?
        .copy_from_slice(bytes);
    let mut protection = MapFlags::PROT_READ;
    protection.set(MapFlags::PROT_WRITE, segment.p_flags & PF_W != 0);
    protection.set(MapFlags::PROT_EXEC, segment.p_flags & PF_X != 0);
    memory.move_to(space, own, address - lead, protection)
}

/// Pages of ours on their way to another address space: zeroed, and every one of them written to.
struct Staging {
    address: usize,
    size: usize,
}

impl Staging {
    fn new(size: usize) -> Result<Self> {
        let map = Map {
            offset: 0,
            size,
            flags: MapFlags::PROT_READ
                | MapFlags::PROT_WRITE
                | MapFlags::MAP_PRIVATE
                | MapFlags::MAP_FIXED_NOREPLACE,
            address: STAGING,
        };
        // SAFETY: nothing is replaced.
        let address = unsafe { syscall::fmap(!0, &map) }?;
        for page in (address..address + size).step_by(PAGE_SIZE) {
            // SAFETY: just mapped, and ours. Volatile, because that the pages are zero already is
            // not the point.
            unsafe { (page as *mut u8).write_volatile(0) };
        }
        Ok(Self { address, size })
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped by `new`, and borrowed with `self`.
        unsafe { core::slice::from_raw_parts_mut(self.address as *mut u8, self.size) }
    }

    fn move_to(
        self,
        space: &AddressSpace,
        own: &Owned,
        address: usize,
        protection: MapFlags,
    ) -> Result<()> {
        space.take(own, self.address, address, self.size, protection)?;
        core::mem::forget(self);
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // SAFETY: still ours: it has not been moved.
        let _ = unsafe { syscall::funmap(self.address, self.size) };
    }
}
