//! The loader, handed modules that no image builder would put into an image.

use std::fs;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use xtask::image::{self, BOOTSTRAP, KERNEL, LOADER};
use xtask::qemu::{End, Machine, Qemu, Setup};

use crate::Need;
use crate::bad_input::directory;

/// More than a loader needs that does not hang.
const LIMIT: Duration = Duration::from_secs(60);
/// What QEMU ends with when the loader has failed.
const LOADER_FAILED: i32 = 3;
/// Where Redox's kernel is linked.
const BASE: u64 = 0xFFFF_FFFF_8000_0000;
const PAGE: usize = 4096;

pub fn trials(qemu: &Need) -> Vec<Trial> {
    vec![
        qemu.trial("a_bad_kernel_is_a_line_on_the_serial_port", bad_kernel),
        qemu.trial("a_bad_bootstrap_image_is_a_line_as_well", bad_bootstrap),
        qemu.trial("memory_that_is_too_small_is_a_line_as_well", little_memory),
    ]
}

/// The smallest file that passes for a kernel: one page of code, which halts.
pub fn kernel_file() -> Vec<u8> {
    let address = BASE + PAGE as u64;
    let (offset, size) = (PAGE as u64, PAGE as u64);
    let mut file = vec![0x7F, b'E', b'L', b'F', 2, 1, 1];
    file.resize(16, 0);
    // An executable for x86-64, with one program header behind this one.
    file.extend([2, 0, 0x3E, 0, 1, 0, 0, 0]);
    for word in [address, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend([1_u32, 7].map(u32::to_le_bytes).as_flattened());
    for word in [offset, address, 0, size, size, size] {
        file.extend(word.to_le_bytes());
    }
    file.resize(2 * PAGE, 0xF4);
    file
}

fn bad_kernel() -> Result<(), Failed> {
    let page = vec![0; PAGE];
    let other_machine = {
        let mut file = kernel_file();
        file[18] = 0xB7;
        file
    };
    let cut_off = kernel_file()[..PAGE + 1].to_vec();
    let elsewhere = {
        let mut file = kernel_file();
        // The segment's address: where programs are, not kernels.
        file[80..88].copy_from_slice(&0x40_1000_u64.to_le_bytes());
        file
    };
    for (kernel, says) in [
        (
            b"no kernel".to_vec(),
            "loader: the kernel file is not an ELF file",
        ),
        (
            vec![0; 3 * PAGE],
            "loader: the kernel file is not an ELF file",
        ),
        (
            other_machine,
            "loader: the kernel file is not a static x86-64 program",
        ),
        (
            cut_off,
            "loader: the kernel's segment at 0xffffffff80001000 does not fit",
        ),
        (
            elsewhere,
            "loader: the kernel's segment at 0x401000 does not fit",
        ),
    ] {
        expect_line(&kernel, &page, 64, says)?;
    }
    Ok(())
}

fn bad_bootstrap() -> Result<(), Failed> {
    let says = "loader: a bootstrap image of 5 bytes is not whole pages";
    expect_line(&kernel_file(), b"short", 64, says)
}

fn little_memory() -> Result<(), Failed> {
    let mut kernel = kernel_file();
    // A segment of 100 MiB, most of it zeroes that the file does not have.
    let size = 100_u64 << 20;
    kernel[104..112].copy_from_slice(&size.to_le_bytes());
    let says = format!("loader: no room for a kernel of {} bytes", size + 0x1000);
    expect_line(&kernel, &[0; PAGE], 64, &says)
}

/// Boots these modules on every type of machine, and expects this line, and the loader's end.
fn expect_line(kernel: &[u8], bootstrap: &[u8], memory: u32, says: &str) -> Result<(), Failed> {
    let directory = directory("loader")?;
    let loader = image::loader()?;
    for (name, bytes) in [(LOADER, &*loader), (KERNEL, kernel), (BOOTSTRAP, bootstrap)] {
        fs::write(directory.join(name), bytes)?;
    }
    for machine in [Machine::Q35, Machine::Pc] {
        let setup = Setup {
            image: &directory,
            machine,
            processors: 1,
            memory,
            command_line: "",
            count_instructions: false,
            debugger: false,
        };
        let mut qemu = Qemu::start(&setup, Some(LIMIT))?;
        let mut lines = Vec::new();
        let end = loop {
            match qemu.line() {
                Ok(line) => lines.push(line),
                Err(end) => break end,
            }
        };
        if end == End::Late {
            return Err(format!("the loader hangs, after {lines:?}").into());
        }
        let code = qemu.status()?.code();
        if (lines.as_slice(), code) != (&[says.to_owned()], Some(LOADER_FAILED)) {
            return Err(format!("{lines:?} and {code:?} instead of `{says}`").into());
        }
    }
    Ok(())
}
