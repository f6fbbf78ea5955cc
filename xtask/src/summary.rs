//! `cargo xtask report`: boots with one and with two processors, and writes down what came of it
//! (docs/boot-report.md).

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::boot::{Run, Target};
use crate::{qemu, report};

/// `cargo xtask report`.
#[derive(Args)]
pub struct Summary {
    #[command(flatten)]
    target: Target,
    /// The commit that the kernel was built from
    #[arg(long, value_name = "HASH")]
    commit: String,
    /// Where the report goes
    #[arg(long, value_name = "FILE", default_value = "docs/boot-report.md")]
    output: PathBuf,
}

/// How many processors there are in each run.
const RUNS: [u8; 2] = [1, 2];

impl Summary {
    /// Whether all tests passed, which the report says as well.
    ///
    /// # Errors
    ///
    /// A run could not be made, or the report not be written.
    pub fn run(&self) -> Result<bool> {
        let mut columns = Vec::new();
        let mut well = true;
        for processors in RUNS {
            let ended = self.target.run(&Run {
                processors,
                command_line: "",
                record: None,
                count_instructions: false,
                debugger: false,
                tests: true,
            })?;
            well &= ended.well;
            columns.push(results(&ended.log));
        }
        let kernel = self.target.kernel()?;
        let hash = said_by(Command::new("sha256sum").arg(kernel))?;
        let facts = [
            ("date", said_by(Command::new("date").args(["-u", "+%F"]))?),
            ("kernel", format!("commit {}", self.commit)),
            ("its file's SHA-256", first_word(&hash)),
            ("emulator", qemu::version()?),
        ];
        let text = text(&facts, &columns);
        fs::write(&self.output, text)
            .with_context(|| format!("cannot write {}", self.output.display()))?;
        println!("\nwritten: {}", self.output.display());
        Ok(well)
    }
}

/// The tests of a run and whether each was kept, in the order of the run.
fn results(log: &[String]) -> Vec<(String, bool)> {
    let results = log.iter().filter_map(|line| report::result(line));
    results
        .map(|(name, kept)| (name.to_owned(), kept))
        .collect()
}

fn text(facts: &[(&str, String)], columns: &[Vec<(String, bool)>]) -> String {
    let mut text = String::from(
        "# Boot report\n\n\
         The test image on a real Redox kernel. Written by `cargo xtask report`; it is replaced as a \
         whole.\n\n",
    );
    let mut say = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    for (what, is) in facts {
        say(format!("- {what}: {is}"));
    }
    for (processors, results) in RUNS.iter().zip(columns) {
        let kept = results.iter().filter(|(_, kept)| *kept).count();
        let all = results.len();
        say(format!(
            "- with {processors} processor(s): {kept} of {all} tests passed"
        ));
    }
    say("\n| test | 1 processor | 2 processors |\n|---|---|---|".to_owned());
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in columns.iter().flatten() {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    for name in names {
        let mut line = format!("| {name} |");
        for results in columns {
            let found = results.iter().find(|(other, _)| other == name);
            let verdict = match found {
                Some((_, true)) => "ok",
                Some((_, false)) => "**not ok**",
                None => "**has not run**",
            };
            // Writing to a string cannot fail.
            let _ = write!(line, " {verdict} |");
        }
        say(line);
    }
    text
}

fn first_word(text: &str) -> String {
    text.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// What a program prints, without the end of the line.
fn said_by(program: &mut Command) -> Result<String> {
    let output = program
        .output()
        .with_context(|| format!("cannot run {}", program.get_program().display()))?;
    ensure!(output.status.success(), "{program:?}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|&line| line.to_owned()).collect()
    }

    #[test]
    fn a_report_hides_neither_failures_nor_what_is_missing() {
        let one = results(&log(&[
            "TAP version 14",
            "1..2",
            "ok 1 - a",
            "not ok 2 - b",
        ]));
        let two = results(&log(&["# ok", "ok 1 - a"]));
        let text = text(&[("date", "today".to_owned())], &[one, two]);
        for line in [
            "- date: today",
            "- with 1 processor(s): 1 of 2 tests passed",
            "- with 2 processor(s): 1 of 1 tests passed",
            "| a | ok | ok |",
            "| b | **not ok** | **has not run** |",
        ] {
            assert!(text.lines().any(|found| found == line), "{text}");
        }
    }
}
