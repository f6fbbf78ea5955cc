//! What the server adds to what the stand-in kernel costs anyway, on Linux: a GEM call beside an
//! empty call of a scheme that does nothing, a mapping beside a bare one; and how much memory a
//! daemon with many clients or many objects takes. Prints a table, gates nothing.
//!
//! Every figure is the lowest decile of many batches, because whatever else the machine does can
//! only make a batch slower. Both sides of a ratio are measured in one run, in turns, by a client
//! process of their own each.

mod userptr;

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use gem_client::{Card, Node};
use gem_wire::drm;
use gem_wire::native::Call;
use libredox::Fd;
use libredox::flag::O_RDWR;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use redox_scheme::Socket;
use redox_scheme::scheme::register_scheme_inner;
use syscall::CallFlags;
use syscall::schemev2::{Cqe, Sqe};

const ROLE: &str = "GEM_BENCH_ROLE";
const BATCHES: usize = 200;
const CALLS: u32 = 200;
const SIZE: usize = 64 * 1024;

fn main() {
    match std::env::var(ROLE).as_deref() {
        Err(_) => measure(),
        Ok("empty-scheme") => empty_scheme(),
        Ok("empty-client") => client(empty_operations()),
        Ok("gem-client") => client(gem_operations()),
        Ok("holder") => hold(10, true),
        Ok("collector") => hold(1_000_000, false),
        Ok(role) => panic!("no such role: {role}"),
    }
}

fn measure() {
    let directory = tempfile::tempdir().unwrap();
    let (empty, gem) = (directory.path().join("empty"), directory.path().join("gem"));
    let _empty = Process::start(ourselves("empty-scheme", &empty));
    let mut gemd = Process::start(gemd(&gem));
    let mut bare = Process::start(ourselves("empty-client", &empty));
    let mut ours = Process::start(ourselves("gem-client", &gem));
    println!(
        "\n{:<46} {:>10} {:>10} {:>7}",
        "lowest decile, ns", "bare", "gemd", "ratio"
    );
    for operation in [
        "call without payload",
        "call with 16 bytes",
        "map + unmap 64 KiB",
    ] {
        let mut figures = [Vec::new(), Vec::new()];
        // In turns, so that whatever else the machine does meets both.
        for _ in 0..10 {
            for (process, figures) in [&mut bare, &mut ours].into_iter().zip(&mut figures) {
                figures.push(process.ask(operation));
            }
        }
        let [bare, ours] = figures.map(lowest_decile);
        println!(
            "{operation:<46} {bare:>10.0} {ours:>10.0} {:>7.2}",
            ours / bare
        );
    }
    for (operation, sizes) in userptr::OPERATIONS {
        for pages in sizes {
            let question = format!("{operation}, {pages} pages");
            let mut figures = [Vec::new(), Vec::new()];
            for _ in 0..10 {
                for (process, figures) in [&mut bare, &mut ours].into_iter().zip(&mut figures) {
                    figures.push(process.ask(&question));
                }
            }
            let [bare, ours] = figures.map(lowest_decile);
            println!(
                "{question:<46} {bare:>10.0} {ours:>10.0} {:>7.2}",
                ours / bare
            );
        }
    }
    drop(ours);
    let before = gemd.memory();
    let mut holders: Vec<Process> = (0..1000)
        .map(|_| Process::start(ourselves("holder", &gem)))
        .collect();
    println!("\n{:<46} {:>10}", "daemon's resident memory, KiB", "");
    println!("{:<46} {before:>10}", "without clients");
    println!(
        "{:<46} {:>10}",
        "1,000 clients x 10 mapped objects",
        gemd.memory()
    );
    holders.clear();
    drop(gemd);
    gemd = Process::start(crate::gemd(&gem));
    let _collector = Process::start(ourselves("collector", &gem));
    println!(
        "{:<46} {:>10}",
        "1,000,000 objects, never mapped",
        gemd.memory()
    );
}

fn gemd(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemd"));
    command.arg("--socket").arg(socket);
    command
}

fn ourselves(role: &str, socket: &PathBuf) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(ROLE, role).env("GEM_SOCKET", socket);
    command
}

/// A process that says on its first line that it is ready, and answers questions by the line.
struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Process {
    fn start(mut command: Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.next().expect("it is ready").unwrap();
        Self { child, lines }
    }

    fn ask(&mut self, question: &str) -> f64 {
        writeln!(self.child.stdin.as_mut().unwrap(), "{question}").unwrap();
        self.lines.next().unwrap().unwrap().parse().unwrap()
    }

    /// Resident memory in KiB.
    fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.unwrap().trim().trim_end_matches(" kB");
        number.parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lowest_decile(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 10]
}

/// Nanoseconds for one `operation`.
fn time(mut operation: impl FnMut()) -> f64 {
    let batch = || {
        let start = Instant::now();
        for _ in 0..CALLS {
            operation();
        }
        start.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    lowest_decile(std::iter::repeat_with(batch).take(BATCHES).collect())
}

type Operations = Box<dyn FnMut(&str) -> f64>;

fn client(mut operations: Operations) {
    println!("ready");
    for question in std::io::stdin().lines() {
        println!("{}", operations(&question.unwrap()));
    }
}

/// The same operations without a server behind them.
fn empty_operations() -> Operations {
    let fd = Fd::open("/scheme/empty/x", O_RDWR, 0).unwrap();
    let memory = memfd_create(c"bench", MFdFlags::MFD_CLOEXEC).unwrap();
    nix::unistd::ftruncate(&memory, SIZE as i64).unwrap();
    let mut payload = [0; 16];
    Box::new(move |operation| match operation {
        "call without payload" => time(|| call(&fd, &mut [], [1, 2, 3])),
        "call with 16 bytes" => time(|| call(&fd, &mut payload, [1, 2, 3])),
        // What any mapping through a server must do: one message each way, one mmap, one munmap.
        "map + unmap 64 KiB" => time(|| {
            call(&fd, &mut [], [1, 2, 3]);
            let size = SIZE.try_into().unwrap();
            let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            // SAFETY: a new mapping wherever there is room, unmapped again unused.
            unsafe {
                let at = mmap(None, size, protection, MapFlags::MAP_SHARED, &memory, 0).unwrap();
                munmap(black_box(at), SIZE).unwrap();
            }
        }),
        other => {
            let (operation, pages) = of_userptr(other);
            lowest_decile(userptr::bare(&fd, operation, pages))
        }
    })
}

/// An operation on a client's own pages, and on how many.
fn of_userptr(question: &str) -> (&str, usize) {
    let parts = question.strip_suffix(" pages");
    let parts = parts.and_then(|parts| parts.rsplit_once(", "));
    let (operation, pages) = parts.expect("an operation");
    (operation, pages.parse().expect("a number"))
}

fn gem_operations() -> Operations {
    let card = Card::open(Node::Primary).unwrap();
    let buffer = card.create(SIZE as u64).unwrap();
    let handle = buffer.handle();
    let fd = std::mem::ManuallyDrop::new(Fd::new(card.raw_fd()));
    // The first mapping makes the memory; the others are what is measured.
    drop(buffer.map().unwrap());
    let offset = buffer.map_offset().unwrap();
    Box::new(move |operation| {
        let _held = &buffer;
        match operation {
            "call without payload" => time(|| call(&fd, &mut [], Call::Size { handle }.encode())),
            "call with 16 bytes" => {
                let mut payload = [0; 16];
                payload[0] = drm::cap::PRIME as u8;
                time(|| call(&fd, &mut payload, [drm::GET_CAP, 0, 0]))
            }
            "map + unmap 64 KiB" => time(|| map(&fd, offset)),
            other => {
                let (operation, pages) = of_userptr(other);
                lowest_decile(userptr::ours(&card, operation, pages))
            }
        }
    })
}

fn call(fd: &Fd, payload: &mut [u8], words: [u64; 3]) {
    libredox::call::call_rw(fd.raw(), payload, CallFlags::empty(), &words).unwrap();
}

fn map(fd: &Fd, offset: u64) {
    let args = libredox::call::MmapArgs {
        addr: std::ptr::null_mut(),
        length: SIZE,
        prot: libredox::flag::PROT_READ | libredox::flag::PROT_WRITE,
        flags: libredox::flag::MAP_SHARED,
        fd: fd.raw(),
        offset,
    };
    // SAFETY: a new mapping wherever there is room, unmapped again unused.
    unsafe {
        let at = libredox::call::mmap(args).unwrap();
        libredox::call::munmap(black_box(at), SIZE).unwrap();
    }
}

/// Holds objects until it is killed.
fn hold(objects: usize, mapped: bool) {
    // As many in each open as it may have.
    let cards: Vec<_> = (0..objects.div_ceil(50_000))
        .map(|_| Card::open(Node::Render).unwrap())
        .collect();
    let buffers: Vec<_> = (0..objects)
        .map(|index| cards[index / 50_000].create(4096).unwrap())
        .collect();
    let mappings: Vec<_> = if mapped {
        buffers.iter().map(|buffer| buffer.map().unwrap()).collect()
    } else {
        Vec::new()
    };
    println!("ready");
    black_box((buffers, mappings));
    loop {
        std::thread::park();
    }
}

/// A scheme that answers 0 to everything, on a stand-in kernel of its own.
fn empty_scheme() {
    let socket = PathBuf::from(std::env::var_os("GEM_SOCKET").unwrap());
    let _kernel = hosted::start(hosted::Config::new(socket)).unwrap();
    let scheme = Socket::create().unwrap();
    register_scheme_inner(&scheme, "empty", 1).unwrap();
    println!("ready");
    let mut sqes = [Sqe::default(); 32];
    loop {
        // SAFETY: plain integers without padding, any bytes of which are valid.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(sqes.as_mut_ptr().cast(), size_of_val(&sqes)) };
        let length = scheme.inner().read(bytes).unwrap();
        for sqe in &sqes[..length / size_of::<Sqe>()] {
            let cqe = Cqe {
                tag: sqe.tag,
                ..Cqe::default()
            };
            // One that nobody waits for (a close) is refused.
            let _ = scheme.inner().write(&cqe);
        }
    }
}
