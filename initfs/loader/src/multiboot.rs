//! What QEMU hands over, by the Multiboot 1 specification: modules, memory map, command line.
//!
//! Everything is read through [`PhysicalMemory`] with checks, so that nonsense ends in an error
//! line on the serial port. (The `multiboot` crate turns memory types into an enum unchecked.)

use core::fmt;
use core::ops::Range;

use arrayvec::ArrayVec;

use crate::{PhysicalMemory, u32_at, u64_at};

/// What a multiboot loader leaves in `eax`.
pub const MAGIC: u32 = 0x2BAD_B002;

const HAS_COMMAND_LINE: u32 = 1 << 2;
const HAS_MODULES: u32 = 1 << 3;
const HAS_MEMORY_MAP: u32 = 1 << 6;
const INFO_SIZE: usize = 52;
const MODULE_SIZE: usize = 16;
const AVAILABLE: u32 = 1;
/// More than QEMU ever lists.
const MAX_REGIONS: usize = 32;
const MAX_COMMAND_LINE: usize = 4096;

/// What is wrong with the hand-over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BadInfo {
    /// Not started by a multiboot loader: the wrong magic number.
    Magic(u32),
    /// The named part lies outside memory or is cut off.
    Unreadable(&'static str),
    /// Other than two modules: the number there is.
    ModuleCount(u32),
    /// More memory regions than fit.
    TooManyRegions,
}

impl fmt::Display for BadInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(magic) => write!(f, "not started by multiboot: magic {magic:#x}"),
            Self::Unreadable(part) => write!(f, "cannot read multiboot's {part}"),
            Self::ModuleCount(count) => {
                write!(
                    f,
                    "{count} modules: a kernel and a bootstrap image are needed"
                )
            }
            Self::TooManyRegions => write!(f, "more than {MAX_REGIONS} memory regions"),
        }
    }
}

/// A usable or unusable part of physical memory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Region {
    /// The bytes it covers.
    pub range: Range<u64>,
    /// Whether it is ordinary memory.
    pub available: bool,
}

/// The hand-over, checked.
#[derive(Debug)]
pub struct Info<'a> {
    /// Where the kernel file lies.
    pub kernel: Range<u64>,
    /// Where the bootstrap image lies.
    pub bootstrap: Range<u64>,
    /// The memory map.
    pub regions: ArrayVec<Region, MAX_REGIONS>,
    /// The command line, without the NUL; empty where there is none.
    pub command_line: &'a [u8],
}

impl<'a> Info<'a> {
    /// Reads the structure at `address`.
    ///
    /// # Errors
    ///
    /// See [`BadInfo`].
    pub fn read(memory: &'a impl PhysicalMemory, address: u32) -> Result<Self, BadInfo> {
        let info = part(memory, address, INFO_SIZE, "information")?;
        let field = |offset| u32_at(info, offset).ok_or(BadInfo::Unreadable("information"));
        let flags = field(0)?;

        let modules = if flags & HAS_MODULES == 0 {
            0
        } else {
            field(20)?
        };
        if modules != 2 {
            return Err(BadInfo::ModuleCount(modules));
        }
        let modules = part(memory, field(24)?, 2 * MODULE_SIZE, "modules")?;
        let (kernel, bootstrap) = module(modules, 0)
            .zip(module(modules, MODULE_SIZE))
            .ok_or(BadInfo::Unreadable("modules"))?;

        if flags & HAS_MEMORY_MAP == 0 {
            return Err(BadInfo::Unreadable("memory map"));
        }
        let map = part(memory, field(48)?, field(44)? as usize, "memory map")?;

        let command_line = if flags & HAS_COMMAND_LINE == 0 {
            &[][..]
        } else {
            until_nul(memory, field(16)?)?
        };
        Ok(Self {
            kernel,
            bootstrap,
            regions: regions(map)?,
            command_line,
        })
    }
}

fn part<'a>(
    memory: &'a impl PhysicalMemory,
    address: u32,
    length: usize,
    name: &'static str,
) -> Result<&'a [u8], BadInfo> {
    memory
        .bytes(address.into(), length)
        .ok_or(BadInfo::Unreadable(name))
}

fn module(modules: &[u8], offset: usize) -> Option<Range<u64>> {
    let start = u32_at(modules, offset)?;
    let end = u32_at(modules, offset + 4)?;
    (start <= end).then_some(start.into()..end.into())
}

/// Entries of varying size: the size (not counting itself), base, length, type.
fn regions(mut map: &[u8]) -> Result<ArrayVec<Region, MAX_REGIONS>, BadInfo> {
    let mut regions = ArrayVec::new();
    while !map.is_empty() {
        let (region, rest) = region(map).ok_or(BadInfo::Unreadable("memory map"))?;
        regions
            .try_push(region)
            .map_err(|_| BadInfo::TooManyRegions)?;
        map = rest;
    }
    Ok(regions)
}

fn region(map: &[u8]) -> Option<(Region, &[u8])> {
    let size = u32_at(map, 0)? as usize;
    let start = u64_at(map, 4)?;
    let end = start.checked_add(u64_at(map, 12)?)?;
    let available = u32_at(map, 20)? == AVAILABLE;
    let rest = map.get(size.checked_add(4)?..)?;
    let range = start..end;
    Some((Region { range, available }, rest))
}

fn until_nul(memory: &impl PhysicalMemory, address: u32) -> Result<&[u8], BadInfo> {
    let bytes = part(memory, address, MAX_COMMAND_LINE, "command line")?;
    let end = bytes.iter().position(|&byte| byte == 0);
    let end = end.ok_or(BadInfo::Unreadable("command line"))?;
    Ok(&bytes[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Memory(Vec<u8>);

    impl PhysicalMemory for Memory {
        fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
            let start = usize::try_from(address).ok()?;
            self.0.get(start..start.checked_add(length)?)
        }
    }

    impl Memory {
        fn put(&mut self, at: usize, words: &[u32]) {
            for (index, word) in words.iter().enumerate() {
                let at = at + index * 4;
                self.0[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
        }
    }

    /// Information at 0x100, modules at 0x200, map at 0x300, command line at 0x400.
    fn handover() -> Memory {
        let mut memory = Memory(vec![0; 0x2000]);
        let flags = HAS_COMMAND_LINE | HAS_MODULES | HAS_MEMORY_MAP;
        memory.put(0x100, &[flags, 0, 0, 0, 0x400, 2, 0x200]);
        memory.put(0x100 + 44, &[48, 0x300]);
        memory.put(
            0x200,
            &[0x10_0000, 0x20_0000, 0, 0, 0x20_0000, 0x20_1000, 0, 0],
        );
        memory.put(0x300, &[20, 0, 0, 0x9_f000, 0, 1]);
        memory.put(0x318, &[20, 0, 1, 0, 1, 2]);
        memory.0[0x400..0x40c].copy_from_slice(b"loader a=b c");
        memory
    }

    #[test]
    fn a_hand_over_is_read_whole() {
        let memory = handover();
        let info = Info::read(&memory, 0x100).unwrap();
        assert_eq!(info.kernel, 0x10_0000..0x20_0000);
        assert_eq!(info.bootstrap, 0x20_0000..0x20_1000);
        assert_eq!(info.command_line, b"loader a=b c");
        assert_eq!(info.regions.len(), 2);
        assert!(info.regions[0].available);
        assert_eq!(info.regions[1].range, 1 << 32..2 << 32);
        assert!(!info.regions[1].available);
    }

    #[test]
    fn a_module_too_few_is_named() {
        let mut memory = handover();
        memory.put(0x114, &[1]);
        let error = Info::read(&memory, 0x100).unwrap_err();
        assert_eq!(error, BadInfo::ModuleCount(1));
    }

    #[test]
    fn what_lies_outside_memory_is_refused() {
        let mut memory = handover();
        memory.put(0x118, &[0x10_0000]);
        let error = Info::read(&memory, 0x100).unwrap_err();
        assert_eq!(error, BadInfo::Unreadable("modules"));
        let error = Info::read(&memory, u32::MAX).unwrap_err();
        assert_eq!(error, BadInfo::Unreadable("information"));
    }

    #[test]
    fn a_memory_map_that_is_cut_off_is_refused() {
        let mut memory = handover();
        memory.put(0x100 + 44, &[47]);
        let error = Info::read(&memory, 0x100).unwrap_err();
        assert_eq!(error, BadInfo::Unreadable("memory map"));
    }
}
