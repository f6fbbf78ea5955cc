//! `limit` and `revoke`: what root does while clients are there.

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap::error::ErrorKind;
use gem_client::{Card, Limit, Node, PAGE_SIZE, Unit};
use serde_json::{Map, Value, json};
use syscall::error::ENOENT;

use crate::args::Args;
use crate::{out, tables, units};

/// Prints one limit, or all.
pub fn show(limit: Option<Limit>, json: bool) -> Result<()> {
    let card = Card::open(Node::Render)?;
    let limits = match &limit {
        Some(limit) => core::slice::from_ref(limit),
        None => Limit::ALL,
    };
    let mut values = Vec::new();
    for &limit in limits {
        values.push((limit, card.limit(limit)?));
    }
    if json {
        let entry = |&(limit, value): &(Limit, u64)| {
            let about = json!({ "value": value, "least": 1, "most": limit.most() });
            (limit.name().to_owned(), about)
        };
        let map: Map<String, Value> = values.iter().map(entry).collect();
        return out::line(Value::Object(map));
    }
    let row = |&(limit, value): &(Limit, u64)| {
        vec![
            limit.to_string(),
            value.to_string(),
            size(limit, value).unwrap_or_default(),
            format!("1 to {}", limit.most()),
        ]
    };
    let titles = ["limit", "value", "that is", "can be"];
    tables::print(&titles, values.iter().map(row).collect())
}

/// Sets a limit.
pub fn set(limit: Limit, value: &str, json: bool) -> Result<()> {
    let Some(value) = parse(limit, value) else {
        refuse(limit, value);
    };
    Card::open(Node::Render)?.set_limit(limit, value)?;
    if json {
        out::line(json!({ limit.name(): value }))
    } else {
        out::line(format_args!("{limit}: {value}"))
    }
}

/// Takes everything from an open.
pub fn revoke(client: u64, json: bool) -> Result<()> {
    let card = Card::open(Node::Render)?;
    match card.revoke(client) {
        Err(error) if error.errno() == ENOENT => {
            Err(error).context("no such open (numbers: gemctl clients)")?
        }
        result => result?,
    }
    if json {
        out::line(json!({ "revoked": client }))
    } else {
        out::line(format_args!("revoked {client}"))
    }
}

/// Says what a limit can be, and ends as for any wrong argument.
fn refuse(limit: Limit, value: &str) -> ! {
    let units = match limit.unit() {
        Unit::Pages => " pages, or 1KiB and up with KiB, MiB or GiB",
        Unit::Count => "",
    };
    let message = format!(
        "{limit} cannot be {value:?}: it is 1 to {}{units}",
        limit.most()
    );
    Args::command()
        .error(ErrorKind::ValueValidation, message)
        .exit()
}

/// A value that the limit can have: a number, or bytes where pages are counted.
fn parse(limit: Limit, value: &str) -> Option<u64> {
    let (digits, bytes) = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]
        .into_iter()
        .find_map(|(unit, bytes)| Some((value.strip_suffix(unit)?, Some(bytes))))
        .unwrap_or((value, None));
    let number: u64 = digits.trim_end().parse().ok()?;
    let value = match bytes {
        None => number,
        Some(_) if limit.unit() == Unit::Count => return None,
        Some(bytes) => number.checked_mul(bytes)?.div_ceil(PAGE_SIZE as u64),
    };
    limit.range().contains(&value).then_some(value)
}

/// Pages as a size.
fn size(limit: Limit, pages: u64) -> Option<String> {
    let bytes = pages.saturating_mul(PAGE_SIZE as u64);
    (limit.unit() == Unit::Pages).then(|| units::size(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_numbers_or_sizes_in_range() {
        for (limit, value, expected) in [
            (Limit::Memory, "7", Some(7)),
            (Limit::Memory, "64MiB", Some(16384)),
            (Limit::Memory, "1 GiB", Some(1 << 18)),
            (Limit::Memory, "5KiB", Some(2)),
            (Limit::Memory, "0MiB", None),
            (Limit::Memory, "18446744073709551615GiB", None),
            (Limit::HandlesPerOpen, "64MiB", None),
            (Limit::HandlesPerOpen, "16777216", Some(1 << 24)),
            (Limit::HandlesPerOpen, "16777217", None),
            (Limit::HandlesPerOpen, "-1", None),
            (Limit::HandlesPerOpen, "many", None),
            (Limit::HandlesPerOpen, "", None),
        ] {
            assert_eq!(parse(limit, value), expected, "{limit} {value}");
        }
    }
}
