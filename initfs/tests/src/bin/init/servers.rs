//! Promises about the tests themselves, and about gemd as a program.

use initfs_tests::promises::BROKEN;
use rt::process::Command;
use rt::protocol::Ended;
use rt::say;

use crate::scheme::{self, Gemd};
use crate::{Outcome, Promise, expect, in_call};

/// All of them.
pub const PROMISES: &[Promise] = &[
    Promise {
        name: "a_broken_promise_is_told_and_the_next_one_is_tested",
        keep: broken,
    },
    Promise {
        name: "a_second_gemd_of_the_same_name_is_refused",
        keep: second,
    },
];

fn broken() -> Outcome {
    say!("# what follows is broken on purpose");
    for promise in BROKEN {
        expect(promise.name, scheme::keep(promise, false).is_err(), true)?;
    }
    Ok(())
}

fn second() -> Outcome {
    let gemd = Gemd::start(&[])?;
    let second = Command::new("gemd").spawn();
    let second = second.map_err(in_call("start a second gemd"))?;
    let ended = second.wait().map_err(in_call("wait for the second"))?;
    expect("how the second ended", ended, Ended::Exited(1))?;
    gemd.is_serving()
}
