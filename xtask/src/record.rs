//! Traces off the serial port, into a file a promise.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use gem_traces::serial::Collector;
use gem_traces::{END, HEAD};

/// Where the traces of a run go. What was said since the last result belongs to the next one.
pub struct Recording {
    directory: PathBuf,
    collector: Collector,
    /// What is lost of the trace of the promise that is being tested.
    loss: Option<String>,
    faults: Vec<String>,
}

impl Recording {
    /// A recording into this directory.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn new(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self {
            directory: directory.to_owned(),
            collector: Collector::default(),
            loss: None,
            faults: Vec::new(),
        })
    }

    /// Takes what the machine says; whether it belongs to a trace.
    pub fn take(&mut self, line: &str) -> bool {
        self.collector.take(line).unwrap_or_else(|loss| {
            self.loss.get_or_insert(loss);
            true
        })
    }

    /// A promise has been tested, and all of its trace has been said. There is no file of one that
    /// is broken or has no trace, and none of a trace with a hole.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn end(&mut self, promise: &str, kept: bool) -> Result<()> {
        let lines = self.collector.lines();
        let loss = self.loss.take();
        if !kept {
            return Ok(());
        }
        if let Some(loss) = loss {
            self.faults
                .push(format!("{promise} is not recorded: {loss}"));
        } else if !lines.is_empty() {
            let path = self.directory.join(format!("{promise}.trace"));
            let text = format!("{HEAD}\n{}\n{END}\n", lines.join("\n"));
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// What is wrong with the recording, a sentence each.
    pub fn faults(self) -> Vec<String> {
        self.faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_that_is_kept_has_the_lines_before_its_result() {
        let directory = std::env::temp_dir().join(format!("gem-record-{}", std::process::id()));
        let mut recording = Recording::new(&directory).unwrap();
        assert!(recording.take("trace 0 limits 1=1."));
        assert!(!recording.take("# a diagnostic"));
        assert!(recording.take("trace 1 > 1 2 3+"));
        assert!(recording.take("trace 2 0."));
        recording.end("a", true).unwrap();
        recording.end("b", true).unwrap();
        assert!(recording.take("trace 0 limits 1=3."));
        recording.end("d", false).unwrap();
        assert!(recording.take("trace 0 limits 1=2."));
        assert!(recording.take("trace 2 pid 1 gone."));
        recording.end("c", true).unwrap();
        let trace = fs::read_to_string(directory.join("a.trace"));
        let written = [
            trace.is_ok_and(|text| text == format!("{HEAD}\nlimits 1=1\n> 1 2 30\n{END}\n")),
            directory.join("b.trace").exists(),
            directory.join("c.trace").exists(),
            directory.join("d.trace").exists(),
        ];
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(written, [true, false, false, false]);
        let faults = recording.faults();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("c is not recorded"), "{faults:?}");
    }
}
