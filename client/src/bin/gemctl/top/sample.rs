//! What the server told at one moment, as numbers.

use gem_client::{Result, text};

/// Totals, and every open that may be seen.
#[derive(Debug)]
pub struct Sample {
    pub stats: text::Table,
    pub clients: Vec<Client>,
}

/// One open.
#[derive(Clone, Debug, Default)]
pub struct Client {
    pub number: u64,
    pub pid: u64,
    pub uid: u64,
    pub node: String,
    pub handles: u64,
    pub fds: u64,
    pub maps: u64,
    /// Bytes.
    pub total: u64,
    /// Bytes.
    pub shared: u64,
    /// Bytes.
    pub purgeable: u64,
    pub revoked: bool,
}

impl Sample {
    /// Asks the server.
    pub fn take() -> Result<Self> {
        let stats = text::stats()?;
        let clients = text::all_clients()?.iter().map(Client::of).collect();
        Ok(Self { stats, clients })
    }

    /// A number of the totals; 0 where the server does not know it.
    pub fn stat(&self, key: &str) -> u64 {
        number(&self.stats, key)
    }
}

impl Client {
    fn of(table: &text::Table) -> Self {
        Self {
            number: number(table, "drm-client-id"),
            pid: number(table, "gem-pid"),
            uid: number(table, "gem-uid"),
            node: table.get("gem-node").cloned().unwrap_or_default(),
            handles: number(table, "gem-handles"),
            fds: number(table, "gem-object-fds"),
            maps: number(table, "gem-mapped-objects"),
            total: number(table, "drm-total-memory"),
            shared: number(table, "drm-shared-memory"),
            purgeable: number(table, "drm-purgeable-memory"),
            revoked: number(table, "gem-revoked") != 0,
        }
    }
}

fn number(table: &text::Table, key: &str) -> u64 {
    let value = table.get(key).map(String::as_str);
    value.and_then(text::number).unwrap_or(0)
}
