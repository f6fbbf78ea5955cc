//! Asks a gemd of one's own what a trace asked, and demands the answers that it has.
//!
//! Each record happens where it stands in the trace. A request whose answer is the next record is
//! done at once. Any other one is kept waiting, as it was in the trace, where it asks for pages,
//! until its answer's turn has come. So gemd's state goes the way that it went then, and every
//! answer must be the same, with the differences that `docs/decisions.md` names and [`Memory`]
//! knows.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::mem::take;
use std::rc::Rc;

use gem::pages::Ticket;
use gem::units::PageCount;
use gem::{Config, Limits, NameMode};
use gem_traces::{Record, is_unasked};
use gem_wire::limit::Limit;
use gemd::answer::{Answer, readable};
use gemd::executor::{Answers, Executor};
use gemd::fds::FdId;
use gemd::server::{Server, set_limit};
use gemd::sqe::{self, Message, Tag};
use syscall::schemev2::{Cqe, Opcode, Sqe};

use crate::compare::{Memory, Question};
use crate::platform::{Machine, Pages, Script};

/// Longer than any text about a server.
const TEXT: usize = 1 << 16;

/// How many turns a request may take that lets others have theirs.
const ROUNDS: usize = 10_000;

/// Where a replay is not what the trace says.
#[derive(Debug)]
pub struct Difference {
    /// The line of the trace.
    pub line: usize,
    what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// Plays a trace, and says how many answers were compared.
///
/// # Errors
///
/// The first difference.
pub fn replay(records: &[(usize, Record)]) -> Result<usize, Difference> {
    let mut player = None;
    let mut compared = 0;
    for (index, (line, record)) in records.iter().enumerate() {
        let rest = &records[index + 1..];
        let played = match (record, &mut player) {
            (Record::Start(limits), _) => Player::new(limits).map(|new| {
                compared += player.replace(new).map_or(0, |old| old.compared);
            }),
            (Record::UserPages, Some(player)) => {
                player.script.borrow_mut().user_pages = true;
                Ok(())
            }
            (Record::Process { pid, who }, Some(player)) => {
                player.know(*pid, *who);
                Ok(())
            }
            (Record::Asked { sqe, payload }, Some(player)) => {
                player.ask(*line, sqe, payload.as_deref().unwrap_or_default(), rest)
            }
            (Record::Answered { cqe, payload }, Some(player)) => {
                player.answer(*line, cqe, payload.as_deref())
            }
            (_, None) => Err("no server has started".to_owned()),
        };
        played.map_err(|what| Difference { line: *line, what })?;
        let ends = rest
            .first()
            .is_none_or(|(_, record)| matches!(record, Record::Start(_)));
        if let Some(player) = player.as_mut().filter(|_| ends) {
            player.end()?;
        }
    }
    Ok(compared + player.map_or(0, |player| player.compared))
}

/// A request that the trace has not answered yet.
struct Asked<'a> {
    line: usize,
    sqe: &'a Sqe,
    /// The payload as it came.
    payload: &'a [u8],
    /// What is lent to gemd.
    lent: Vec<u8>,
    /// What keeps it waiting.
    tickets: Vec<Ticket>,
    answer: Option<Cqe>,
}

struct Player<'a> {
    /// Dropped first: it looks at what is lent to it.
    executor: Executor<Machine>,
    asked: BTreeMap<u32, Asked<'a>>,
    script: Rc<RefCell<Script>>,
    control: FdId,
    answers: Answers,
    memory: Memory,
    compared: usize,
    /// The line of the last answer.
    last: usize,
}

impl<'a> Player<'a> {
    /// A server with these limits. Others, which are newer than the trace, are as always.
    fn new(values: &[(u64, u64)]) -> Result<Self, String> {
        let total = values
            .iter()
            .find(|(number, _)| *number == Limit::Memory.number());
        let total = total.and_then(|(_, pages)| PageCount::new(*pages));
        let mut limits =
            Limits::for_clients(total.ok_or("no limit says how much memory there is")?);
        for &(number, value) in values {
            Limit::from_number(number)
                .and_then(|limit| set_limit(&mut limits, limit, value))
                .ok_or_else(|| format!("there is no limit {number} that can be {value}"))?;
        }
        let script = Rc::new(RefCell::new(Script::default()));
        let config = Config {
            limits,
            names: NameMode::Sequential,
        };
        let pages = Pages::new(script.clone());
        let mut server = Server::new(config, Machine(script.clone()), pages);
        // An fd that was sent is a number here; nobody looks behind it.
        server.set_obtain(Box::new(|_, numbers| {
            numbers.fill(0);
            Ok(())
        }));
        // In the order of `Service::register`: their numbers are in the trace.
        let control = server.control().expect("a file");
        server.root().expect("a file");
        Ok(Self {
            executor: Executor::new(server),
            asked: BTreeMap::new(),
            script,
            control,
            answers: Answers::new(),
            memory: Memory::default(),
            compared: 0,
            last: 0,
        })
    }

    fn know(&mut self, pid: u64, who: Option<(u32, u32)>) {
        let processes = &mut self.script.borrow_mut().processes;
        match who {
            Some(who) => processes.insert(pid, who),
            None => processes.remove(&pid),
        };
    }

    fn ask(
        &mut self,
        line: usize,
        sqe: &'a Sqe,
        payload: &'a [u8],
        rest: &[(usize, Record)],
    ) -> Result<(), String> {
        // Who is who was found out, and noted, while the request was done.
        let next = rest.iter().find_map(|(_, record)| match record {
            &Record::Process { pid, who } => {
                self.know(pid, who);
                None
            }
            record => Some(record),
        });
        let at_once = match next {
            Some(Record::Answered { cqe, .. }) => cqe.tag == sqe.tag && !is_unasked(cqe),
            _ => false,
        };

        let mut lent = payload.to_vec();
        let mut given = *sqe;
        if self.memory.read_of_text(sqe).is_some() {
            // All of it, since its lines may be elsewhere by now.
            given.args[3] = 0;
            lent.resize(TEXT.max(lent.len()), 0);
        }
        if sqe::has_payload(sqe) {
            // Dangling where there is nothing, as the kernel has it.
            given.args[1] = match lent.as_mut_ptr() {
                _ if lent.is_empty() => 1 << 63,
                address => address as u64,
            };
            given.args[2] = lent.len() as u64;
        }
        // SAFETY: what is lent is ours, and stays where it is in `asked` until the request is
        // answered or the executor is gone.
        let message = unsafe { sqe::decode(&given) };
        if matches!(message, Message::Request(_) | Message::Refused(..)) {
            let asked = Asked {
                line,
                sqe,
                payload,
                lent,
                tickets: Vec::new(),
                answer: None,
            };
            if let Some(other) = self.asked.insert(sqe.tag, asked) {
                return Err(format!("line {} with this tag is not answered", other.line));
            }
        }
        self.script.borrow_mut().hold = !at_once;
        self.executor.message(message, &mut self.answers);
        self.script.borrow_mut().hold = false;
        let held = take(&mut self.script.borrow_mut().held);
        if let Some(asked) = self.asked.get_mut(&sqe.tag) {
            asked.tickets = held;
        }
        self.collect()
    }

    /// Keeps gemd's answers until the trace has them, too.
    fn collect(&mut self) -> Result<(), String> {
        for (tag, answer) in self.answers.drain(..) {
            let asked = self.asked.get_mut(&tag.0);
            let asked = asked.ok_or_else(|| format!("gemd answers {:x}, unasked", tag.0))?;
            if asked.answer.replace(answer.cqe(tag)).is_some() {
                return Err(format!("gemd answers {:x} twice", tag.0));
            }
        }
        Ok(())
    }

    fn answer(
        &mut self,
        line: usize,
        recorded: &Cqe,
        payload: Option<&[u8]>,
    ) -> Result<(), String> {
        self.last = line;
        if is_unasked(recorded) {
            let mut told = self.executor.next_readable();
            if told.is_none() {
                // It is found out at the end of a turn.
                self.executor.run_ready(&mut self.answers);
                self.collect()?;
                told = self.executor.next_readable();
            }
            let told = told.map(readable);
            self.compared += 1;
            return match told {
                Some(told) if told[..] == recorded[..] => Ok(()),
                told => Err(format!("gemd tells {told:x?}, and told {recorded:x?}")),
            };
        }
        self.go_on_with(recorded.tag)?;
        let asked = self.asked.remove(&recorded.tag);
        let asked = asked.ok_or("nobody has asked")?;
        let cqe = asked.answer.ok_or("gemd does not answer yet")?;
        let question = Question {
            sqe: asked.sqe,
            payload: asked.payload,
        };
        let is = (&cqe, asked.lent.as_slice());
        let was = (recorded, payload.unwrap_or(asked.payload));
        self.compared += 1;
        self.memory
            .compare(question, is, was)
            .map_err(|what| format!("line {} is answered with {what}", asked.line))
    }

    /// Lets this request have what it waits for.
    fn go_on_with(&mut self, tag: u32) -> Result<(), String> {
        let Some(asked) = self.asked.get_mut(&tag) else {
            return Ok(());
        };
        if asked.answer.is_some() {
            return Ok(());
        }
        self.script.borrow_mut().released.append(&mut asked.tickets);
        self.kick();
        self.executor.run_ready(&mut self.answers);
        self.collect()?;
        for _ in 0..ROUNDS {
            let waits = self.asked.get(&tag).is_some_and(|it| it.answer.is_none());
            if !waits || !self.executor.has_ready() {
                break;
            }
            self.executor.run_ready(&mut self.answers);
            self.collect()?;
        }
        Ok(())
    }

    /// What the platform does when something is finished.
    fn kick(&mut self) {
        let sqe = Sqe {
            opcode: Opcode::Call as u8,
            tag: u32::MAX,
            args: [self.control.raw(), 1 << 63, 0, sqe::KICK, 0, 0],
            ..Sqe::default()
        };
        // SAFETY: there is no payload.
        let message = unsafe { sqe::decode(&sqe) };
        let mut answers = Answers::new();
        self.executor.message(message, &mut answers);
        assert_eq!(answers, [(Tag(u32::MAX), Answer::DONE)]);
    }

    /// The trace is over, or this server's part of it: what it leaves unanswered must be the last
    /// that it has, or wait here as well.
    fn end(&mut self) -> Result<(), Difference> {
        if let Some(fd) = self.executor.next_readable() {
            return Err(Difference {
                line: self.last,
                what: format!("gemd tells that {:x} is readable, and did not", fd.raw()),
            });
        }
        let answered = self
            .asked
            .values()
            .find(|asked| asked.answer.is_some() && asked.line < self.last);
        match answered {
            None => Ok(()),
            Some(asked) => Err(Difference {
                line: asked.line,
                what: "gemd answers this, and did not".to_owned(),
            }),
        }
    }
}
