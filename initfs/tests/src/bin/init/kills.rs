//! Promises that nothing is lost over many clients' lives, however they end.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use core::time::Duration;

use gem_client::{Card, Mapping, Node, ObjectFd, Rights};
use initfs_tests::victim::{BOARD, Phase, REGISTERS, SIZE, Step, WAYS};
use libredox::Fd;
use libredox::flag::O_RDONLY;
use rt::process::{Command, Process};
use rt::time::{Instant, sleep};

use crate::frames::{free, kept_without_loss, settle};
use crate::scheme::Gemd;
use crate::{Broken, Outcome, Promise, expect, in_call, of_client};

/// All of them.
pub const PROMISES: &[Promise] = &[
    Promise {
        name: "ten_thousand_clients_that_are_killed_leave_nothing",
        keep: kill_many,
    },
    Promise {
        name: "clients_killed_while_they_register_memory_leave_nothing",
        keep: kill_registering,
    },
];

const CLIENTS: u32 = 10_000;
/// After these the daemon's tables, the bootstrap process and the kernel have what they keep.
const FIRST: u32 = 500;

/// A board, for clients to write on.
struct Board {
    seen: Mapping,
    export: ObjectFd,
}

impl Board {
    fn new(card: &Card) -> Result<Self, Broken> {
        let board = card.create(SIZE).map_err(of_client("create the board"))?;
        let export = board.export(Rights::ReadWrite);
        Ok(Self {
            export: export.map_err(of_client("export the board"))?,
            seen: board.map().map_err(of_client("map the board"))?,
        })
    }

    /// Starts a client, and waits until what it writes satisfies `far_enough`.
    fn start(&self, victim: Command, far_enough: impl Fn(u8) -> bool) -> Result<Process, Broken> {
        self.seen
            .write_at(0, &[Step::Started as u8])
            .map_err(of_client("write to the board"))?;
        let victim = victim.hand(self.export.raw_fd(), BOARD).spawn();
        let victim = victim.map_err(in_call("start a client"))?;
        while !far_enough(self.read()?) {
            let _ = syscall::sched_yield();
        }
        Ok(victim)
    }

    fn read(&self) -> Result<u8, Broken> {
        let mut byte = [0];
        self.seen
            .read_at(0, &mut byte)
            .map_err(of_client("read the board"))?;
        Ok(byte[0])
    }
}

fn kill(victim: &Process) -> Outcome {
    victim.kill().map_err(in_call("kill the client"))?;
    victim.wait().map_err(in_call("wait for the client"))?;
    Ok(())
}

fn kill_many() -> Outcome {
    let _gemd = Gemd::start(&[])?;
    let card = Card::open(Node::Primary).map_err(of_client("open a node"))?;
    let board = Board::new(&card)?;
    let stats = stats()?;
    for number in 0..FIRST {
        kill_one(number, &board)?;
    }
    let before = free()?;
    for number in 0..CLIENTS {
        kill_one(number, &board)?;
    }
    expect("frames lost", settle(before)?, 0)?;
    expect("gemd's stats afterwards", self::stats()?, stats)
}

/// Starts a client, and kills it when it has come as far as its number says.
fn kill_one(number: u32, board: &Board) -> Outcome {
    let target = Step::ALL[number as usize % Step::ALL.len()];
    let victim = board.start(Command::new("victim"), |step| step >= target as u8)?;
    kill(&victim)
}

/// How many clients are killed while they register memory, where `rounds=` on the kernel's command
/// line says nothing else.
const ROUNDS: u32 = 60;

static TRIED: AtomicBool = AtomicBool::new(false);

/// Kills clients at moments that nobody chooses, somewhere in registering memory, using it and
/// unmapping it.
///
/// Two faults of the kernel (docs/redox-integration.md) are none of gemd's, and no moment here meets
/// them. A client that is killed while an open or a dup *of gemd's* is answered leaves its file for
/// good: the victim has made all of those before it is killed, and what it dups later, its address
/// space, is the kernel's own. A client that is killed with whole pages lent for a call can stop
/// gemd: no call here has a payload that long.
fn kill_registering() -> Outcome {
    let environment = crate::environment();
    let rounds = crate::value(&environment, "rounds").and_then(|rounds| rounds.parse().ok());
    // Once is enough, where what gemd's own start leaves has this tried again.
    let is_first = !TRIED.swap(true, Relaxed);
    let rounds = rounds.filter(|_| is_first).unwrap_or(ROUNDS);
    let _gemd = Gemd::start(&[])?;
    let card = Card::open(Node::Primary).map_err(of_client("open a node"))?;
    let board = Board::new(&card)?;
    let stats = stats()?;
    let dice = Dice(Cell::new(0x9e37_79b9_7f4a_7c15));
    let kill_some = |rounds: u32| {
        let mut killed = [0; Phase::ALL.len()];
        for number in 0..rounds {
            let phase = kill_one_registering(number, &board, &dice)?;
            if let Some(index) = Phase::ALL.iter().position(|&it| it as u8 == phase) {
                killed[index] += 1;
            }
        }
        for (phase, killed) in Phase::ALL.iter().zip(killed) {
            rt::say!("# {phase:?}: {killed} killed");
        }
        wait_for_stats(&stats)
    };
    // What the tables and heaps of the daemon, the bootstrap process and the kernel have had to grow
    // by for some rounds is there for the next ones.
    kill_some(rounds.min(FIRST))?;
    kept_without_loss(|| kill_some(rounds))
}

/// Starts a client that registers memory, lets it go on for a while, and kills it. What it was at.
fn kill_one_registering(number: u32, board: &Board, dice: &Dice) -> Result<u8, Broken> {
    let way = alloc::format!("{}", number as usize % WAYS.len());
    let victim = Command::new("victim").argument(REGISTERS).argument(&way);
    let victim = board.start(victim, |phase| phase >= Phase::Fills as u8)?;
    // Where there is one processor, each of the first lets the others go on until they wait, pass or
    // their time is up; where there are two, the victim goes on all the while.
    for _ in 0..dice.below(14) {
        let _ = syscall::sched_yield();
    }
    for _ in 0..dice.below(200_000) {
        core::hint::black_box(());
    }
    let phase = board.read()?;
    kill(&victim)?;
    Ok(phase)
}

/// Numbers that look random and are the same every time (xorshift).
struct Dice(Cell<u64>);

impl Dice {
    fn below(&self, end: u64) -> u64 {
        let mut number = self.0.get();
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        self.0.set(number);
        number % end
    }
}

/// Waits until the daemon has what it had: pages of a client's that were on their way when it died
/// go back in their own time.
fn wait_for_stats(before: &str) -> Outcome {
    let end = Instant::now().after(Duration::from_secs(10));
    loop {
        let now = stats()?;
        if now == before || Instant::now() >= end {
            return expect("gemd's stats afterwards", now.as_str(), before);
        }
        sleep(Duration::from_millis(1));
    }
}

/// The daemon's totals, when it has heard of all that has ended: what is told to it comes in
/// order.
fn stats() -> Result<alloc::string::String, Broken> {
    let file = Fd::open("/scheme/gem/stats", O_RDONLY, 0);
    let mut bytes = alloc::vec![0; 4096];
    let length = file
        .and_then(|file| file.read(&mut bytes))
        .map_err(|error| Broken::Call("read gemd's stats", error.into()))?;
    bytes.truncate(length);
    Ok(alloc::string::String::from_utf8_lossy(&bytes).into_owned())
}
