//! Lines of a trace on a serial port, among the lines of others.
//!
//! A kernel writes at most 512 bytes in one go, so a line goes out in parts: `trace N PART.`, or
//! `trace N PART+` where the line goes on in the next part. Parts are counted from 0, so that
//! [`Collector`] notices when one is lost or torn.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::mem::take;

/// What a part begins with.
const PREFIX: &str = "trace ";
/// The longest part, in bytes: with its head it fits into what a kernel writes in one go.
const PART: usize = 480;

/// Cuts lines into parts.
#[derive(Debug, Default)]
pub struct Parts {
    next: u32,
}

impl Parts {
    /// Calls `say` with each part of a line, which is ASCII.
    pub fn of(&mut self, line: &str, mut say: impl FnMut(fmt::Arguments)) {
        let mut rest = line;
        loop {
            let (part, behind) = rest.split_at_checked(PART).unwrap_or((rest, ""));
            let mark = if behind.is_empty() { '.' } else { '+' };
            say(format_args!("{PREFIX}{} {part}{mark}", self.next));
            self.next += 1;
            if behind.is_empty() {
                return;
            }
            rest = behind;
        }
    }
}

/// Puts lines together again.
#[derive(Debug, Default)]
pub struct Collector {
    lines: Vec<String>,
    begun: String,
    next: u32,
}

impl Collector {
    /// Takes what was said on the serial port; whether it belongs to a trace.
    ///
    /// # Errors
    ///
    /// It does, and something before it is lost.
    pub fn take(&mut self, said: &str) -> Result<bool, String> {
        let Some(numbered) = said.strip_prefix(PREFIX) else {
            return Ok(false);
        };
        let torn = || format!("a torn part of a trace: {said}");
        let (number, part) = numbered.split_once(' ').ok_or_else(torn)?;
        let number: u32 = number.parse().map_err(|_| torn())?;
        // Another server begins from 0.
        if number != self.next && (number != 0 || !self.begun.is_empty()) {
            let next = self.next;
            return Err(format!(
                "part {next} of a trace is lost before part {number}"
            ));
        }
        self.next = number + 1;
        if let Some(part) = part.strip_suffix('+') {
            self.begun.push_str(part);
        } else {
            self.begun
                .push_str(part.strip_suffix('.').ok_or_else(torn)?);
            self.lines.push(take(&mut self.begun));
        }
        Ok(true)
    }

    /// The whole lines since this was last asked. What is only begun breaks off there.
    pub fn lines(&mut self) -> Vec<String> {
        self.begun.clear();
        self.next = 0;
        take(&mut self.lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn said(parts: &mut Parts, line: &str) -> Vec<String> {
        let mut said = Vec::new();
        parts.of(line, |part| said.push(part.to_string()));
        said
    }

    #[test]
    fn lines_come_through() {
        let mut parts = Parts::default();
        let long = "long ".repeat(300);
        let lines = ["short", "", &long, &long[..PART], "ends with a space "];
        let mut collector = Collector::default();
        for line in lines {
            for part in said(&mut parts, line) {
                assert!(part.len() < 512);
                assert_eq!(collector.take("kernel: INFO"), Ok(false));
                assert_eq!(collector.take(part.trim_end()), Ok(true));
            }
        }
        assert_eq!(collector.lines(), lines);
        for part in said(&mut Parts::default(), "another server") {
            assert_eq!(collector.take(&part), Ok(true));
        }
        assert_eq!(collector.lines(), ["another server"]);
    }

    #[test]
    fn what_is_lost_is_noticed() {
        let mut parts = Parts::default();
        let all: Vec<_> = ["a", &"b".repeat(1000), "c"]
            .iter()
            .flat_map(|line| said(&mut parts, line))
            .collect();
        for lost in 0..all.len() - 1 {
            let mut collector = Collector::default();
            let rest = all.iter().enumerate().filter(|(number, _)| *number != lost);
            let results: Vec<_> = rest.map(|(_, part)| collector.take(part)).collect();
            assert!(results.iter().any(Result::is_err), "{lost}");
        }
        for torn in ["trace 0 abc", "trace x abc.", "trace 0"] {
            assert!(Collector::default().take(torn).is_err(), "{torn}");
        }
    }
}
