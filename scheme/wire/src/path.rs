//! Paths of the scheme: what a client writes after `/scheme/gem/`, what it writes into a dup.
//!
//! Numbers in paths are plain decimal without sign or leading zeros, so that one thing has one
//! path.

/// A path below the scheme's root.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Path {
    /// The root directory itself.
    Root,
    /// The primary node.
    Card,
    /// The render node.
    Render,
    /// Totals as text.
    Stats,
    /// One line an object.
    Objects,
    /// The directory of opens.
    Clients,
    /// What one open holds.
    Client(u64),
    /// A bare number: an open, relative to the directory of opens.
    Number(u64),
    /// An object by its global name; only relative to a primary node's fd.
    Name(u32),
}

impl Path {
    /// Names in the root directory.
    pub const ENTRIES: [(&'static str, Self); 5] = [
        ("card0", Self::Card),
        ("renderD128", Self::Render),
        ("stats", Self::Stats),
        ("objects", Self::Objects),
        ("clients", Self::Clients),
    ];

    /// The path that these bytes are, or `None`: not UTF-8, unknown, or a number out of range.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = core::str::from_utf8(bytes).ok()?;
        let text = text.strip_prefix('/').unwrap_or(text);
        if text.is_empty() || text == "." {
            return Some(Self::Root);
        }
        if let Some(&(_, path)) = Self::ENTRIES.iter().find(|(name, _)| *name == text) {
            return Some(path);
        }
        let Some((directory, number)) = text.split_once('/') else {
            return decimal(text).map(Self::Number);
        };
        let number = decimal(number)?;
        match directory {
            "clients" => Some(Self::Client(number)),
            "name" => number.try_into().ok().map(Self::Name),
            _ => None,
        }
    }
}

/// What a dup of a node fd asks for: an fd on one of its objects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Export {
    /// The handle, as the client wrote it.
    pub handle: u32,
    /// Whether the object fd allows writing.
    pub write: bool,
}

impl Export {
    /// Parses `handle/<n>` or `handle/<n>/ro`.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = core::str::from_utf8(bytes).ok()?.strip_prefix("handle/")?;
        let (number, write) = match text.strip_suffix("/ro") {
            Some(number) => (number, false),
            None => (text, true),
        };
        Some(Self {
            handle: decimal(number)?.try_into().ok()?,
            write,
        })
    }
}

/// A decimal number in its one spelling.
fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    (canonical && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_parses_to_itself() {
        for (name, path) in Path::ENTRIES {
            assert_eq!(Path::parse(name.as_bytes()), Some(path));
        }
        assert_eq!(Path::parse(b""), Some(Path::Root));
        assert_eq!(Path::parse(b"/"), Some(Path::Root));
        assert_eq!(Path::parse(b"clients/12"), Some(Path::Client(12)));
        assert_eq!(Path::parse(b"12"), Some(Path::Number(12)));
        assert_eq!(Path::parse(b"name/4294967295"), Some(Path::Name(u32::MAX)));
    }

    #[test]
    fn one_thing_has_one_path() {
        for bytes in [
            &b"clients/012"[..],
            b"clients/+1",
            b"clients/-1",
            b"clients/",
            b"clients/1/",
            b"clients/18446744073709551616",
            b"name/4294967296",
            b"card0/",
            b"CARD0",
            b"../card0",
            b"card0\0",
            b"\xff\xfe",
        ] {
            assert_eq!(Path::parse(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn an_export_names_a_handle_and_what_may_be_done() {
        let export = |handle, write| Some(Export { handle, write });
        assert_eq!(Export::parse(b"handle/7"), export(7, true));
        assert_eq!(Export::parse(b"handle/7/ro"), export(7, false));
        for bytes in [
            &b"handle/"[..],
            b"handle/07",
            b"handle/4294967296",
            b"handle/1/rw",
            b"7",
        ] {
            assert_eq!(Export::parse(bytes), None);
        }
    }
}
