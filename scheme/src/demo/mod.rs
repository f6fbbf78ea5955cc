//! The main job in one command: a private gemd, a producer and consumers as separate processes,
//! and a picture that goes from one to the others through graphics memory.
//!
//! Every claim that is printed is checked; the demo ends with 0 only if all of them held.

mod children;
mod roles;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args as ClapArgs, Subcommand};
use gem_client::picture::Picture;
use gem_client::text;

use children::{Daemon, Producer, consume};
use roles::Way;
pub use roles::{RoleArgs, run as run_role};

/// What is moved when nobody names a picture.
const BUNDLED: &[u8] = include_bytes!("../../assets/demo.png");

/// Where the consumer writes.
const OUT: &str = "target/demo-out.png";

/// What `gemd` can do but serve.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts a private gemd, a producer and a consumer, and moves a picture between them
    Demo(Args),
    /// A process of the demo
    #[command(hide = true)]
    DemoRole(RoleArgs),
}

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// The picture to move [default: a bundled one]
    picture: Option<PathBuf>,
}

/// Runs the demo.
pub fn run(args: &Args) -> Result<()> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let picture = picture(args, directory.path())?;
    let input = Picture::read_png(&picture)?;
    let (width, height) = (input.width, input.height);
    println!("picture:  {width} x {height} pixels");

    let socket = directory.path().join("gem.sock");
    let daemon = Daemon::start(&socket)?;
    gem_client::linux::set_socket(&socket);
    println!("gemd:     process {}, on a socket of its own", daemon.pid());
    let producer = Producer::start(&socket, &picture, directory.path())?;
    let (pid, name) = (producer.pid(), producer.name());
    println!("producer: process {pid}, has put the picture into a buffer named {name}\n");

    let out = PathBuf::from(OUT);
    if let Some(parent) = out.parent() {
        fs::create_dir_all(parent)?;
    }
    for (number, way) in [Way::Name, Way::ObjectFd, Way::RenderNode]
        .iter()
        .enumerate()
    {
        let pid = consume(*way, &producer, &socket, &out)?;
        let output = Picture::read_png(&out)?;
        ensure!(
            output == input,
            "the consumer's picture is not the producer's"
        );
        println!(
            "{}. {way}: consumer {pid} wrote {OUT}, pixel for pixel the input",
            number + 1
        );
    }

    println!("\nobjects now (the consumers have gone):");
    print!("{}", text::read("/scheme/gem/objects")?);
    ensure!(text::stat("objects")? == 1, "there should be one object");
    let (pages, mapped) = (text::stat("memory-pages")?, text::stat("mapped-pages")?);
    ensure!(pages > 0 && mapped > 0, "the producer should hold memory");

    producer.kill()?;
    wait_until_empty()?;
    println!(
        "\nproducer killed (SIGKILL): it held {pages} pages of memory and had mapped {mapped}; \
         now 0 objects, 0 handles, 0 pages are left"
    );

    daemon.stop()?;
    ensure!(!socket.exists(), "gemd left its socket behind");
    println!("gemd stopped (SIGTERM): exit code 0, socket removed");
    Ok(())
}

fn picture(args: &Args, directory: &Path) -> Result<PathBuf> {
    match &args.picture {
        Some(path) => Ok(path.clone()),
        None => {
            let path = directory.join("bundled.png");
            fs::write(&path, BUNDLED).context("cannot unpack the bundled picture")?;
            Ok(path)
        }
    }
}

/// The kernel cleans up after a killed process in its own time; that is a matter of milliseconds.
fn wait_until_empty() -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let stats = text::stats()?;
        let left = |key: &str| stats.get(key).map_or("?", String::as_str) != "0";
        let left = [
            "objects",
            "handles",
            "object-fds",
            "memory-pages",
            "mapped-pages",
        ]
        .iter()
        .filter(|key| left(key));
        let left: Vec<_> = left.collect();
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "still not zero: {left:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
