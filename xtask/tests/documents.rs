//! The walks through the code (docs/architecture.md) lead past what is there.

use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(repository().join(path));
    text.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_walks_lead_past_files_and_functions_that_are_there() {
    let mut steps = 0;
    for line in read("docs/architecture.md").lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", file, function, _, ""] = cells.as_slice() else {
            continue;
        };
        let (&[file], &[function]) = (quoted(file).as_slice(), quoted(function).as_slice()) else {
            continue;
        };
        let source = read(file);
        let is_there = source.contains(&format!("fn {function}("))
            || source.contains(&format!("fn {function}<"));
        assert!(is_there, "no `{function}` in {file}");
        steps += 1;
    }
    assert!(steps > 50, "the walks are not in tables any more: {steps}");
}

#[test]
fn files_that_the_walks_name_in_passing_are_there() {
    let document = read("docs/architecture.md");
    // Those of other projects are named without a directory of ours.
    let ours = [
        "client/",
        "docs/",
        "hosted/",
        "initfs/",
        "scheme/src/",
        "scheme/wire/",
        "src/",
    ];
    let kernels = ["src/scheme/user.rs"];
    for path in quoted(&document) {
        let is_ours = ours.iter().any(|start| path.starts_with(start));
        if is_ours && !kernels.contains(&path) {
            assert!(repository().join(path).exists(), "no {path}");
        }
    }
}
