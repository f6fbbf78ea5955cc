//! What needs a real kernel.

use std::process::Command;

use libtest_mimic::{Failed, Trial};

use crate::Need;
use crate::bad_input::expect_refusal;

/// Promises that need most of what there is, and little time.
const QUICK: [&str; 2] = [
    "the_machine_has_the_processors_and_the_memory_that_were_asked_for",
    "two_processes_write_into_one_buffer",
];

const EXHAUSTION: &str = "memory_that_runs_out_costs_what_nobody_needs_and_then_the_request";

pub fn trials(kernel: &Need) -> Vec<Trial> {
    let mut trials = Vec::new();
    for machine in ["q35", "pc"] {
        for (memory, processors) in [("256", "2"), ("3072", "1"), ("8192", "1"), ("8192", "2")] {
            let name = format!("{machine}_with_{memory}_mib_and_{processors}_cpu_boots");
            let test = move || {
                QUICK.into_iter().try_for_each(|test| {
                    let on = [
                        "--machine",
                        machine,
                        "--memory",
                        memory,
                        "--smp",
                        processors,
                    ];
                    run(&[&["boot", "--test", test], &on[..]].concat())
                })
            };
            trials.push(kernel.trial(&name, test));
        }
    }
    trials.push(kernel.trial("a_test_that_does_not_exist_is_told", unknown_test));
    // What the kernel counts as free and is not grows with the memory.
    let exhaust = || run(&["boot", "--memory", "3072", "--test", EXHAUSTION]);
    trials.push(kernel.trial("memory_can_run_out_on_a_large_machine", exhaust));
    for processors in ["1", "2"] {
        let name = format!("promises_are_kept_on_a_real_kernel_with_{processors}_cpu");
        trials.push(kernel.trial(&name, move || run(&["boot", "--smp", processors])));
    }
    let bench = || run(&["bench"]);
    trials.push(kernel.trial("every_row_of_the_benchmark_can_be_measured", bench));
    trials
}

fn run(arguments: &[&str]) -> Result<(), Failed> {
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let status = xtask.args(arguments).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("xtask {}: {status}", arguments.join(" ")).into())
    }
}

fn unknown_test() -> Result<(), Failed> {
    for name in ["no_such_promise", "", "two words"] {
        let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
        xtask.args(["boot", "--test", name]);
        expect_refusal(&mut xtask, "there is nothing of that name")?;
    }
    Ok(())
}
