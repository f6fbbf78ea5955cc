//! What the server tells people: `stats`, `objects`, `clients`.
//!
//! Texts are read anew each time and taken apart here; keys, columns and units are those of the
//! project's docs/gemctl.md. Unknown ones are passed on.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use libredox::Fd;
use libredox::flag::{O_CLOEXEC, O_RDONLY};
use syscall::dirent::DirentIter;
use syscall::error::{EINVAL, ENOENT};

use crate::error::{Error, Result};

/// `key: value` lines, in order of keys.
pub type Table = BTreeMap<String, String>;

/// Totals and limits of the server.
///
/// # Errors
///
/// ENODEV where no gemd runs.
pub fn stats() -> Result<Table> {
    Ok(table(&read("/scheme/gem/stats")?))
}

/// One number out of [`stats`].
///
/// # Errors
///
/// As [`stats`], and ENOENT where there is no such number.
pub fn stat(key: &str) -> Result<u64> {
    let value = stats()?.remove(key).and_then(|value| value.parse().ok());
    value.ok_or(Error::new("find a number in the server's stats", ENOENT))
}

/// One open's text, by its number.
///
/// # Errors
///
/// ENOENT where there is no such open, or it is not yours to know.
pub fn client(number: u64) -> Result<Table> {
    Ok(table(&read(&alloc::format!(
        "/scheme/gem/clients/{number}"
    ))?))
}

/// The numbers of all opens that you may know of.
///
/// # Errors
///
/// ENODEV where no gemd runs.
pub fn clients() -> Result<Vec<u64>> {
    let action = "list the clients";
    let fd = Fd::open("/scheme/gem/clients", O_RDONLY | O_CLOEXEC, 0).map_err(Error::of(action))?;
    let mut numbers = Vec::new();
    let mut buffer = [0; 2048];
    let mut after = 0;
    loop {
        let length = libredox::call::getdents(fd.raw(), &mut buffer, after);
        let length = length.map_err(Error::of(action))?;
        if length == 0 {
            return Ok(numbers);
        }
        for entry in DirentIter::new(buffer.get(..length).unwrap_or_default()) {
            let (header, name) = entry.map_err(|_| Error::new(action, EINVAL))?;
            after = header.next_opaque_id;
            // Entries are padded with zeroes.
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            let number = core::str::from_utf8(name)
                .ok()
                .and_then(|name| name.parse::<u64>().ok());
            numbers.extend(number);
        }
    }
}

/// What there is to know of each of them. One that closes meanwhile is not among them.
///
/// # Errors
///
/// As [`clients`].
pub fn all_clients() -> Result<Vec<Table>> {
    let mut all = Vec::new();
    for number in clients()? {
        match client(number) {
            Err(error) if error.errno() == ENOENT => {}
            table => all.push(table?),
        }
    }
    Ok(all)
}

/// One object of the table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Object {
    /// Column name → value, as the server wrote it; `-` where there is none.
    pub columns: Vec<(String, String)>,
}

impl Object {
    /// A column's value.
    pub fn get(&self, column: &str) -> Option<&str> {
        let found = self.columns.iter().find(|(name, _)| name == column);
        found.map(|(_, value)| value.as_str())
    }
}

/// All objects that you may know of.
///
/// # Errors
///
/// ENODEV where no gemd runs.
pub fn objects() -> Result<Vec<Object>> {
    let text = read("/scheme/gem/objects")?;
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let object = |line: &str| Object {
        columns: names
            .iter()
            .zip(line.split(' '))
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
    };
    Ok(lines.map(object).collect())
}

/// A whole text file of the scheme.
///
/// # Errors
///
/// ENODEV where no gemd runs, ENOENT.
pub fn read(path: &str) -> Result<String> {
    let action = "read what the server tells";
    let fd = Fd::open(path, O_RDONLY | O_CLOEXEC, 0).map_err(Error::of(action))?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4000];
    loop {
        let length = fd.read(&mut buffer).map_err(Error::of(action))?;
        if length == 0 {
            break;
        }
        bytes.extend_from_slice(buffer.get(..length).unwrap_or_default());
    }
    String::from_utf8(bytes).map_err(|_| Error::new(action, EINVAL))
}

/// The number in a value of a [`Table`], or in a column of an [`Object`]; in bytes where it has a
/// unit (as Linux writes memory: `8 KiB`).
pub fn number(value: &str) -> Option<u64> {
    let units = [(" KiB", 1 << 10), (" MiB", 1 << 20)];
    let (digits, unit) = units
        .into_iter()
        .find_map(|(name, bytes)| Some((value.strip_suffix(name)?, bytes)))
        .unwrap_or((value, 1));
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn table(text: &str) -> Table {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_string(), value.trim().to_string()))
        .collect()
}
