//! `put` and `get`: pictures in and out of buffers.

use std::path::Path;
use std::sync::mpsc;

use anyhow::{Context, Result};
use gem_client::picture::Picture;
use gem_client::{Card, Name, Node};
use serde_json::json;
use syscall::error::ENOENT;

use crate::out;

const NO_BUFFER: &str = "no such buffer (names: gemctl objects; a name goes when the last program \
                         that holds its buffer ends)";

const NO_PICTURE: &str = "that buffer holds no picture that gemctl put there";

/// Puts a PNG into a buffer and keeps it until Ctrl-C.
pub fn put(path: &Path, json: bool) -> Result<()> {
    let picture = Picture::read_png(path)?;
    // Before there is anything to keep: a Ctrl-C in between must not be lost.
    let (stop, stopped) = mpsc::channel();
    ctrlc::set_handler(move || {
        let _ = stop.send(());
    })
    .context("cannot listen for Ctrl-C")?;

    let card = Card::open(Node::Primary)?;
    let buffer = picture.store(&card)?;
    let name = buffer.flink()?;
    if json {
        let (width, height) = (picture.width, picture.height);
        out::line(json!({ "name": name.get(), "width": width, "height": height }))?;
    } else {
        out::line(name)?;
        eprintln!("kept until Ctrl-C; to get it:  gemctl get {name} OUT.png");
    }
    // An error means that the handler is gone, which is as good as a Ctrl-C.
    let _ = stopped.recv();
    buffer.close()?;
    Ok(())
}

/// Writes the picture in the buffer of this name.
pub fn get(name: u32, path: &Path, json: bool) -> Result<()> {
    let name = Name::new(name).context("names are 1 to 2147483647")?;
    let card = Card::open(Node::Primary)?;
    let buffer = card.open_name(name).map_err(explain)?;
    let picture = Picture::load(&buffer.map()?).context(NO_PICTURE)?;
    picture.write_png(path)?;
    let (width, height) = (picture.width, picture.height);
    if json {
        // JSON has no names that are not Unicode.
        let path = path.to_string_lossy();
        out::line(json!({ "out": path, "width": width, "height": height }))
    } else {
        out::line(format_args!(
            "{}: {width} x {height} pixels",
            path.display()
        ))
    }
}

fn explain(error: gem_client::Error) -> anyhow::Error {
    match error.errno() {
        ENOENT => anyhow::Error::new(error).context(NO_BUFFER),
        _ => error.into(),
    }
}
