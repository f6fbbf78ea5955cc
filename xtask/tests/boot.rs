//! The promises on a real Redox kernel, where one is named: `REDOX_KERNEL=PATH cargo test`.

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

const KERNEL: &str = "REDOX_KERNEL";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Both put the image into the same directory.
    arguments.test_threads = Some(1);
    let no_kernel = std::env::var_os(KERNEL).is_none_or(|path| path.is_empty());
    let trials = [("one", "1"), ("two", "2")].map(|(number, processors)| {
        let name = format!("promises_are_kept_on_a_real_kernel_with_{number}_cpu");
        Trial::test(name, move || run(&["boot", "--smp", processors])).with_ignored_flag(no_kernel)
    });
    let bench = || run(&["bench"]);
    let bench = Trial::test("every_row_of_the_benchmark_can_be_measured", bench);
    let trials = trials
        .into_iter()
        .chain([bench.with_ignored_flag(no_kernel)]);
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if no_kernel && !arguments.list {
        println!("!! SKIPPED: no boot on a real kernel: name one, {KERNEL}=PATH\n");
    }
    conclusion.exit_code()
}

fn run(arguments: &[&str]) -> Result<(), Failed> {
    let status = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(arguments)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("xtask {}: {status}", arguments.join(" ")).into())
    }
}
