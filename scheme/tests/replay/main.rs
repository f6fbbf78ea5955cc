//! The traces of a real Redox kernel, replayed against gemd on the stand-in's pages: the same
//! answers. See `gem_traces` for the format, and README for how to record.

mod compare;
// It also has promises for other tests.
#[allow(dead_code)]
#[path = "../../../initfs/tests/src/promises.rs"]
mod image;
mod platform;
mod player;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use compare::{Text, compare_texts};
use gem_traces::{Record, UNRECORDED, read};
use libtest_mimic::{Arguments, Failed, Trial};
use player::replay;
use syscall::schemev2::{Cqe, Opcode};

/// What records all of them; with `--test NAME`, one.
const RECORD: &str = "REDOX_KERNEL=PATH cargo xtask boot --record tests/traces/recorded";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The stand-in's pages are one a process.
    arguments.test_threads = Some(1);
    let mut trials = vec![
        Trial::test("every_promise_of_the_image_is_recorded", is_complete),
        Trial::test("texts_may_get_more_lines_and_columns_and_no_others", texts),
        Trial::test("a_changed_trace_is_noticed_where_it_is_changed", notices),
    ];
    trials.extend(recorded().into_iter().map(|path| {
        let name = promise(&path);
        Trial::test(name, move || plays(&path))
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/traces/recorded")
}

/// All files of the directory.
fn recorded() -> Vec<PathBuf> {
    let entries = fs::read_dir(directory()).expect("the recorded traces");
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The promise whose trace this is, if it is one.
fn promise(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(".trace").unwrap_or(&name).to_owned()
}

fn is_complete() -> Result<(), Failed> {
    let promises: BTreeSet<_> = image::gem()
        .map(|promise| promise.name.to_owned())
        .collect();
    let exempt = UNRECORDED.iter().map(|(name, _)| name.to_string());
    let exempt: BTreeSet<_> = exempt.collect();
    let traces: BTreeSet<_> = recorded().iter().map(|path| promise(path)).collect();
    let expected = promises.difference(&exempt).cloned().collect();
    let faults = [
        ("has no trace", &expected - &traces),
        (
            "has a trace and is no promise that is recorded",
            &traces - &expected,
        ),
        ("is exempt and no promise of the image", &exempt - &promises),
    ];
    let faults = faults
        .iter()
        .flat_map(|(what, names)| names.iter().map(move |name| format!("{name} {what}")));
    let faults: Vec<_> = faults.collect();
    if faults.is_empty() && !traces.is_empty() {
        return Ok(());
    }
    let faults = faults.join("\n");
    Err(format!("{faults}\nrecord what is missing with: {RECORD} [--test NAME]").into())
}

fn load(path: &Path) -> Result<Vec<(usize, Record)>, Failed> {
    let text = fs::read_to_string(path)?;
    read(&text).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn plays(path: &Path) -> Result<(), Failed> {
    let records = load(path)?;
    match replay(&records) {
        Ok(0) => Err(format!("{}: there is nothing to compare", path.display()).into()),
        Ok(_) => Ok(()),
        Err(difference) => Err(format!(
            "{}:{difference}\nwhere that is meant to be, record again: {RECORD}",
            path.display()
        )
        .into()),
    }
}

/// The rule for texts, on texts.
fn texts() -> Result<(), Failed> {
    let numbers = |read: &str, from| {
        let text = b"opens:\t1\nnew:\t5\nfiles:\t4\n";
        compare_texts(Text::Numbers, text, read.as_bytes(), from).is_ok()
    };
    assert!(numbers("opens:\t1\nfiles:\t4\n", 0));
    assert!(numbers("opens:\t1\nfil", 0) && numbers("ns:\t1\nfiles:\t4\n", 3));
    assert!(numbers("", 100));
    assert!(!numbers("opens:\t2\n", 0) && !numbers("ns:\t1\nfiles:\t5\n", 3));
    assert!(!numbers("gone:\t1\n", 0));
    let objects = |read: &str| {
        let text = b"1 5 1000 wb 1 1 0 0 - 0x7000 2 0x123000 newer\n";
        compare_texts(Text::Objects, text, read.as_bytes(), 0).is_ok()
    };
    assert!(objects("1 5 1000 wb 1 1 0 0 - 0x7000\n"));
    assert!(objects("1 5 1000 wb 1 1 0 0 - 0x7000 1 0x9eb000\n"));
    assert!(!objects("1 5 1000 wb 1 1 0 0 - 0x7000 - 0x9eb000\n"));
    assert!(!objects("1 5 1001 wb 1 1 0 0 - 0x7000 1 0x9eb000\n"));
    assert!(!objects("1 5 1000 wb 1 1 0 0 - 0x8000 1 0x9eb000\n"));
    Ok(())
}

/// Every answer of a trace but those to reads, of which not all is compared, changed one by one.
fn notices() -> Result<(), Failed> {
    let mut changes = 0;
    for name in [
        "users_see_what_is_theirs",
        "the_drm_calls_do_what_linux_says",
    ] {
        let records = load(&directory().join(format!("{name}.trace")))?;
        for index in 0..records.len() {
            for (what, changed) in changed(&records, index) {
                let line = records[index].0;
                match replay(&changed) {
                    Err(difference) if what.is_late || difference.line == line => changes += 1,
                    Err(difference) => {
                        let what = what.name;
                        let found = format!("{name}:{line}: {what} is noticed in {difference}");
                        return Err(found.into());
                    }
                    Ok(_) => {
                        return Err(format!("{name}:{line}: {} is not noticed", what.name).into());
                    }
                }
            }
        }
    }
    assert!(changes > 100, "{changes}");
    Ok(())
}

/// How a trace was changed.
struct Change {
    name: &'static str,
    /// Whether it shows in another line.
    is_late: bool,
}

type Records = Vec<(usize, Record)>;

fn changed(records: &Records, index: usize) -> Vec<(Change, Records)> {
    let mut all = Vec::new();
    let mut change = |name, is_late, change: &dyn Fn(&mut Records)| {
        let mut changed = records.clone();
        change(&mut changed);
        all.push((Change { name, is_late }, changed));
    };
    match &records[index].1 {
        Record::Answered { cqe, payload } if !is_read(records, index, cqe.tag) => {
            let (cqe, payload) = (*cqe, payload.clone());
            let mut answer = |name, edit: &dyn Fn(&mut Cqe, &mut Option<Vec<u8>>)| {
                let (mut cqe, mut payload) = (cqe, payload.clone());
                edit(&mut cqe, &mut payload);
                change(name, false, &|records| {
                    let payload = payload.clone();
                    records[index].1 = Record::Answered { cqe, payload };
                });
            };
            answer("a result", &|cqe, _| {
                cqe.result = cqe.result.wrapping_add(1)
            });
            answer("an extra", &|cqe, _| cqe.extra_raw[0] ^= 2);
            answer("a payload that is longer", &|_, payload| {
                payload.get_or_insert_default().push(1);
            });
            if payload.is_some() {
                answer("a payload as it was asked with", &|_, payload| {
                    *payload = None
                });
            }
            if records[index + 1..].iter().any(is_answer) {
                change("a missing answer", true, &|records| {
                    drop(records.remove(index))
                });
            }
            change("an answer twice", true, &|records| {
                records.insert(index, records[index].clone());
            });
        }
        // One user in place of another, in the trace of what users see.
        &Record::Process {
            pid,
            who: Some((uid @ 1.., gid)),
        } => {
            change("who a process is", true, &|records| {
                let who = Some((uid + 7, gid));
                records[index].1 = Record::Process { pid, who };
            });
        }
        _ => {}
    }
    all
}

/// Whether what was last asked with this tag is a read.
fn is_read(records: &Records, index: usize, tag: u32) -> bool {
    let asked = records[..index]
        .iter()
        .rev()
        .find_map(|(_, record)| match record {
            Record::Asked { sqe, .. } if sqe.tag == tag => Some(sqe),
            _ => None,
        });
    asked.is_some_and(|sqe| sqe.opcode == Opcode::Read as u8)
}

fn is_answer((_, record): &(usize, Record)) -> bool {
    matches!(record, Record::Answered { .. })
}
