//! `events`: what the server tells.

use anyhow::Result;
use gem_client::{Card, Event, Limit, Node, Pressure};
use serde_json::{Value, json};
use syscall::error::EINTR;

use crate::out;

/// Prints events as they come: so many, or until the process is ended.
pub fn run(count: Option<u64>, json: bool) -> Result<()> {
    let mut events = Card::open(Node::Render)?.events();
    let mut left = count;
    while left != Some(0) {
        let event = match events.wait() {
            Err(error) if error.errno() == EINTR => continue,
            event => event?,
        };
        if json {
            out::line(value(event))?;
        } else {
            out::line(words(event))?;
        }
        left = left.map(|left| left - 1);
    }
    Ok(())
}

fn words(event: Event) -> String {
    match event {
        Event::Lost { count: 1 } => "one event was lost".into(),
        Event::Lost { count } => format!("{count} events were lost"),
        Event::Revoked { handle, pid: 0 } => {
            format!("the server took the pages behind handle {handle} away")
        }
        Event::Revoked { handle, pid } => {
            format!("process {pid} took the pages behind handle {handle} away")
        }
        Event::Evicted { handle } => format!("handle {handle} has lost its GPU address"),
        Event::Pressure { level, free_pages } => {
            let level = match level {
                Pressure::Eased => "there is enough memory again",
                Pressure::Low => "memory runs short",
                Pressure::Critical => "memory is used up",
            };
            format!("{level}: {free_pages} pages are free")
        }
        Event::LimitChanged { limit, value } => format!("{}: {value}", name(limit)),
    }
}

fn value(event: Event) -> Value {
    match event {
        Event::Lost { count } => json!({ "event": "lost", "count": count }),
        Event::Revoked { handle, pid } => {
            let pid = (pid != 0).then_some(pid);
            json!({ "event": "revoked", "handle": handle, "pid": pid })
        }
        Event::Evicted { handle } => json!({ "event": "evicted", "handle": handle }),
        Event::Pressure { level, free_pages } => {
            let level = match level {
                Pressure::Eased => "eased",
                Pressure::Low => "low",
                Pressure::Critical => "critical",
            };
            json!({ "event": "pressure", "level": level, "free-pages": free_pages })
        }
        Event::LimitChanged { limit, value } => {
            json!({ "event": "limit-changed", "limit": name(limit), "value": value })
        }
    }
}

/// A limit's name; the number of one that this program does not know.
fn name(number: u32) -> String {
    match Limit::from_number(number.into()) {
        Some(limit) => limit.to_string(),
        None => format!("limit {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_told_in_words_and_as_json() {
        let low = Pressure::Low;
        for (event, words_expected, json_expected) in [
            (
                Event::Lost { count: 1 },
                "one event was lost",
                r#"{"count":1,"event":"lost"}"#,
            ),
            (
                Event::Lost { count: 3 },
                "3 events were lost",
                r#"{"count":3,"event":"lost"}"#,
            ),
            (
                Event::Revoked { handle: 4, pid: 0 },
                "the server took the pages behind handle 4 away",
                r#"{"event":"revoked","handle":4,"pid":null}"#,
            ),
            (
                Event::Revoked { handle: 4, pid: 9 },
                "process 9 took the pages behind handle 4 away",
                r#"{"event":"revoked","handle":4,"pid":9}"#,
            ),
            (
                Event::Evicted { handle: 4 },
                "handle 4 has lost its GPU address",
                r#"{"event":"evicted","handle":4}"#,
            ),
            (
                Event::Pressure {
                    level: low,
                    free_pages: 7,
                },
                "memory runs short: 7 pages are free",
                r#"{"event":"pressure","free-pages":7,"level":"low"}"#,
            ),
            (
                Event::LimitChanged { limit: 3, value: 5 },
                "object-pages: 5",
                r#"{"event":"limit-changed","limit":"object-pages","value":5}"#,
            ),
            (
                Event::LimitChanged {
                    limit: 999,
                    value: 5,
                },
                "limit 999: 5",
                r#"{"event":"limit-changed","limit":"limit 999","value":5}"#,
            ),
        ] {
            assert_eq!(words(event), words_expected);
            assert_eq!(value(event).to_string(), json_expected);
        }
    }
}
