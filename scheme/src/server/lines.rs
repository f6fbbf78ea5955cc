//! The lines of what people and tools read: keys, columns, units. Who may read them is not known
//! here. They are a promise to programs: keys and columns are added, not renamed or moved, and
//! each stands in docs/gemctl.md (client/tests/json.rs sees to that).

use alloc::string::String;
use core::fmt::{Display, Write};

use gem::pages::Caching;
use gem::units::PageCount;
use gem::{Account, Advice, Node, ObjectView, OpenStats, Stats};
use gem_wire::limit::Limit;

use super::rule;

/// The columns of [`object`].
pub(super) const OBJECTS: &str =
    "object pages owner caching handles holders fds mapped name offset extents first advice\n";

/// Totals, what the reader's user has of them, and limits.
pub(super) fn stats(stats: &Stats, reader: &Account, files: usize, waiting: usize) -> String {
    let mut text = String::new();
    for (key, value) in [
        ("opens", stats.opens as u64),
        ("files", files as u64),
        ("waiting", waiting as u64),
        ("objects", stats.objects as u64),
        ("handles", stats.handles),
        ("object-fds", stats.object_fds as u64),
        ("names", stats.names as u64),
        ("offsets", stats.offsets as u64),
        ("memory-pages", stats.memory.get()),
        ("mapped-pages", stats.mapped.get()),
        ("userptr-ranges", stats.user_ranges.into()),
        ("userptr-pages", stats.user_pages.get()),
        ("purgeable-pages", stats.purgeable.get()),
        ("purged-objects", stats.purges.objects as u64),
        ("purged-pages", stats.purges.pages),
        ("memory-pressure", stats.pressure as u64),
        ("uid", reader.uid.0.into()),
        ("uid-opens", reader.opens.into()),
        ("uid-objects", reader.objects.into()),
        ("uid-handles", reader.handles.into()),
        ("uid-object-fds", reader.object_fds.into()),
        ("uid-names", reader.names.into()),
        ("uid-offsets", reader.offsets.into()),
        ("uid-memory-pages", reader.memory.get()),
        ("uid-mapped-pages", reader.mapped.get()),
        ("uid-mapped-objects", reader.mapped_objects.into()),
        ("uid-userptr-ranges", reader.user_ranges.into()),
        ("uid-userptr-pages", reader.user_pages.get()),
    ] {
        line(&mut text, key, value);
    }
    for &limit in Limit::ALL {
        let value = rule::get(&stats.limits, limit);
        line(&mut text, format_args!("limit-{limit}"), value);
    }
    text
}

/// What one open is and holds: Linux's `drm-usage-stats`, and under our own prefix what that does
/// not know.
pub(super) fn client(stats: &OpenStats) -> String {
    let mut text = String::new();
    line(&mut text, "drm-driver", "gem");
    line(&mut text, "drm-client-id", stats.client);
    memory(&mut text, "total", stats.usage.total);
    memory(&mut text, "shared", stats.usage.shared);
    memory(&mut text, "resident", stats.usage.resident);
    memory(&mut text, "active", stats.usage.active);
    memory(&mut text, "purgeable", stats.usage.purgeable);
    if let Some(identity) = stats.identity {
        line(&mut text, "gem-pid", identity.pid);
        line(&mut text, "gem-uid", identity.uid);
    }
    let node = match stats.node {
        Node::Primary => "card0",
        Node::Render => "renderD128",
    };
    line(&mut text, "gem-node", node);
    line(&mut text, "gem-handles", stats.handles);
    line(&mut text, "gem-object-fds", stats.object_fds);
    line(&mut text, "gem-mapped-objects", stats.mapped_objects);
    line(&mut text, "gem-revoked", u8::from(stats.revoked));
    if let Some(account) = stats.account {
        line(&mut text, "gem-uid-objects", account.objects);
        line(&mut text, "gem-uid-memory-pages", account.memory);
        line(&mut text, "gem-uid-mapped-pages", account.mapped);
        line(&mut text, "gem-uid-purgeable-pages", stats.purgeable_of_uid);
    }
    text
}

/// One object. Where it lies in physical memory only where that may be told.
pub(super) fn object(text: &mut String, object: &ObjectView, physical: bool) {
    let caching = match object.caching {
        Caching::WriteBack => "wb",
        Caching::WriteCombining => "wc",
        Caching::Uncached => "uc",
    };
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "{} {} {} {caching} {} {} {} {}",
        object.number,
        object.pages,
        object.owner,
        object.handles,
        object.holders,
        object.fds,
        object.mapped,
    );
    column(text, object.name);
    column(text, object.offset.map(|offset| hexadecimal(offset.get())));
    column(text, physical.then_some(object.extents));
    let first = object.first.filter(|_| physical);
    column(text, first.map(|first| hexadecimal(first.start.get())));
    let advice = match (object.is_purged, object.advice) {
        (true, _) => "purged",
        (false, Advice::WillNeed) => "needed",
        (false, Advice::DontNeed) => "unneeded",
    };
    column(text, Some(advice));
    text.push('\n');
}

/// The system's memory in this state; in the unit and under the name that Linux has for it.
fn memory(text: &mut String, state: &str, pages: PageCount) {
    let kibibytes = pages.bytes() / 1024;
    line(
        text,
        format_args!("drm-{state}-memory"),
        format_args!("{kibibytes} KiB"),
    );
}

/// `key:<tab>value`, the form of Linux's fdinfo.
fn line(text: &mut String, key: impl Display, value: impl Display) {
    let _ = writeln!(text, "{key}:\t{value}");
}

/// One column more; `-` where there is nothing to say.
fn column(text: &mut String, value: Option<impl Display>) {
    let _ = match value {
        Some(value) => write!(text, " {value}"),
        None => write!(text, " -"),
    };
}

fn hexadecimal(value: u64) -> impl Display {
    core::fmt::from_fn(move |f| write!(f, "{value:#x}"))
}
