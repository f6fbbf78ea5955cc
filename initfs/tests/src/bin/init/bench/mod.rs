//! Measurements, in time stamp counter ticks: under QEMU's `-icount shift=0,sleep=off` these are
//! guest instructions, of the whole machine: client, kernel, daemon, and whatever else runs
//! meanwhile.
//!
//! A row is a function: it sets up its world, hands what is to be measured to the [`Meter`], and
//! tears down; only what the meter is handed counts. To add one, write it in a module beside this one
//! and put it into the list there. What it is compared with is `cargo xtask bench`'s business.

mod many;
mod rows;
mod userptr;

use alloc::vec::Vec;
use core::arch::x86_64::_rdtsc;

use rt::say;

use crate::{Broken, Outcome};

/// How many times each operation is measured, after a tenth as many that are not.
const ROUNDS: usize = 201;

/// Something to measure: what `cargo xtask bench` knows it by, and how.
struct Row {
    name: &'static str,
    measure: fn(&Meter) -> Outcome,
}

/// Prints a line a row, `bench NAME MEDIAN MEAN`, for rows that begin with `name`, or `all`. Exit
/// codes as of [`crate::main`].
pub fn run(name: &str) -> u8 {
    let wanted = |row: &&Row| name == "all" || row.name.starts_with(name);
    let mut complete = true;
    let all = || rows::ROWS.iter().chain(many::ROWS).chain(userptr::ROWS);
    let mut rows = all().filter(wanted).peekable();
    if rows.peek().is_none() {
        say!("# there are these:");
        all().for_each(|row| say!("#   {}", row.name));
        return 2;
    }
    for row in rows {
        let meter = Meter {
            name: row.name,
            rounds: ROUNDS,
        };
        match (row.measure)(&meter) {
            Ok(()) => continue,
            Err(Broken::Call(what, error)) => say!("# {}: {what}: {error}", row.name),
            Err(Broken::Differs(what, is)) => say!("# {}: {what}: {is}", row.name),
        }
        complete = false;
    }
    u8::from(!complete)
}

/// Measures one row.
struct Meter {
    name: &'static str,
    rounds: usize,
}

impl Meter {
    /// The same, measured at most so many times: for what takes long.
    fn at_most(&self, rounds: usize) -> Self {
        Self {
            name: self.name,
            rounds: self.rounds.min(rounds),
        }
    }

    /// Measures `operation`, many times, one after the other. What it returns is dropped outside
    /// of what is measured.
    fn measure<T>(&self, mut operation: impl FnMut() -> Result<T, Broken>) -> Outcome {
        self.measure_with(|| Ok(()), |()| operation())
    }

    /// Measures `operation`, each time on something new that `prepare` makes, which is not
    /// measured. What it returns is dropped outside of what is measured.
    fn measure_with<P, T>(
        &self,
        mut prepare: impl FnMut() -> Result<P, Broken>,
        mut operation: impl FnMut(P) -> Result<T, Broken>,
    ) -> Outcome {
        for _ in 0..self.rounds / 10 {
            operation(prepare()?)?;
        }
        let mut counts = Vec::with_capacity(self.rounds);
        for _ in 0..self.rounds {
            let prepared = prepare()?;
            let before = ticks();
            let left = operation(prepared);
            counts.push(ticks() - before);
            left?;
        }
        counts.sort_unstable();
        let median = counts[self.rounds / 2];
        // Work that is put off until after the operation shows here, in later ones.
        let mean = counts.iter().sum::<u64>() / self.rounds as u64;
        say!("bench {} {median} {mean}", self.name);
        Ok(())
    }
}

fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the counter, and the kernel leaves it to user space.
    unsafe { _rdtsc() }
}
