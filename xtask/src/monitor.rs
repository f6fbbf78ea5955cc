//! QEMU's monitor, and what it is needed for: no kernel tells a program how its memory is cached,
//! so the machine asks its host, who reads the processors' page tables.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Levels of page tables.
const LEVELS: u32 = 4;
/// The bits of an entry that are an address.
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
const PRESENT: u64 = 1 << 0;
/// In an entry of a higher level: there is no lower one.
const LARGE: u64 = 1 << 7;

/// A connection to the monitor (QMP).
#[derive(Debug)]
pub struct Monitor {
    stream: BufReader<UnixStream>,
    is_greeted: bool,
}

impl Monitor {
    /// On a connection that nothing has been said on yet.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream: BufReader::new(stream),
            is_greeted: false,
        }
    }

    /// What the page tables of each processor say about a virtual address: the entry of the lowest
    /// level, 0 where there is none.
    ///
    /// # Errors
    ///
    /// QEMU is gone, or says what is not understood.
    pub fn page_table_entries(&mut self, processors: u8, address: u64) -> Result<Vec<u64>> {
        self.execute("stop", &json!({}))?;
        let entries = (0..processors).map(|processor| self.entry(processor, address));
        let entries = entries.collect();
        self.execute("cont", &json!({}))?;
        entries
    }

    fn entry(&mut self, processor: u8, address: u64) -> Result<u64> {
        let registers = self.human(processor, "info registers")?;
        let root = after(&registers, "CR3=").context("no CR3 among the registers")?;
        walk(root, address, |place| {
            let text = self.human(processor, &format!("xp /1gx {place:#x}"))?;
            after(&text, ": 0x").with_context(|| format!("no memory at {place:#x}: {text}"))
        })
    }

    /// A command that people would type; what it prints.
    fn human(&mut self, processor: u8, line: &str) -> Result<String> {
        let arguments = json!({ "command-line": line, "cpu-index": processor });
        let answer = self.execute("human-monitor-command", &arguments)?;
        let text = answer.as_str().context("the monitor answers no text")?;
        Ok(text.to_owned())
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        if !self.is_greeted {
            self.is_greeted = true;
            self.receive()?;
            self.execute("qmp_capabilities", &json!({}))?;
        }
        let command = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{command}")?;
        loop {
            let mut message = self.receive()?;
            if let Some(error) = message.get("error") {
                bail!("QEMU's monitor refuses {command}: {error}");
            }
            // Events come in between.
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        serde_json::from_str(&line).context("QEMU's monitor says no JSON")
    }
}

/// The hexadecimal number behind `mark`.
fn after(text: &str, mark: &str) -> Option<u64> {
    let (_, rest) = text.split_once(mark)?;
    let end = rest.find(|digit: char| !digit.is_ascii_hexdigit());
    u64::from_str_radix(rest.get(..end.unwrap_or(rest.len()))?, 16).ok()
}

/// Goes down from `root` to the entry for `address`; `read` reads physical memory.
fn walk(root: u64, address: u64, mut read: impl FnMut(u64) -> Result<u64>) -> Result<u64> {
    let mut table = root & ADDRESS;
    for level in (0..LEVELS).rev() {
        let index = address >> (12 + 9 * level) & 0x1FF;
        let entry = read(table + 8 * index)?;
        if level == 0 {
            return Ok(entry);
        }
        if entry & PRESENT == 0 || entry & LARGE != 0 {
            break;
        }
        table = entry & ADDRESS;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const AT: u64 = 0x12_3456_7000;

    /// Tables at 1, 2, 3 and 4 pages that lead to an entry for [`AT`].
    fn tables() -> BTreeMap<u64, u64> {
        let place = |table: u64, level: u32| table + 8 * (AT >> (12 + 9 * level) & 0x1FF);
        [
            (place(0x1000, 3), 0x2007),
            (place(0x2000, 2), 0x8000_0000_0000_3007),
            (place(0x3000, 1), 0x4007),
            (place(0x4000, 0), 0x9_9087),
        ]
        .into()
    }

    fn found(memory: &BTreeMap<u64, u64>, address: u64) -> u64 {
        let read = |place: u64| Ok(memory.get(&place).copied().unwrap_or(0));
        walk(0x1018, address, read).unwrap()
    }

    #[test]
    fn the_entry_of_a_mapped_page_is_found() {
        let memory = tables();
        assert_eq!(found(&memory, AT), 0x9_9087);
        assert_eq!(found(&memory, AT + 0xFFF), 0x9_9087);
        for other in [
            0,
            AT + 0x1000,
            AT + (1 << 21),
            AT + (1 << 30),
            AT + (1 << 39),
        ] {
            assert_eq!(found(&memory, other), 0, "{other:#x}");
        }
    }

    #[test]
    fn a_large_page_has_no_entry_of_the_lowest_level() {
        let mut memory = tables();
        for entry in memory.values_mut().filter(|entry| **entry == 0x4007) {
            *entry |= LARGE;
        }
        assert_eq!(found(&memory, AT), 0);
    }

    #[test]
    fn numbers_are_found_in_what_the_monitor_prints() {
        let registers = "CR0=80010011 CR2=0 CR3=000000000054f000 CR4=000006b0\r\n";
        assert_eq!(after(registers, "CR3="), Some(0x54_F000));
        let memory = "0000000000001000: 0x8000000000002007\r\n";
        assert_eq!(after(memory, ": 0x"), Some(0x8000_0000_0000_2007));
        assert_eq!(after("Cannot access memory", ": 0x"), None);
    }
}
