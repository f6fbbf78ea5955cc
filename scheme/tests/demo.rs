//! The demo keeps what it says, and says what it does.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use gem_client::picture::Picture;

/// Runs the demo in a directory of its own.
fn demo(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gemd"))
        .arg("demo")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn succeed(directory: &Path, arguments: &[&str]) -> String {
    let output = demo(directory, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_output_is_the_input_pixel_for_pixel() {
    let directory = tempfile::tempdir().unwrap();
    let input = Picture {
        width: 333,
        height: 77,
        rgba: (0..333 * 77 * 4u32).map(|n| (n / 7 * 13) as u8).collect(),
    };
    input.write_png(&directory.path().join("in.png")).unwrap();
    let said = succeed(directory.path(), &["in.png"]);
    assert_eq!(said.matches("pixel for pixel").count(), 3, "{said}");
    let output = directory.path().join("target/demo-out.png");
    assert!(Picture::read_png(&output).unwrap() == input);
}

#[test]
fn it_brings_a_picture_and_tells_the_whole_story() {
    let directory = tempfile::tempdir().unwrap();
    let said = succeed(directory.path(), &[]);
    for part in [
        "global name",
        "object fd",
        "render node",
        "SIGKILL",
        "exit code 0",
    ] {
        assert!(said.contains(part), "`{part}` is missing:\n{said}");
    }
    let output = directory.path().join("target/demo-out.png");
    assert!(Picture::read_png(&output).unwrap().width > 0);
}

#[test]
fn what_is_no_picture_is_told_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("bad.png"), "no picture").unwrap();
    for name in ["bad.png", "missing.png"] {
        let output = demo(directory.path(), &[name]);
        assert_eq!(output.status.code(), Some(1));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains(name), "{errors}");
        assert!(!directory.path().join("target").exists());
    }
}
