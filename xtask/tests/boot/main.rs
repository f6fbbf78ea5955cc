//! What `cargo xtask` promises: what cannot be done is one line and exit code 2; a kernel file that
//! is none is a line on the machine's serial port; and where a real kernel is named
//! (`REDOX_KERNEL=PATH cargo test`), everything that the image promises is kept there.
//!
//! A test that lacks something here (a kernel, QEMU, a compiler with library sources) is skipped,
//! and says so at the end.

mod bad_input;
mod loader;
mod real_kernel;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use xtask::qemu;
use xtask::toolchain::Compiler;

/// What names the kernel.
const KERNEL: &str = "REDOX_KERNEL";

/// What is needed for some tests, and what it is called where it is not there.
struct Need {
    there: bool,
    advice: &'static str,
}

impl Need {
    fn trial(
        &self,
        name: &str,
        test: impl FnOnce() -> Result<(), libtest_mimic::Failed> + Send + 'static,
    ) -> Trial {
        Trial::test(name, test).with_ignored_flag(!self.there)
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // All of them put the image into the same directory.
    arguments.test_threads = Some(1);
    let nothing = Need {
        there: true,
        advice: "",
    };
    let qemu = Need {
        there: qemu::check_installed().is_ok(),
        advice: "the loader's and the memory's tests: apt-get install qemu-system-x86",
    };
    let image = Need {
        there: qemu.there && Compiler::find().is_ok(),
        advice: "the image's tests: apt-get install rustc-web rust-web-src",
    };
    let kernel = Need {
        there: std::env::var_os(KERNEL).is_some_and(|path| !path.is_empty()),
        advice: "no boot on a real kernel: name one, REDOX_KERNEL=PATH",
    };
    let mut trials = bad_input::trials(&nothing, &image);
    trials.extend(loader::trials(&qemu));
    trials.extend(real_kernel::trials(&kernel));
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        let missing = [qemu, image, kernel];
        for need in missing.iter().filter(|need| !need.there) {
            println!("!! SKIPPED: {}", need.advice);
        }
        println!();
    }
    conclusion.exit_code()
}
