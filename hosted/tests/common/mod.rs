//! Tests with real processes: each test runs in a process of its own, which is the daemon, and
//! starts client processes, all of them from the same executable.
//!
//! The daemon is played by hand: a test reads the requests one by one, says what it expects, and
//! answers. So it sees exactly what a scheme sees, and in what order.

#![allow(
    dead_code,
    unused_macros,
    reason = "each test program uses a part of it"
)]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use gem::pages::{Caching, NotReady, PageRequest, PageSet, PageSource};
use gem::units::{PageCount, Uid};
use hosted::pages::MemfdPages;
use libredox::call;
use redox_scheme::Socket;
use redox_scheme::scheme::register_scheme_inner;
use syscall::schemev2::{Cqe, CqeOpcode, Opcode, Sqe};

pub const PAGE: usize = 4096;
/// The id of the test scheme's root directory.
pub const ROOT: u64 = 1;
/// The pid that opens by path: the name-space manager.
pub const MANAGER: u64 = 2;

/// A test, or what a client process does.
pub type Entry = (&'static str, fn());

/// Functions with their names, for [`main`].
macro_rules! entries {
    ($($function:ident),* $(,)?) => {
        &[$((stringify!($function), $function as fn())),*]
    };
}
pub(crate) use entries;

const TEST: &str = "HOSTED_TEST";
const CLIENT: &str = "HOSTED_CLIENT";
const LIMIT: Duration = Duration::from_secs(30);

/// The `main` of a test program.
pub fn main(tests: &[Entry], clients: &[Entry]) -> ExitCode {
    for (variable, entries) in [(CLIENT, clients), (TEST, tests)] {
        if let Ok(name) = std::env::var(variable) {
            let entry = entries.iter().find(|(known, _)| *known == name);
            let (_, run) = entry.unwrap_or_else(|| panic!("{variable} {name} is unknown"));
            run();
            return ExitCode::SUCCESS;
        }
    }
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let mut failed = 0;
    for (name, _) in tests {
        if filter
            .as_ref()
            .is_some_and(|filter| !name.contains(filter.as_str()))
        {
            continue;
        }
        let passed = run_apart(name);
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn run_apart(name: &str) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut child = command.env(TEST, name).spawn().unwrap();
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        if Instant::now() > end {
            println!("test {name} takes longer than {LIMIT:?}");
            child.kill().unwrap();
            child.wait().unwrap();
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The daemon of a test, with one scheme, `test`.
pub struct Daemon {
    pub socket: Socket,
    pub pages: MemfdPages,
    pub kernel: hosted::Kernel,
    directory: tempfile::TempDir,
    read: VecDeque<Sqe>,
}

impl Daemon {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gem.sock");
        let kernel = hosted::start(hosted::Config::new(path)).unwrap();
        let socket = Socket::create().unwrap();
        register_scheme_inner(&socket, "test", ROOT as usize).unwrap();
        Self {
            socket,
            pages: MemfdPages::new().unwrap(),
            kernel,
            directory,
            read: VecDeque::new(),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("gem.sock")
    }

    /// Starts a client process.
    pub fn client(&self, name: &str) -> Client {
        Client::start(name, &self.path())
    }

    /// The next request.
    pub fn next(&mut self) -> Sqe {
        if self.read.is_empty() {
            let mut buffer = [0; 64 * 8];
            let length = loop {
                match call::read(self.socket.inner().raw(), &mut buffer) {
                    Ok(length) => break length,
                    Err(error) => assert_eq!(error.errno(), libc::EINTR),
                }
            };
            assert!(length > 0 && length.is_multiple_of(64));
            for chunk in buffer[..length].as_chunks::<64>().0 {
                let mut sqe = Sqe::default();
                sqe.copy_from_slice(chunk);
                self.read.push_back(sqe);
            }
        }
        self.read.pop_front().unwrap()
    }

    /// The next request, which must be of this kind.
    pub fn expect(&mut self, opcode: Opcode) -> Sqe {
        let sqe = self.next();
        assert_eq!(sqe.opcode, opcode as u8, "expected {opcode:?}, got {sqe:?}");
        sqe
    }

    /// A request, if one comes before `time` is over.
    pub fn next_within(&mut self, time: Duration) -> Option<Sqe> {
        let fd = self.socket.inner().raw();
        call::fcntl(fd, syscall::F_SETFL, syscall::O_NONBLOCK).unwrap();
        let end = Instant::now() + time;
        let mut found = self.read.pop_front();
        while found.is_none() && Instant::now() < end {
            let mut sqe = Sqe::default();
            match call::read(fd, &mut sqe) {
                Ok(_) => found = Some(sqe),
                Err(_) => std::thread::sleep(Duration::from_micros(200)),
            }
        }
        call::fcntl(fd, syscall::F_SETFL, 0).unwrap();
        found
    }

    /// Signals `client`, which is about to wait in a call or does, until its call is cancelled.
    pub fn interrupt(&mut self, client: &Client) -> Sqe {
        loop {
            client.signal();
            if let Some(sqe) = self.next_within(Duration::from_millis(20)) {
                assert_eq!(sqe.opcode, Opcode::Cancel as u8);
                return sqe;
            }
        }
    }

    /// Writes completions; how many counted.
    pub fn write(&self, cqes: &[Cqe]) -> Result<usize, i32> {
        let bytes: Vec<u8> = cqes.iter().flat_map(|cqe| cqe.to_vec()).collect();
        let written = call::write(self.socket.inner().raw(), &bytes);
        written
            .map(|bytes| bytes / 16)
            .map_err(|error| error.errno())
    }

    /// Answers a request with a number.
    pub fn answer(&self, sqe: &Sqe, result: u64) {
        assert_eq!(self.write(&[regular(sqe.tag, result)]), Ok(1));
    }

    /// Answers a request with an errno.
    pub fn fail(&self, sqe: &Sqe, errno: i32) {
        self.answer(sqe, (errno as u64).wrapping_neg());
    }

    /// Lets the next request, an open, succeed as the file `id`.
    pub fn serve_open(&mut self, id: u64) -> Sqe {
        let open = self.expect(Opcode::OpenAt);
        self.answer(&open, id);
        open
    }

    /// Expects the end of file `id`.
    pub fn expect_close(&mut self, id: u64) {
        let close = self.expect(Opcode::CloseMsg);
        assert_eq!(close.args, [id, 0, 0, 0, 0, 0]);
    }

    /// Serves until `client` ends, which must be a good end, without a request to the scheme.
    pub fn finish(&self, mut client: Client) {
        while client.child.try_wait().unwrap().is_none() {
            let _ = self.kernel.idle(Duration::from_millis(1));
        }
        client.finish();
    }

    /// Serves until `client` says something, without a request to the scheme.
    pub fn told_by(&self, client: &mut Client) -> String {
        std::thread::scope(|scope| {
            let told = scope.spawn(|| client.told());
            while !told.is_finished() {
                let _ = self.kernel.idle(Duration::from_millis(1));
            }
            told.join().unwrap()
        })
    }

    /// Pages for an object, and where they are.
    pub fn object(&mut self, pages: u64) -> (PageSet, u64) {
        let request = PageRequest {
            owner: Uid(0),
            pages: PageCount::new(pages).unwrap(),
            caching: Caching::WriteBack,
            contiguous: false,
            room: PageCount::MAX,
        };
        let set = self.pages.allocate(request).unwrap();
        loop {
            match self.pages.window(&set) {
                Ok(window) => return (set, window.get() as u64),
                Err(NotReady::Wait(_)) => self.pages.finished(&mut Vec::new()),
                Err(refused) => panic!("{refused:?}"),
            }
        }
    }
}

/// A completion with a number.
pub fn regular(tag: u32, result: u64) -> Cqe {
    Cqe {
        flags: CqeOpcode::RespondRegular as u8,
        extra_raw: [0; 3],
        tag,
        result,
    }
}

/// What the address and length in a request mean.
pub fn payload(sqe: &Sqe) -> &'static mut [u8] {
    let address = std::ptr::with_exposed_provenance_mut(sqe.args[1] as usize);
    // SAFETY: the kernel lends address and length to the daemon until it answers; tests do not
    // use them after that.
    unsafe { std::slice::from_raw_parts_mut(address, sqe.args[2] as usize) }
}

/// The path or name in a request.
pub fn text(sqe: &Sqe) -> String {
    String::from_utf8(payload(sqe).to_vec()).unwrap()
}

/// A client process. Killed when dropped.
pub struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    pub fn start(name: &str, socket: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(CLIENT, name)
            .env("GEM_SOCKET", socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    pub fn pid(&self) -> u64 {
        self.child.id().into()
    }

    /// Sends SIGALRM, see [`be_interruptible`].
    pub fn signal(&self) {
        // SAFETY: the process is a child that was not waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGALRM) };
    }

    /// Lets the client go on from [`wait_for_daemon`].
    pub fn go(&mut self) {
        writeln!(self.input).unwrap();
    }

    /// Waits for a line of the client's, see [`tell_daemon`]. The daemon does nothing meanwhile.
    pub fn told(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Waits for the client's end, which must be a good one. The daemon does nothing meanwhile.
    pub fn finish(mut self) {
        assert!(
            self.child.wait().unwrap().success(),
            "a client process failed"
        );
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a client: waits for [`Client::go`].
pub fn wait_for_daemon() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// In a client: what the daemon gets from [`Client::told`].
pub fn tell_daemon(line: impl std::fmt::Display) {
    println!("{line}");
}

extern "C" fn do_nothing(_: libc::c_int) {}

/// In a client: has SIGALRM interrupt what it waits in.
pub fn be_interruptible() {
    // SAFETY: a handler that does nothing, without SA_RESTART.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = do_nothing as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
    }
}

/// In a client: opens `path` in the test scheme.
pub fn open(path: &str) -> usize {
    call::open(format!("/scheme/test/{path}"), libc::O_RDWR, 0).unwrap()
}

/// In a client: the errno that a call fails with.
pub fn errno<T: std::fmt::Debug>(result: libredox::error::Result<T>) -> i32 {
    result.unwrap_err().errno()
}
