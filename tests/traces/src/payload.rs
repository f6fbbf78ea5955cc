//! Bytes as short text: texts as they are, runs counted, and what was there before by number.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// Text parts from this length on can be referred to.
pub const REMEMBERED: usize = 8;
/// Shorter text is written as bytes.
const TEXT: usize = 4;
/// Shorter runs are written as bytes.
const RUN: usize = 5;
/// Longer payloads are not believed.
const MOST: usize = 64 << 20;

/// The text parts of a trace so far. Writer and reader remember the same.
#[derive(Debug, Default)]
pub struct Memory {
    texts: Vec<Vec<u8>>,
}

impl Memory {
    /// Adds the parts of `bytes` to `line`, a space before each.
    pub fn encode(&mut self, mut bytes: &[u8], line: &mut String) {
        while let Some(&first) = bytes.first() {
            let (part, rest) = match (run(bytes), text(bytes)) {
                (length, _) if length >= RUN => {
                    // Writing to a string cannot fail, here and below.
                    let _ = write!(line, " {first:02x}*{length:x}");
                    bytes = &bytes[length..];
                    continue;
                }
                (_, length) if length >= TEXT => bytes.split_at(length),
                _ => {
                    let (part, rest) = bytes.split_at(plain(bytes));
                    line.push(' ');
                    for byte in part {
                        let _ = write!(line, "{byte:02x}");
                    }
                    bytes = rest;
                    continue;
                }
            };
            match self.texts.iter().position(|known| known == part) {
                Some(number) => {
                    let known = self.following(number, rest);
                    let _ = write!(line, " @{number:x}");
                    if known > 1 {
                        let _ = write!(line, "-{:x}", number + known - 1);
                    }
                    let length: usize = self.texts[number..][..known].iter().map(Vec::len).sum();
                    bytes = &bytes[length..];
                }
                None => {
                    self.remember(part);
                    quote(part, line);
                    bytes = rest;
                }
            }
        }
    }

    /// How many of the known parts from this one on are what comes next, when `rest` follows it.
    fn following(&self, number: usize, mut rest: &[u8]) -> usize {
        let next = self.texts[number + 1..].iter();
        1 + next
            .take_while(|known| match rest.strip_prefix(known.as_slice()) {
                Some(behind) => {
                    rest = behind;
                    true
                }
                None => false,
            })
            .count()
    }

    fn remember(&mut self, text: &[u8]) {
        if text.len() >= REMEMBERED {
            self.texts.push(text.to_vec());
        }
    }

    /// The bytes of these parts.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
    pub fn decode(&mut self, parts: &str) -> Result<Vec<u8>, &'static str> {
        let mut bytes = Vec::new();
        let mut rest = parts.trim_start_matches(' ');
        while !rest.is_empty() {
            let end = match rest.strip_prefix('"') {
                Some(quoted) => 1 + end_of_text(quoted).ok_or("a text does not end")?,
                None => rest.find(' ').unwrap_or(rest.len()),
            };
            let (part, behind) = rest.split_at(end);
            self.part(part, &mut bytes)?;
            if bytes.len() > MOST {
                return Err("a payload is too long");
            }
            rest = behind.trim_start_matches(' ');
        }
        Ok(bytes)
    }

    fn part(&mut self, part: &str, bytes: &mut Vec<u8>) -> Result<(), &'static str> {
        if let Some(quoted) = part.strip_prefix('"') {
            let start = bytes.len();
            unquote(quoted.strip_suffix('"').unwrap_or(quoted), bytes)?;
            self.remember(&bytes[start..]);
        } else if let Some(numbers) = part.strip_prefix('@') {
            let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
            let bad = "a reference to text that is not there";
            let (first, last) = number(first).zip(number(last)).ok_or(bad)?;
            let after = last.checked_add(1).ok_or(bad)?;
            let texts = self.texts.get(first..after).ok_or(bad)?;
            for text in texts {
                bytes.extend_from_slice(text);
                if bytes.len() > MOST {
                    return Err("a payload is too long");
                }
            }
        } else if let Some((byte, count)) = part.split_once('*') {
            let bad = "a run that is no byte and count";
            let byte = number(byte).and_then(|byte| u8::try_from(byte).ok());
            let (byte, count) = byte.zip(number(count)).ok_or(bad)?;
            let length = bytes.len().checked_add(count);
            let length = length.filter(|length| *length <= MOST);
            bytes.resize(length.ok_or("a payload is too long")?, byte);
        } else {
            let bad = "bytes that are no pairs of hexadecimal digits";
            for pair in part.as_bytes().chunks(2) {
                let pair = core::str::from_utf8(pair).map_err(|_| bad)?;
                let byte = number(pair).filter(|_| pair.len() == 2).ok_or(bad)?;
                bytes.push(byte as u8);
            }
        }
        Ok(())
    }
}

fn number(digits: &str) -> Option<usize> {
    // `from_str_radix` would take a sign.
    let digits = digits.strip_prefix('+').map_or(Some(digits), |_| None)?;
    usize::from_str_radix(digits, 16).ok()
}

/// How many bytes from the start are the same.
fn run(bytes: &[u8]) -> usize {
    let first = bytes.first();
    bytes.iter().take_while(|byte| Some(*byte) == first).count()
}

/// How many bytes from the start are text, up to the end of a line.
fn text(bytes: &[u8]) -> usize {
    let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    let length = bytes.iter().take_while(|byte| is_text(byte)).count();
    length + usize::from(bytes.get(length) == Some(&b'\n'))
}

/// How many bytes from the start are neither text nor a run; at least one.
fn plain(bytes: &[u8]) -> usize {
    (1..bytes.len())
        .find(|&at| run(&bytes[at..]) >= RUN || text(&bytes[at..]) >= TEXT)
        .unwrap_or(bytes.len())
}

fn quote(text: &[u8], line: &mut String) {
    line.push_str(" \"");
    for &byte in text {
        match byte {
            b'\n' => line.push_str("\\n"),
            b'\t' => line.push_str("\\t"),
            b'"' => line.push_str("\\\""),
            b'\\' => line.push_str("\\\\"),
            _ => line.push(byte.into()),
        }
    }
    line.push('"');
}

/// Behind the quote that ends this text.
fn end_of_text(quoted: &str) -> Option<usize> {
    let mut escaped = false;
    let end = quoted.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some(end + 1)
}

fn unquote(quoted: &str, bytes: &mut Vec<u8>) -> Result<(), &'static str> {
    let mut rest = quoted.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(byte @ (b'"' | b'\\')) => byte,
                _ => return Err("an unknown escape in a text"),
            },
            byte => byte,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn encode(memory: &mut Memory, bytes: &[u8]) -> String {
        let mut line = String::new();
        memory.encode(bytes, &mut line);
        line
    }

    #[test]
    fn bytes_survive() {
        let mut writer = Memory::default();
        let mut reader = Memory::default();
        let mut zeros = vec![0; 4096];
        zeros[..12].copy_from_slice(b"opens:\t1\nab\n");
        for bytes in [
            &b""[..],
            b"x",
            b"handle/1",
            b"handle/1handle/1",
            b"say \"hello\\\"\n\tto all\n",
            b"\x00\x01\x02\x03\x04\x05\x06\xff\xff\xff\xff\xff\xff\xff\xff\x07",
            b"text and \xfe\xfe bytes\x00\x00",
            "not ASCII: ä".as_bytes(),
            &zeros,
            b"one line here\ntwo lines here\nthree lines\n",
            b"two lines here\nthree lines\nsomething else",
        ] {
            let line = encode(&mut writer, bytes);
            assert_eq!(reader.decode(&line).unwrap(), bytes, "{line}");
        }
    }

    #[test]
    fn what_was_there_is_referred_to() {
        let mut memory = Memory::default();
        let lines = b"one line here\ntwo lines here\nno\n";
        assert_eq!(
            encode(&mut memory, lines),
            " \"one line here\\n\" \"two lines here\\n\" 6e6f0a"
        );
        assert_eq!(encode(&mut memory, lines), " @0-1 6e6f0a");
        assert_eq!(encode(&mut memory, b"two lines here\n"), " @1");
        assert_eq!(encode(&mut memory, &[0; 1 << 20]), " 00*100000");
    }

    #[test]
    fn nonsense_is_refused() {
        for (nonsense, what) in [
            ("abc", "bytes"),
            ("zz", "bytes"),
            ("+1", "bytes"),
            ("äöü", "bytes"),
            ("00*", "run"),
            ("100*2", "run"),
            ("00*ffffffffffffffff", "too long"),
            ("00*4000000 00*1", "too long"),
            ("@0", "reference"),
            ("@-", "reference"),
            ("@ffffffffffffffff", "reference"),
            ("\"abc", "does not end"),
            ("\"abc\\\"", "does not end"),
            ("\"\\x\"", "escape"),
        ] {
            let error = Memory::default().decode(nonsense).unwrap_err();
            assert!(error.contains(what), "{nonsense}: {error}");
        }
    }
}
