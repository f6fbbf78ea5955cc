//! What the kernel gives the first process: the roots of its schemes (kernel:
//! `src/syscall/process.rs`, `usermode_bootstrap`).

use syscall::PAGE_SIZE;
use syscall::data::{GlobalSchemes, KernelSchemeInfo};
use syscall::error::{ENODEV, Error, Result};

/// The metadata page: four pages below the end of user space.
const METADATA: usize = 0x8000_0000_0000 - 4 * PAGE_SIZE;

/// The kernel schemes' roots, read once.
#[derive(Clone, Copy, Debug)]
pub struct Roots {
    schemes: &'static [KernelSchemeInfo],
    create_scheme: usize,
}

impl Roots {
    /// Reads them.
    pub fn read() -> Self {
        // SAFETY: the kernel maps the page for the life of the process: a count, so many
        // entries, one more fd.
        unsafe {
            let count = (METADATA as *const usize).read();
            let first = (METADATA + size_of::<usize>()) as *const KernelSchemeInfo;
            Self {
                schemes: core::slice::from_raw_parts(first, count),
                create_scheme: first.add(count).cast::<usize>().read(),
            }
        }
    }

    /// The root of a kernel scheme.
    ///
    /// # Errors
    ///
    /// ENODEV where this kernel does not have it.
    pub fn get(&self, scheme: GlobalSchemes) -> Result<usize> {
        self.schemes
            .iter()
            .find(|info| info.scheme_id == scheme as u8 && info.fd != usize::MAX)
            .map(|info| info.fd)
            .ok_or(Error::new(ENODEV))
    }

    /// What schemes are made with.
    pub fn create_scheme(&self) -> usize {
        self.create_scheme
    }
}
