//! `objects`, `clients`, `stats`: what the server tells, as a table or as JSON.

use anyhow::Result;
use gem_client::text;
use serde_json::{Map, Value};

use crate::out;

/// Lists the buffers.
pub fn objects(json: bool) -> Result<()> {
    let objects = text::objects()?;
    if json {
        let object = |object: &text::Object| values(object.columns.iter().map(|(k, v)| (k, v)));
        let list = objects.iter().map(object).collect();
        return out::line(Value::Array(list));
    }
    let names = [
        "object", "pages", "owner", "caching", "handles", "fds", "mapped", "name", "offset",
        "advice",
    ];
    let rows = objects.iter().map(|object| {
        let column = |name: &&str| object.get(name).unwrap_or("-").to_string();
        names.iter().map(column).collect()
    });
    print(&names, rows.collect())
}

/// Lists the open nodes.
pub fn clients(json: bool) -> Result<()> {
    let clients = text::all_clients()?;
    if json {
        let list = clients.iter().map(|client| values(client.iter())).collect();
        return out::line(Value::Array(list));
    }
    let columns = [
        ("client", "drm-client-id"),
        ("pid", "gem-pid"),
        ("uid", "gem-uid"),
        ("node", "gem-node"),
        ("handles", "gem-handles"),
        ("fds", "gem-object-fds"),
        ("mapped", "gem-mapped-objects"),
        ("total", "drm-total-memory"),
        ("shared", "drm-shared-memory"),
    ];
    let rows = clients.iter().map(|client| {
        let column = |(_, key): &(&str, &str)| client.get(*key).map_or("-", |v| v).to_string();
        columns.iter().map(column).collect()
    });
    print(&columns.map(|(title, _)| title), rows.collect())
}

/// Prints totals and limits.
pub fn stats(json: bool) -> Result<()> {
    let stats = text::stats()?;
    if json {
        return out::line(values(stats.iter()));
    }
    let rows = stats
        .iter()
        .map(|(key, value)| vec![key.clone(), value.clone()]);
    print(&["what", "how many"], rows.collect())
}

/// Numbers as numbers (memory in bytes), `-` as null, the rest as text.
fn values<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> Value {
    let value = |text: &str| match text::number(text) {
        Some(number) => Value::from(number),
        None if text == "-" => Value::Null,
        None => Value::from(text),
    };
    let map: Map<_, _> = pairs
        .map(|(key, text)| (key.clone(), value(text)))
        .collect();
    Value::Object(map)
}

/// Columns as wide as they have to be.
pub fn print(titles: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(String::len);
        let title = titles.get(column).map_or(0, |title| title.len());
        cells.max().unwrap_or(0).max(title)
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    let mut text = line(&mut titles.iter().copied());
    for row in &rows {
        text.push('\n');
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    out::line(text)
}
