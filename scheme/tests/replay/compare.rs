//! Whether an answer is the recorded one, but for what differs between machines by nature
//! (`docs/decisions.md`, "What a replay does not compare").

use std::collections::{BTreeMap, BTreeSet};

use gem::units::PAGE_SIZE;
use syscall::flag::MapFlags;
use syscall::schemev2::{Cqe, Opcode, Sqe};

/// What the kernel writes in place of an offset where a file has none.
const NO_POSITION: u64 = u64::MAX;

/// Columns of `objects` that tell of physical memory.
const EXTENTS: usize = 10;
const FIRST: usize = 11;

/// A text that the server writes.
#[derive(Clone, Copy)]
pub enum Text {
    /// A line a number: `stats`, `clients/…`.
    Numbers,
    /// A line an object, with columns.
    Objects,
}

/// What was asked.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    pub sqe: &'a Sqe,
    pub payload: &'a [u8],
}

/// What has to be known of a server's past to compare its answers.
#[derive(Default)]
pub struct Memory {
    /// Files that are objects.
    objects: BTreeSet<u64>,
    /// Files that are texts.
    texts: BTreeMap<u64, Text>,
    /// Whether a client can have written where a server does not see it.
    written_to: bool,
    /// Pages of the stand-in's windows, and where each is in the trace.
    windows: BTreeMap<u64, u64>,
}

impl Memory {
    /// Compares a replay's answer and payload with the recorded ones.
    ///
    /// # Errors
    ///
    /// What the answer is, and what it was.
    pub fn compare(
        &mut self,
        asked: Question,
        is: (&Cqe, &[u8]),
        was: (&Cqe, &[u8]),
    ) -> Result<(), String> {
        let (is, bytes) = is;
        let (was, recorded) = was;
        let opcode = Opcode::try_from_raw(asked.sqe.opcode);
        let both_succeed = failure(is).is_none() && failure(was).is_none();
        let same_result = is.result == was.result;
        let same_window = both_succeed
            && matches!(opcode, Some(Opcode::MmapPrep))
            && self.is_same_window(asked.sqe, is.result, was.result);
        let bytes = match self.read_of_text(asked.sqe) {
            Some(kind) if both_succeed => {
                let (text, recorded) = (head(bytes, is.result), head(recorded, was.result));
                return compare_texts(kind, text, recorded, asked.sqe.args[3]);
            }
            // More was lent than then.
            Some(_) => head(bytes, recorded.len() as u64),
            None => bytes,
        };
        let same_extra = (is.flags, is.extra_raw) == (was.flags, was.extra_raw);
        if !(same_result || same_window) || !same_extra {
            return Err(format!("{}, and was with {}", told(is), told(was)));
        }
        let fd = asked.sqe.args[0];
        let is_written_to = self.written_to
            && matches!(opcode, Some(Opcode::Read))
            && self.objects.contains(&fd)
            && bytes.len() == recorded.len();
        if bytes != recorded && !is_written_to {
            let (is, was) = (short(bytes), short(recorded));
            return Err(format!("the payload{is}, and was with{was}"));
        }
        if both_succeed {
            self.learn(asked, opcode, is);
        }
        Ok(())
    }

    /// What text this reads. A replay reads all of it, from byte 0.
    pub fn read_of_text(&self, sqe: &Sqe) -> Option<Text> {
        let is_read = sqe.opcode == Opcode::Read as u8 && sqe.args[3] != NO_POSITION;
        self.texts.get(&sqe.args[0]).copied().filter(|_| is_read)
    }

    /// Whether the windows can be the same pages of the same object: each is whole pages, and a
    /// page that was in one place of the trace is never in another. The stand-in uses no address
    /// twice.
    fn is_same_window(&mut self, map: &Sqe, is: u64, was: u64) -> bool {
        let pages = map.args[1].div_ceil(PAGE_SIZE);
        is.is_multiple_of(PAGE_SIZE)
            && was.is_multiple_of(PAGE_SIZE)
            && (0..pages).all(|page| {
                let (is, was) = (is / PAGE_SIZE + page, was / PAGE_SIZE + page);
                *self.windows.entry(is).or_insert(was) == was
            })
    }

    fn learn(&mut self, asked: Question, opcode: Option<Opcode>, answer: &Cqe) {
        let writes = MapFlags::PROT_WRITE.bits() as u64;
        match opcode {
            Some(Opcode::Dup) => {
                self.objects.insert(answer.result);
            }
            Some(Opcode::OpenAt) => match asked.payload {
                [b'n', b'a', b'm', b'e', b'/', ..] => {
                    self.objects.insert(answer.result);
                }
                b"objects" => {
                    self.texts.insert(answer.result, Text::Objects);
                }
                b"stats" | [b'c', b'l', b'i', b'e', b'n', b't', b's', b'/', ..] => {
                    self.texts.insert(answer.result, Text::Numbers);
                }
                _ => {}
            },
            Some(Opcode::MmapPrep) if asked.sqe.args[2] & writes != 0 => self.written_to = true,
            _ => {}
        }
    }
}

/// Whether every whole line that was read from byte `from` on is a line of the text.
pub fn compare_texts(kind: Text, text: &[u8], read: &[u8], from: u64) -> Result<(), String> {
    let (text, read) = (String::from_utf8_lossy(text), String::from_utf8_lossy(read));
    // What is behind the last end of a line is not whole, and what is in front of the first one
    // only where the text begins.
    let whole = read.rsplit_once('\n').map_or("", |(lines, _)| lines);
    for line in whole.lines().skip(usize::from(from != 0)) {
        let same = |other: &str| match kind {
            Text::Numbers => other == line,
            Text::Objects => is_same_row(other, line),
        };
        if !text.lines().any(same) {
            return Err(format!("the text {text:?}, and was with the line {line:?}"));
        }
    }
    Ok(())
}

/// Whether a line of `objects` tells the same: columns that are newer than the trace are behind the
/// others, and where an object lies in memory is the machine's.
fn is_same_row(is: &str, was: &str) -> bool {
    let mut columns = is.split(' ');
    was.split(' ').enumerate().all(|(number, was)| {
        let is = columns.next();
        match number {
            EXTENTS | FIRST => is.is_some_and(|is| (is == "-") == (was == "-")),
            _ => is == Some(was),
        }
    })
}

fn head(bytes: &[u8], length: u64) -> &[u8] {
    let length = bytes.len().min(length as usize);
    &bytes[..length]
}

/// The errno, where the answer is one.
fn failure(cqe: &Cqe) -> Option<u64> {
    Some(cqe.result.wrapping_neg()).filter(|errno| (1..4096).contains(errno))
}

/// Bytes as they would stand in a trace.
fn short(bytes: &[u8]) -> String {
    let mut line = String::new();
    gem_traces::payload::Memory::default().encode(bytes, &mut line);
    line
}

fn told(cqe: &Cqe) -> String {
    let extra = match (cqe.flags, cqe.extra_raw) {
        (0, [0, 0, 0]) => String::new(),
        (flags, extra) => format!(" (flags {flags:x}, extra {extra:x?})"),
    };
    match failure(cqe) {
        Some(errno) => format!("errno {errno}{extra}"),
        None => format!("{:#x}{extra}", cqe.result),
    }
}
