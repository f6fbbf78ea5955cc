//! Lines as records. What is no trace is refused, with the line where it ceases to be one.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::SplitAsciiWhitespace;

use syscall::schemev2::{Cqe, Sqe, SqeFlags};

use crate::payload::Memory;
use crate::{AGAIN, END, HEAD, Record, USER_PAGES};

/// Why a text is no trace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Error {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl core::error::Error for Error {}

/// The records of a trace, and the line of each.
///
/// # Errors
///
/// The first line that is wrong.
pub fn read(text: &str) -> Result<Vec<(usize, Record)>, Error> {
    let mut memory = Memory::default();
    let mut records = Vec::new();
    let mut asked = None;
    let mut ended = false;
    let mut last = 1;
    for (number, line) in (1..).zip(text.lines()) {
        last = number;
        let wrong = |what: &str| Error {
            line: number,
            what: what.into(),
        };
        match (number, line) {
            (1, HEAD) => {}
            (1, _) => return Err(wrong("this is no trace of this version: `gemd-trace 1`")),
            _ if ended => return Err(wrong("something behind the end")),
            (_, END) => ended = true,
            _ => {
                let record = match line {
                    AGAIN => asked
                        .clone()
                        .ok_or_else(|| wrong("nothing was asked before"))?,
                    line => record(line, &mut memory).map_err(wrong)?,
                };
                if let Record::Asked { .. } = record {
                    asked = Some(record.clone());
                }
                if records.is_empty() && !matches!(record, Record::Start(_)) {
                    return Err(wrong("no server has started"));
                }
                records.push((number, record));
            }
        }
    }
    if ended {
        Ok(records)
    } else {
        Err(Error {
            line: last,
            what: "the trace breaks off: its last line is `end`".into(),
        })
    }
}

fn record(line: &str, memory: &mut Memory) -> Result<Record, &'static str> {
    let (head, payload) = match line.split_once(" :") {
        Some((head, parts)) => (head, Some(memory.decode(parts)?)),
        None => (line, None),
    };
    let mut words = head.split_ascii_whitespace();
    let record = match words.next() {
        Some("limits") => {
            let limits = words.by_ref().map(limit);
            Record::Start(
                limits
                    .collect::<Option<_>>()
                    .ok_or("a limit is no number=value")?,
            )
        }
        Some(USER_PAGES) => Record::UserPages,
        Some("pid") => process(&mut words)?,
        Some(">") => Record::Asked {
            sqe: asked(&mut words, payload.as_deref())?,
            payload,
        },
        Some("<") => Record::Answered {
            cqe: answered(&mut words)?,
            payload,
        },
        _ => return Err("no record begins like this"),
    };
    let takes_payload = matches!(record, Record::Asked { .. } | Record::Answered { .. });
    if words.next().is_some() || head.len() < line.len() && !takes_payload {
        return Err("there is more than belongs there");
    }
    Ok(record)
}

fn limit(word: &str) -> Option<(u64, u64)> {
    let (number, value) = word.split_once('=')?;
    number.parse().ok().zip(value.parse().ok())
}

fn process(words: &mut SplitAsciiWhitespace) -> Result<Record, &'static str> {
    let pid = hex(words.next())?;
    let who = match words.next() {
        Some("gone") => None,
        uid => Some((decimal(uid)?, decimal(words.next())?)),
    };
    Ok(Record::Process { pid, who })
}

fn asked(words: &mut SplitAsciiWhitespace, payload: Option<&[u8]>) -> Result<Sqe, &'static str> {
    let tag = small(words.next())?;
    let caller = hex(words.next())?;
    let operation = words.next();
    let (opcode, flags) = match operation.and_then(|word| word.split_once('/')) {
        Some((opcode, flags)) => (Some(opcode), small(Some(flags))?),
        None => (operation, 0),
    };
    let mut sqe = Sqe {
        opcode: small(opcode)?,
        sqe_flags: SqeFlags::from_bits_retain(flags),
        tag,
        caller,
        ..Sqe::default()
    };
    for (arg, word) in sqe.args.iter_mut().zip(words) {
        *arg = hex(Some(word))?;
    }
    match payload {
        Some(bytes) if sqe.args[1] != 0 || sqe.args[2] != bytes.len() as u64 => {
            Err("the payload is not as long as the SQE says")
        }
        _ => Ok(sqe),
    }
}

fn answered(words: &mut SplitAsciiWhitespace) -> Result<Cqe, &'static str> {
    let tag = small(words.next())?;
    let word = words.next();
    let result = match word.and_then(|word| word.strip_prefix('-')) {
        Some(errno) => u64::from(decimal(Some(errno))?).wrapping_neg(),
        None => hex(word)?,
    };
    let mut cqe = Cqe {
        tag,
        result,
        ..Cqe::default()
    };
    while let Some(what) = words.next() {
        match what {
            "f" => cqe.flags = small(words.next())?,
            "x" => {
                let [first, second, third, rest] = small::<u32>(words.next())?.to_le_bytes();
                if rest != 0 {
                    return Err("a number is too large");
                }
                cqe.extra_raw = [first, second, third];
            }
            _ => return Err("there is more than belongs there"),
        }
    }
    Ok(cqe)
}

fn hex(word: Option<&str>) -> Result<u64, &'static str> {
    let word = word.ok_or("a number is missing")?;
    // `from_str_radix` would take a sign.
    let digits = word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u64::from_str_radix(word, 16).ok();
    number.filter(|_| digits).ok_or("a number is none")
}

fn small<T: TryFrom<u64>>(word: Option<&str>) -> Result<T, &'static str> {
    T::try_from(hex(word)?).map_err(|_| "a number is too large")
}

fn decimal(word: Option<&str>) -> Result<u32, &'static str> {
    let word = word.ok_or("a number is missing")?;
    word.parse().map_err(|_| "a number is none")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Writer;
    use alloc::{format, vec};

    const SQE: Sqe = Sqe {
        opcode: 28,
        sqe_flags: SqeFlags::MULTIPLE_IDS,
        _rsvd: 0,
        tag: 0xffff_ffff,
        args: [1 << 32, 0x7000, 4, 0x100, 0, u64::MAX],
        caller: 17,
    };

    fn trace(lines: &[&str]) -> String {
        [&[HEAD], lines, &[END, ""]].concat().join("\n")
    }

    #[test]
    fn records_survive() {
        let mut writer = Writer::default();
        let answers = [
            (0, [0; 3], 0),
            (0, [1, 0, 2], 1 << 40),
            (2, [0; 3], 22_u64.wrapping_neg()),
        ]
        .map(|(flags, extra_raw, result)| Cqe {
            flags,
            extra_raw,
            tag: 3,
            result,
        });
        let lines = [
            writer.start([(1, 2), (30, 400)].into_iter()),
            writer.user_pages(),
            writer.process(17, Some((0, 5))),
            writer.process(17, None),
            writer.asked(&SQE, Some(b"abcd")),
            writer.asked(&SQE, Some(b"abcd")),
            writer.asked(&SQE, Some(b"abce")),
            writer.asked(&Sqe::default(), None),
            writer.answered(&answers[0], None),
            writer.answered(&answers[1], Some(b"a text that is long")),
            writer.answered(&answers[2], Some(b"a text that is long")),
        ];
        let lines = lines.each_ref().map(String::as_str);
        assert_eq!(lines[5], AGAIN);
        let records = read(&trace(&lines)).unwrap();
        let numbers: Vec<_> = records.iter().map(|(line, _)| *line).collect();
        assert_eq!(numbers, (2..13).collect::<Vec<_>>());

        let mut args = SQE.args;
        args[1] = 0;
        let asked = Sqe { args, ..SQE };
        let payload = Some(b"a text that is long".to_vec());
        let expected = [
            Record::Start(vec![(1, 2), (30, 400)]),
            Record::UserPages,
            Record::Process {
                pid: 17,
                who: Some((0, 5)),
            },
            Record::Process { pid: 17, who: None },
            Record::Asked {
                sqe: asked,
                payload: Some(b"abcd".to_vec()),
            },
            Record::Asked {
                sqe: asked,
                payload: Some(b"abcd".to_vec()),
            },
            Record::Asked {
                sqe: asked,
                payload: Some(b"abce".to_vec()),
            },
            Record::Asked {
                sqe: Sqe::default(),
                payload: None,
            },
            Record::Answered {
                cqe: answers[0],
                payload: None,
            },
            Record::Answered {
                cqe: answers[1],
                payload: payload.clone(),
            },
            Record::Answered {
                cqe: answers[2],
                payload,
            },
        ];
        for ((_, record), expected) in records.iter().zip(&expected) {
            assert_eq!(format!("{record:?}"), format!("{expected:?}"));
        }
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        let start = "limits 1=2";
        for (text, line, what) in [
            (String::new(), 1, "breaks off"),
            ("TAP version 14\n".into(), 1, "no trace of this version"),
            (format!("{HEAD}\n{start}\n> 1"), 3, "missing"),
            (format!("{HEAD}\n{start}\n"), 2, "breaks off"),
            (trace(&[start, END]), 4, "behind the end"),
            (trace(&["> 1 2 3"]), 2, "no server"),
            (trace(&["limits 1=-1"]), 2, "limit"),
            (trace(&["limits 1"]), 2, "limit"),
            (trace(&[start, "limits 1=1 :"]), 3, "more than belongs"),
            (trace(&[start, ""]), 3, "no record"),
            (trace(&[start, "user-pages 1"]), 3, "more than belongs"),
            (trace(&[start, ">"]), 3, "nothing was asked"),
            (trace(&[start, "what"]), 3, "no record"),
            (trace(&[start, "pid 1"]), 3, "missing"),
            (trace(&[start, "pid 1 gone 2"]), 3, "more than belongs"),
            (trace(&[start, "pid 1 2 x"]), 3, "none"),
            (trace(&[start, "> 1 2 100"]), 3, "too large"),
            (trace(&[start, "> 100000000 2 3"]), 3, "too large"),
            (
                trace(&[start, "> 1 2 3 1 2 3 4 5 6 7"]),
                3,
                "more than belongs",
            ),
            (trace(&[start, "> 1 2 3 1 +2"]), 3, "none"),
            (
                trace(&[start, "> 1 2 3 1 0 2 : 00"]),
                3,
                "payload is not as long",
            ),
            (
                trace(&[start, "> 1 2 3 1 7 1 : 00"]),
                3,
                "payload is not as long",
            ),
            (trace(&[start, "> 1 2 3 1 0 1 : 0"]), 3, "digits"),
            (trace(&[start, "< 1"]), 3, "missing"),
            (trace(&[start, "< 1 -x"]), 3, "none"),
            (trace(&[start, "< 1 2 x 1000000"]), 3, "too large"),
            (trace(&[start, "< 1 2 y 1"]), 3, "more than belongs"),
        ] {
            let error = read(&text).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.what.contains(what), "{text}: {error}");
        }
    }
}
