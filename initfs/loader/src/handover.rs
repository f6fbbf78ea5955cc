//! What the kernel is told, and where the kernel goes: the loader's side of `KernelArgs` and
//! `BootloaderMemoryEntry` (kernel: `src/startup/mod.rs`, `src/startup/memory.rs`).

use core::fmt;
use core::ops::Range;

use arrayvec::ArrayVec;

use crate::PAGE_SIZE;
use crate::multiboot::{Info, Region};

/// The size and alignment of the pages that the kernel's image is first mapped with.
pub const LARGE_PAGE: u64 = 2 << 20;
/// What the loader's identity map covers.
const VISIBLE: u64 = 4 << 30;
const MAX_AREAS: usize = 33;

/// What the kernel's entry point gets a pointer to. All addresses are physical.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KernelArgs {
    /// The kernel's image.
    pub kernel_base: u64,
    /// Its size, whole pages.
    pub kernel_size: u64,
    /// Not used on x86-64.
    pub stack_base: u64,
    /// Not used on x86-64.
    pub stack_size: u64,
    /// The environment: lines of `KEY=VALUE`.
    pub env_base: u64,
    /// Its size in bytes.
    pub env_size: u64,
    /// ACPI's root pointer, or 0.
    pub hwdesc_base: u64,
    /// Its size in bytes.
    pub hwdesc_size: u64,
    /// An array of [`Area`].
    pub areas_base: u64,
    /// Its size in bytes.
    pub areas_size: u64,
    /// The bootstrap image, page-aligned.
    pub bootstrap_base: u64,
    /// Its size, whole pages.
    pub bootstrap_size: u64,
}

/// A piece of physical memory and what it is for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Area {
    /// The first byte.
    pub base: u64,
    /// How many bytes.
    pub size: u64,
    /// One of [`Area::FREE`], [`Area::RECLAIM`], [`Area::RESERVED`].
    pub kind: u64,
}

impl KernelArgs {
    /// Nothing at all.
    pub const ZERO: Self = Self {
        kernel_base: 0,
        kernel_size: 0,
        stack_base: 0,
        stack_size: 0,
        env_base: 0,
        env_size: 0,
        hwdesc_base: 0,
        hwdesc_size: 0,
        areas_base: 0,
        areas_size: 0,
        bootstrap_base: 0,
        bootstrap_size: 0,
    };
}

impl Area {
    /// An area without bytes.
    pub const NOTHING: Self = Self {
        base: 0,
        size: 0,
        kind: 0,
    };
    /// Ordinary memory for the kernel to use.
    pub const FREE: u64 = 1;
    /// The loader itself: in use until the kernel has its own page tables.
    pub const RECLAIM: u64 = 2;
    /// Not memory, or the firmware's.
    pub const RESERVED: u64 = 3;

    fn new(range: &Range<u64>, kind: u64) -> Self {
        Self {
            base: range.start,
            size: range.end - range.start,
            kind,
        }
    }
}

/// Why the kernel cannot be handed over to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoRoom {
    /// The kernel's image does not fit: the bytes it takes.
    Kernel(u64),
    /// The bootstrap image is not whole, aligned pages: its size in bytes.
    Bootstrap(u64),
    /// The command line is longer than this many bytes.
    CommandLine(usize),
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(size) => write!(f, "no room for a kernel of {size} bytes"),
            Self::Bootstrap(size) => {
                write!(f, "a bootstrap image of {size} bytes is not whole pages")
            }
            Self::CommandLine(limit) => {
                write!(f, "the command line is longer than {limit} bytes")
            }
        }
    }
}

/// Where a kernel of `size` bytes goes: the first large page behind everything that is in use.
///
/// # Errors
///
/// [`NoRoom::Kernel`] where memory ends before, [`NoRoom::Bootstrap`] for a bootstrap image that
/// the kernel could not map.
pub fn place_kernel(info: &Info, loader: &Range<u64>, size: u64) -> Result<Range<u64>, NoRoom> {
    let bootstrap = &info.bootstrap;
    let whole = |address: u64| address.is_multiple_of(PAGE_SIZE);
    if bootstrap.is_empty() || !whole(bootstrap.start) || !whole(bootstrap.end) {
        return Err(NoRoom::Bootstrap(bootstrap.end - bootstrap.start));
    }
    let used = loader.end.max(info.kernel.end).max(bootstrap.end);
    let start = used.next_multiple_of(LARGE_PAGE);
    let place = start..start + size.next_multiple_of(PAGE_SIZE);
    let fits = |region: &Region| {
        region.available && region.range.start <= place.start && place.end <= region.range.end
    };
    if place.end <= VISIBLE && info.regions.iter().any(fits) {
        Ok(place)
    } else {
        Err(NoRoom::Kernel(size))
    }
}

/// The memory map for the kernel: the machine's, and the loader as what may be reclaimed.
pub fn areas(info: &Info, loader: &Range<u64>) -> ArrayVec<Area, MAX_AREAS> {
    let machine = info.regions.iter().map(|region| {
        let kind = if region.available {
            Area::FREE
        } else {
            Area::RESERVED
        };
        Area::new(&region.range, kind)
    });
    machine.chain([Area::new(loader, Area::RECLAIM)]).collect()
}

/// Writes the environment into `page`: the words of the command line but the first (the loader's
/// own name), a line each. Returns how many bytes that is.
///
/// # Errors
///
/// [`NoRoom::CommandLine`].
pub fn write_environment(command_line: &[u8], page: &mut [u8]) -> Result<usize, NoRoom> {
    let limit = page.len();
    let mut length = 0;
    let words = command_line
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty());
    for word in words.skip(1) {
        let end = length + word.len();
        let line = page.get_mut(length..=end);
        let line = line.ok_or(NoRoom::CommandLine(limit))?;
        let (text, newline) = line.split_at_mut(word.len());
        text.copy_from_slice(word);
        newline.fill(b'\n');
        length = end + 1;
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOADER: Range<u64> = 0x10_0000..0x12_0000;

    fn machine(memory: u64) -> Info<'static> {
        let region = |range, available| Region { range, available };
        Info {
            kernel: 0x12_0000..0x30_0000,
            bootstrap: 0x30_0000..0x40_0000,
            regions: [
                region(0..0x9_FC00, true),
                region(0xF_0000..0x10_0000, false),
                region(0x10_0000..memory, true),
            ]
            .into_iter()
            .collect(),
            command_line: b"",
        }
    }

    #[test]
    fn the_kernel_goes_behind_what_is_in_use() {
        let place = place_kernel(&machine(256 << 20), &LOADER, 0x10_0001).unwrap();
        assert_eq!(place, 0x40_0000..0x50_1000);
    }

    #[test]
    fn a_kernel_larger_than_memory_is_refused() {
        let error = place_kernel(&machine(0x48_0000), &LOADER, 0x10_0000).unwrap_err();
        assert_eq!(error, NoRoom::Kernel(0x10_0000));
    }

    #[test]
    fn a_bootstrap_image_of_broken_pages_is_refused() {
        let mut info = machine(256 << 20);
        info.bootstrap.end -= 1;
        let error = place_kernel(&info, &LOADER, 0x1000).unwrap_err();
        assert_eq!(error, NoRoom::Bootstrap(0xF_FFFF));
    }

    #[test]
    fn the_loader_is_not_free_memory() {
        let areas = areas(&machine(256 << 20), &LOADER);
        let kinds: Vec<_> = areas.iter().map(|area| area.kind).collect();
        assert_eq!(
            kinds,
            [Area::FREE, Area::RESERVED, Area::FREE, Area::RECLAIM]
        );
        assert_eq!(areas[3].base..areas[3].base + areas[3].size, LOADER);
    }

    #[test]
    fn the_command_line_becomes_lines() {
        let mut page = [0; 64];
        let length = write_environment(b"/tmp/loader  test=smoke bench=1", &mut page).unwrap();
        assert_eq!(&page[..length], b"test=smoke\nbench=1\n");
    }

    #[test]
    fn a_command_line_that_does_not_fit_is_refused() {
        let mut page = [0; 8];
        assert_eq!(write_environment(b"loader a=b c=d", &mut page), Ok(8));
        let error = write_environment(b"loader a=b c=de", &mut page).unwrap_err();
        assert_eq!(error, NoRoom::CommandLine(8));
    }
}
