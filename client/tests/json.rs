//! What `gemctl --json` prints is what docs/gemctl.md says, and what it has always printed.

mod daemon;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use daemon::Daemon;
use gem_client::Limit;
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../docs/gemctl.md");

/// Field → type, as the document has them.
type Schema = BTreeMap<String, String>;

/// Fields that programs use by now. To take one away, to rename it or to give it another type
/// breaks them; add new ones to the document, and here once they have been released.
const PROMISED: [(&str, &[(&str, &str)]); 4] = [
    (
        "stats",
        &[
            ("files", "number"),
            ("handles", "number"),
            ("limit-handles-per-open", "number"),
            ("limit-handles-per-uid", "number"),
            ("limit-mapped-objects-per-uid", "number"),
            ("limit-mapped-pages-per-uid", "number"),
            ("limit-memory-pages", "number"),
            ("limit-memory-pages-per-uid", "number"),
            ("limit-names-per-uid", "number"),
            ("limit-object-fds-per-open", "number"),
            ("limit-object-fds-per-uid", "number"),
            ("limit-object-pages", "number"),
            ("limit-objects-per-uid", "number"),
            ("limit-offsets-per-uid", "number"),
            ("limit-opens-per-uid", "number"),
            ("limit-waiting-per-open", "number"),
            ("limit-waiting-per-uid", "number"),
            ("mapped-pages", "number"),
            ("memory-pages", "number"),
            ("names", "number"),
            ("object-fds", "number"),
            ("objects", "number"),
            ("offsets", "number"),
            ("opens", "number"),
            ("uid", "number"),
            ("uid-handles", "number"),
            ("uid-mapped-objects", "number"),
            ("uid-mapped-pages", "number"),
            ("uid-memory-pages", "number"),
            ("uid-names", "number"),
            ("uid-object-fds", "number"),
            ("uid-objects", "number"),
            ("uid-offsets", "number"),
            ("uid-opens", "number"),
        ],
    ),
    (
        "clients",
        &[
            ("drm-active-memory", "number"),
            ("drm-client-id", "number"),
            ("drm-driver", "text"),
            ("drm-purgeable-memory", "number"),
            ("drm-resident-memory", "number"),
            ("drm-shared-memory", "number"),
            ("drm-total-memory", "number"),
            ("gem-handles", "number"),
            ("gem-mapped-objects", "number"),
            ("gem-node", "text"),
            ("gem-object-fds", "number"),
            ("gem-pid", "number"),
            ("gem-revoked", "number"),
            ("gem-uid", "number"),
            ("gem-uid-mapped-pages", "number"),
            ("gem-uid-memory-pages", "number"),
            ("gem-uid-objects", "number"),
        ],
    ),
    (
        "objects",
        &[
            ("caching", "text"),
            ("extents", "number or null"),
            ("fds", "number"),
            ("first", "text or null"),
            ("handles", "number"),
            ("holders", "number"),
            ("mapped", "number"),
            ("name", "number or null"),
            ("object", "number"),
            ("offset", "text or null"),
            ("owner", "number"),
            ("pages", "number"),
        ],
    ),
    (
        "limit",
        &[("least", "number"), ("most", "number"), ("value", "number")],
    ),
];

/// The fields in the document's section about `gemctl COMMAND --json`.
fn documented(command: &str) -> Schema {
    let title = format!("### `gemctl {command} --json`\n");
    let (_, rest) = DOCUMENT.split_once(&title).unwrap();
    let section = rest.split("\n##").next().unwrap();
    let rows = section.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let field = cells.next()?.strip_suffix('`')?;
        Some((field.to_owned(), cells.next()?.to_owned()))
    });
    let mut schema: Schema = rows.collect();
    if let Some(kind) = schema.remove("limit-NAME") {
        schema.extend(
            Limit::ALL
                .iter()
                .map(|limit| (format!("limit-{limit}"), kind.clone())),
        );
    }
    assert!(!schema.is_empty(), "no table about {command}");
    schema
}

/// Whether a value is of a type, as the document calls it.
fn is_a(value: &Value, kind: &str) -> bool {
    match (kind.strip_suffix(" or null").unwrap_or(kind), value) {
        (_, Value::Null) => kind.ends_with(" or null"),
        ("number", value) => value.is_u64(),
        ("text", value) => value.is_string(),
        _ => false,
    }
}

fn gemctl(daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemctl"));
    command.arg("--socket").arg(daemon.socket()).args(arguments);
    command
}

/// A process that keeps a picture until it is killed.
struct Put(Child);

impl Put {
    fn start(daemon: &Daemon) -> Self {
        let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scheme/assets/demo.png");
        let mut command = gemctl(daemon, &["put", "--json"]);
        let mut process = command.arg(picture).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let printed: Value = serde_json::from_str(&line).unwrap();
        for field in ["name", "width", "height"] {
            assert!(printed[field].is_u64(), "{field}: {printed}");
        }
        Self(process)
    }
}

impl Drop for Put {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The objects that a command prints, one or many.
fn printed(daemon: &Daemon, command: &str) -> Vec<Value> {
    let output = gemctl(daemon, &[command, "--json"]).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    match (command, value) {
        (_, Value::Array(values)) => values,
        ("limit", Value::Object(limits)) => limits.into_iter().map(|(_, about)| about).collect(),
        (_, value) => vec![value],
    }
}

#[test]
fn what_programs_read_is_what_the_document_says() {
    let daemon = Daemon::start(&[]);
    let _put = Put::start(&daemon);
    for (command, _) in PROMISED {
        let schema = documented(command);
        let values = printed(&daemon, command);
        assert!(!values.is_empty(), "{command}");
        for value in values {
            let fields = value.as_object().unwrap();
            for (field, value) in fields {
                let kind = schema.get(field);
                let kind = kind.unwrap_or_else(|| panic!("{command}: `{field}` is in no table"));
                assert!(
                    is_a(value, kind),
                    "{command}: `{field}` is {value}, not {kind}"
                );
            }
            for field in schema.keys() {
                assert!(
                    fields.contains_key(field),
                    "{command}: no `{field}` in {value}"
                );
            }
        }
    }
}

#[test]
fn what_programs_have_always_read_stays() {
    for (command, promised) in PROMISED {
        let schema = documented(command);
        for &(field, kind) in promised {
            let now = schema.get(field).map(String::as_str);
            assert_eq!(now, Some(kind), "{command}: `{field}`");
        }
    }
}
