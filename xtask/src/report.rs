//! What the machine says, judged: TAP by the tests, the last words of the bootstrap process, and
//! the kernel's panics.

use std::collections::BTreeMap;

/// What the runner does with a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Line {
    /// Print it.
    Show,
    /// Print it: this promise is kept, or not.
    Tested(String, bool),
    /// Keep it for the log.
    Log,
    /// The kernel has panicked: nothing more will come but its stack trace.
    Panic,
    /// The machine asks what its page tables say about this virtual address.
    Look(u64),
}

/// The verdict over a run, as it grows.
#[derive(Debug, Default)]
pub struct Report {
    results: BTreeMap<String, bool>,
    planned: Option<usize>,
    ended: Option<String>,
    panicked: bool,
}

impl Report {
    /// Takes a line into account.
    pub fn take(&mut self, line: &str) -> Line {
        if line.contains("PANIC") {
            self.panicked = true;
            return Line::Panic;
        }
        if let Some(ended) = line.strip_prefix("gem-boot: ") {
            self.ended = Some(ended.to_owned());
            return Line::Show;
        }
        if let Some(count) = line.strip_prefix("1..") {
            self.planned = count.parse().ok();
            return Line::Show;
        }
        if let Some((name, kept)) = result(line) {
            self.results.insert(name.to_owned(), kept);
            return Line::Tested(name.to_owned(), kept);
        }
        if let Some(address) = line.strip_prefix("look ") {
            return u64::from_str_radix(address, 16).map_or(Line::Log, Line::Look);
        }
        let shown = ["#", "TAP ", "loader: ", "bench "];
        if shown.iter().any(|prefix| line.starts_with(prefix)) {
            Line::Show
        } else {
            Line::Log
        }
    }

    /// Whether the image has ended because it has no test of that name.
    pub fn knows_no_such_test(&self) -> bool {
        self.ended.as_deref() == Some("init ended: Exited(2)")
    }

    /// What is wrong, a sentence each, where tests were expected or not and the machine went off
    /// by itself or not.
    pub fn faults(&self, tests: bool, went_off: bool) -> Vec<String> {
        let mut faults = Vec::new();
        if self.panicked {
            faults.push("the kernel panicked".to_owned());
        } else if !went_off {
            faults.push("time is up".to_owned());
        }
        match self.ended.as_deref() {
            Some("init ended: Exited(0)") => {}
            Some(ended) => faults.push(ended.to_owned()),
            None => faults.push("the run did not come to its end".to_owned()),
        }
        let failed = self.results.iter().filter(|(_, kept)| !**kept);
        faults.extend(failed.map(|(name, _)| format!("{name} failed")));
        let planned = self.planned.unwrap_or(0);
        let reported = self.results.len();
        if planned != reported {
            faults.push(format!("{planned} tests were planned, {reported} have run"));
        }
        if tests && reported == 0 {
            faults.push("no test has run".to_owned());
        }
        faults
    }
}

/// The name and outcome of a TAP result line.
pub fn result(line: &str) -> Option<(&str, bool)> {
    let (kept, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (_, name) = rest.split_once(" - ")?;
    Some((name, kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[&str]) -> Report {
        let mut report = Report::default();
        for line in lines {
            report.take(line);
        }
        report
    }

    const END: &str = "gem-boot: init ended: Exited(0)";

    #[test]
    fn a_run_in_which_everything_held_has_no_faults() {
        let report = report(&["TAP version 14", "1..2", "ok 1 - a", "ok 2 - b", END]);
        assert!(report.faults(true, true).is_empty());
    }

    #[test]
    fn measurements_need_no_tests() {
        assert!(
            report(&["bench null call: 1", END])
                .faults(false, true)
                .is_empty()
        );
        assert_eq!(report(&[END]).faults(true, true), ["no test has run"]);
    }

    #[test]
    fn a_failed_test_is_a_fault() {
        let end = "gem-boot: init ended: Exited(1)";
        let report = report(&["1..2", "ok 1 - a", "not ok 2 - b", end]);
        assert_eq!(
            report.faults(true, true),
            ["init ended: Exited(1)", "b failed"]
        );
    }

    #[test]
    fn a_test_that_did_not_run_is_a_fault() {
        let report = report(&["1..2", "ok 1 - a", END]);
        assert_eq!(
            report.faults(true, true),
            ["2 tests were planned, 1 have run"]
        );
    }

    #[test]
    fn a_name_without_a_test_is_known() {
        assert!(report(&["gem-boot: init ended: Exited(2)"]).knows_no_such_test());
        assert!(!report(&[END]).knows_no_such_test());
    }

    #[test]
    fn a_kernel_panic_is_a_fault_and_stops_the_run() {
        let mut report = report(&["1..1", "ok 1 - a"]);
        assert_eq!(report.take("KERNEL PANIC: at the disco"), Line::Panic);
        let faults = report.faults(true, false);
        assert_eq!(
            faults,
            ["the kernel panicked", "the run did not come to its end"]
        );
    }

    #[test]
    fn a_run_that_does_not_end_is_late() {
        let report = report(&["1..1", "ok 1 - a"]);
        assert_eq!(
            report.faults(true, false),
            ["time is up", "the run did not come to its end"]
        );
    }

    #[test]
    fn a_question_about_page_tables_is_one() {
        let mut report = Report::default();
        assert_eq!(
            report.take("look 7fff0000f000"),
            Line::Look(0x7FFF_0000_F000)
        );
        assert_eq!(report.take("look here"), Line::Log);
    }

    #[test]
    fn what_the_kernel_logs_is_not_shown() {
        let mut report = Report::default();
        assert_eq!(
            report.take("kernel::startup:INFO -- Memory: 510 MB"),
            Line::Log
        );
        assert_eq!(report.take("# a diagnostic"), Line::Show);
    }
}
