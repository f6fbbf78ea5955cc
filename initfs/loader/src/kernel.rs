//! The kernel file: checks that it is a kernel for this machine, and lays its image out.
//!
//! Redox's kernel is a static x86-64 ELF, linked at -2 GiB so that its file is its image: every
//! segment lies at the same distance from -2 GiB in memory as from the start of the file. The
//! whole file goes into memory, because the kernel reads its own symbols there for stack traces
//! (kernel: `src/panic.rs`).

use core::fmt;

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::segment::ProgramHeader;

/// Where the kernel is linked.
pub const BASE: u64 = 0xFFFF_FFFF_8000_0000;
/// The most memory a kernel image may take: what one page directory of 2 MiB pages maps.
pub const MAX_SIZE: u64 = 1 << 30;

/// What is wrong with a kernel file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BadKernel {
    /// Not an ELF file, or a damaged one.
    NotElf,
    /// An ELF file, but not a static 64-bit x86-64 program.
    NotForThisMachine,
    /// A segment that lies outside the file, outside -2 GiB to -1 GiB, or elsewhere in memory than
    /// in the file: its virtual address.
    Segment(u64),
    /// The entry point lies in no segment: its virtual address.
    Entry(u64),
}

impl fmt::Display for BadKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf => write!(f, "the kernel file is not an ELF file"),
            Self::NotForThisMachine => {
                write!(f, "the kernel file is not a static x86-64 program")
            }
            Self::Segment(address) => {
                write!(f, "the kernel's segment at {address:#x} does not fit")
            }
            Self::Entry(address) => {
                write!(f, "the kernel's entry point {address:#x} is in no segment")
            }
        }
    }
}

/// A kernel file that has been checked.
#[derive(Debug)]
pub struct Kernel<'a> {
    file: &'a [u8],
    elf: ElfBytes<'a, LittleEndian>,
    size: u64,
}

impl<'a> Kernel<'a> {
    /// Checks a kernel file.
    ///
    /// # Errors
    ///
    /// See [`BadKernel`].
    pub fn check(file: &'a [u8]) -> Result<Self, BadKernel> {
        let elf = ElfBytes::minimal_parse(file).map_err(|_| BadKernel::NotElf)?;
        let header = &elf.ehdr;
        let machine = (header.class, header.e_type, header.e_machine);
        if machine != (Class::ELF64, ET_EXEC, EM_X86_64) {
            return Err(BadKernel::NotForThisMachine);
        }

        let size = file.len() as u64;
        let mut kernel = Self { file, elf, size };
        let mut entry_is_mapped = false;
        for segment in kernel.segments()? {
            let end = end_in_image(&segment, file).ok_or(BadKernel::Segment(segment.p_vaddr))?;
            kernel.size = kernel.size.max(end);
            let mapped = segment.p_vaddr..BASE + end;
            entry_is_mapped |= mapped.contains(&kernel.entry());
        }
        if !entry_is_mapped {
            return Err(BadKernel::Entry(kernel.entry()));
        }
        Ok(kernel)
    }

    /// Bytes of memory that the image takes, from [`BASE`] on.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The virtual address to jump to.
    pub fn entry(&self) -> u64 {
        self.elf.ehdr.e_entry
    }

    /// Lays the image out in `memory`, which has [`Kernel::size`] bytes or more; what the file does
    /// not fill becomes zero.
    ///
    /// # Errors
    ///
    /// `memory` is too small.
    pub fn lay_out(&self, memory: &mut [u8]) -> Result<(), BadKernel> {
        let (image, rest) = memory
            .split_at_mut_checked(self.file.len())
            .ok_or(BadKernel::Segment(BASE))?;
        image.copy_from_slice(self.file);
        rest.fill(0);
        for segment in self.segments()? {
            let cleared = clear_tail(&segment, memory);
            cleared.ok_or(BadKernel::Segment(segment.p_vaddr))?;
        }
        Ok(())
    }

    fn segments(&self) -> Result<impl Iterator<Item = ProgramHeader> + use<'a>, BadKernel> {
        let segments = self.elf.segments().ok_or(BadKernel::NotElf)?;
        Ok(segments
            .iter()
            .filter(|segment| segment.p_type == PT_LOAD && segment.p_memsz > 0))
    }
}

/// Where the segment ends, counted from [`BASE`], or `None` where it does not fit.
fn end_in_image(segment: &ProgramHeader, file: &[u8]) -> Option<u64> {
    let start = segment.p_vaddr.checked_sub(BASE)?;
    let end_in_file = start.checked_add(segment.p_filesz)?;
    let end = start.checked_add(segment.p_memsz)?;
    let fits = start == segment.p_offset
        && end_in_file <= file.len() as u64
        && end_in_file <= end
        && end <= MAX_SIZE;
    fits.then_some(end)
}

/// Zeroes what the segment has in memory but not in the file.
fn clear_tail(segment: &ProgramHeader, image: &mut [u8]) -> Option<()> {
    let start = segment.p_offset.checked_add(segment.p_filesz)?;
    let end = segment.p_offset.checked_add(segment.p_memsz)?;
    let tail = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
    image.get_mut(tail)?.fill(0);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &[u8] = b"\xF4code";

    /// A kernel of one segment, at `offset` in the file and linked at `address`.
    fn kernel(offset: u64, address: u64, memory_size: u64) -> Vec<u8> {
        let mut file = Vec::new();
        file.extend([0x7F, b'E', b'L', b'F', 2, 1, 1]);
        file.resize(16, 0);
        file.extend(ET_EXEC.to_le_bytes());
        file.extend(EM_X86_64.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(address.to_le_bytes());
        file.extend(64u64.to_le_bytes());
        file.extend(0u64.to_le_bytes());
        file.extend(0u32.to_le_bytes());
        for half in [64u16, 56, 1, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        file.extend(PT_LOAD.to_le_bytes());
        file.extend(7u32.to_le_bytes());
        for word in [offset, address, 0, CODE.len() as u64, memory_size, 4096] {
            file.extend(word.to_le_bytes());
        }
        file.resize(offset as usize, 0);
        file.extend(CODE);
        file.extend(b"symbols");
        file
    }

    #[test]
    fn an_image_is_its_file_with_zeroes_where_a_segment_has_none() {
        let file = kernel(0x1000, BASE + 0x1000, 9);
        let kernel = Kernel::check(&file).unwrap();
        assert_eq!(kernel.size(), file.len() as u64);
        let mut memory = vec![0xAA; 0x2000];
        kernel.lay_out(&mut memory).unwrap();
        assert_eq!(&memory[..0x1000], &file[..0x1000]);
        assert_eq!(&memory[0x1000..0x100c], b"\xF4code\0\0\0\0ols");
        assert!(memory[0x100c..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn memory_behind_the_file_counts() {
        let file = kernel(0x1000, BASE + 0x1000, 0x3000);
        assert_eq!(Kernel::check(&file).unwrap().size(), 0x4000);
    }

    #[test]
    fn a_text_file_is_no_kernel() {
        assert_eq!(Kernel::check(b"hello").unwrap_err(), BadKernel::NotElf);
        assert_eq!(Kernel::check(b"").unwrap_err(), BadKernel::NotElf);
    }

    #[test]
    fn a_program_for_another_machine_is_no_kernel() {
        let mut file = kernel(0x1000, BASE + 0x1000, 0x20);
        file[18] = 0xB7;
        let error = Kernel::check(&file).unwrap_err();
        assert_eq!(error, BadKernel::NotForThisMachine);
    }

    #[test]
    fn a_segment_in_the_wrong_place_is_refused() {
        for (offset, address, size) in [
            (0x1000, 0x40_1000, 0x20),
            (0x1000, BASE + 0x2000, 0x20),
            (0x1000, BASE + 0x1000, MAX_SIZE),
            (0x1000, BASE + 0x1000, u64::MAX),
            (0x1000, BASE + 0x1000, 1),
        ] {
            let error = Kernel::check(&kernel(offset, address, size)).unwrap_err();
            assert_eq!(error, BadKernel::Segment(address));
        }
    }

    #[test]
    fn a_file_that_is_cut_off_is_refused_at_every_length() {
        let file = kernel(0x1000, BASE + 0x1000, 0x20);
        for length in 0..file.len() - b"symbols".len() {
            assert!(Kernel::check(&file[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn an_entry_point_outside_the_image_is_refused() {
        let mut file = kernel(0x1000, BASE + 0x1000, 0x20);
        file[24] = 0x40;
        let error = Kernel::check(&file).unwrap_err();
        assert_eq!(error, BadKernel::Entry(BASE + 0x1040));
    }
}
