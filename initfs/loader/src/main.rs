//! The loader as a program: started by QEMU in 32-bit mode (`boot.s`), it lays out the kernel,
//! maps it and jumps. It exists for the test image only.
//!
//! It runs on one CPU with interrupts off and identity-mapped memory below 4 GiB, and owns all
//! of it until it jumps. Whatever is wrong becomes a line on the first serial port, and QEMU
//! ends with exit code 3 if it has an `isa-debug-exit` device at port 0xF4.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};
use core::mem::size_of_val;
use core::ops::Range;
use core::panic::PanicInfo;

use loader::handover::{self, Area, KernelArgs, LARGE_PAGE, NoRoom};
use loader::kernel::{BadKernel, Kernel};
use loader::multiboot::{self, BadInfo, Info};
use loader::{PhysicalMemory, rsdp};
use uart_16550::{Config, Uart16550Tty};

mod memory_functions;

global_asm!(include_str!("boot.s"), options(att_syntax));

unsafe extern "C" {
    static loader_start: u8;
    static loader_end: u8;
    static mut kernel_directory: [u64; 512];
}

const SERIAL_PORT: u16 = 0x3F8;
const DEBUG_EXIT_PORT: u16 = 0xF4;
/// Present, writeable, 2 MiB.
const LARGE_PAGE_FLAGS: u64 = 0x83;

/// What the kernel reads after the jump, in the loader's own memory.
#[repr(C, align(4096))]
struct Told {
    environment: [u8; 4096],
    areas: [Area; 64],
    args: KernelArgs,
}

static mut TOLD: Told = Told {
    environment: [0; 4096],
    areas: [Area::NOTHING; 64],
    args: KernelArgs::ZERO,
};

enum Failure {
    Info(BadInfo),
    Kernel(BadKernel),
    Room(NoRoom),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Info(error) => error.fmt(f),
            Self::Kernel(error) => error.fmt(f),
            Self::Room(error) => error.fmt(f),
        }
    }
}

impl From<BadInfo> for Failure {
    fn from(error: BadInfo) -> Self {
        Self::Info(error)
    }
}

impl From<BadKernel> for Failure {
    fn from(error: BadKernel) -> Self {
        Self::Kernel(error)
    }
}

impl From<NoRoom> for Failure {
    fn from(error: NoRoom) -> Self {
        Self::Room(error)
    }
}

/// The identity map.
struct Identity;

impl PhysicalMemory for Identity {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let end = address.checked_add(length as u64)?;
        if address == 0 || end > 4 << 30 {
            return None;
        }
        // SAFETY: `boot.s` maps the first 4 GiB one to one; reading where there is no memory
        // gives ones. Nothing writes there while the slice is used: the loader is alone, and
        // writes only to its own statics and to the kernel's place, behind all that is read.
        Some(unsafe { core::slice::from_raw_parts(address as *const u8, length) })
    }
}

/// Called by `boot.s`.
#[unsafe(no_mangle)]
extern "C" fn loader_main(magic: u32, info: u32) -> ! {
    match load(magic, info) {
        Ok(entry) => jump(entry),
        Err(failure) => fail(format_args!("loader: {failure}")),
    }
}

/// Makes everything ready; the kernel's entry point.
fn load(magic: u32, info: u32) -> Result<u64, Failure> {
    if magic != multiboot::MAGIC {
        return Err(BadInfo::Magic(magic).into());
    }
    let info = Info::read(&Identity, info)?;
    let file = bytes(&info.kernel).ok_or(BadInfo::Unreadable("kernel"))?;
    let kernel = Kernel::check(file)?;
    let own = own_range();
    let place = handover::place_kernel(&info, &own, kernel.size())?;

    // What the kernel is told is read before its image is laid out: multiboot's information may
    // lie where the image goes.
    let told = &raw mut TOLD;
    // SAFETY: only this function uses it, which runs once, on one CPU.
    let told = unsafe { &mut *told };
    let env_size = handover::write_environment(info.command_line, &mut told.environment)?;
    let area_list = handover::areas(&info, &own);
    for (slot, area) in told.areas.iter_mut().zip(&area_list) {
        *slot = *area;
    }
    let acpi = rsdp::find(&Identity).unwrap_or_default();
    told.args = KernelArgs {
        kernel_base: place.start,
        kernel_size: place.end - place.start,
        env_base: told.environment.as_ptr() as u64,
        env_size: env_size as u64,
        hwdesc_base: acpi.start,
        hwdesc_size: acpi.end - acpi.start,
        areas_base: told.areas.as_ptr() as u64,
        areas_size: size_of_val(area_list.as_slice()) as u64,
        bootstrap_base: info.bootstrap.start,
        bootstrap_size: info.bootstrap.end - info.bootstrap.start,
        ..KernelArgs::ZERO
    };

    let length = (place.end - place.start) as usize;
    // SAFETY: `place_kernel` chose free memory behind the loader and the modules, and nothing
    // else is read from now on.
    let image = unsafe { core::slice::from_raw_parts_mut(place.start as *mut u8, length) };
    kernel.lay_out(image)?;
    map_kernel(&place);
    Ok(kernel.entry())
}

fn bytes(range: &Range<u64>) -> Option<&'static [u8]> {
    Identity.bytes(range.start, (range.end - range.start) as usize)
}

/// The memory that the loader itself takes.
fn own_range() -> Range<u64> {
    (&raw const loader_start) as u64..(&raw const loader_end) as u64
}

/// Maps the image at -2 GiB.
fn map_kernel(place: &Range<u64>) {
    let directory = &raw mut kernel_directory;
    // SAFETY: the page directory is written by this function only, before anything is mapped
    // through it.
    let directory = unsafe { &mut *directory };
    let pages = place.clone().step_by(LARGE_PAGE as usize);
    for (entry, page) in directory.iter_mut().zip(pages) {
        *entry = page | LARGE_PAGE_FLAGS;
    }
}

fn jump(entry: u64) -> ! {
    // SAFETY: the kernel's image is mapped with its entry point in it, and it takes a pointer to
    // its arguments in rdi and sets up a stack of its own.
    unsafe {
        asm!("jmp {entry}", entry = in(reg) entry, in("rdi") &raw const TOLD.args, options(noreturn));
    }
}

/// A line on the serial port, then the end.
fn fail(message: fmt::Arguments) -> ! {
    // SAFETY: the first serial port of a PC, and nobody else uses it.
    let port = unsafe { Uart16550Tty::new_port(SERIAL_PORT, Config::default()) };
    if let Ok(mut port) = port {
        // A line that cannot be written cannot be reported either.
        let _ = writeln!(port, "{message}");
    }
    // SAFETY: the port is QEMU's isa-debug-exit, or nothing; halting with interrupts off is all
    // that is left to do.
    unsafe {
        asm!("out dx, al", in("dx") DEBUG_EXIT_PORT, in("al") 1u8);
        loop {
            asm!("cli", "hlt");
        }
    }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    fail(format_args!("loader: {info}"))
}
