//! A platform that fails at every point where it can: each operation of a script is tried with the
//! first of the platform's answers failing, then with the second, and so on. An operation that
//! comes to nothing has changed nothing, and works afterwards as if it had not been tried; one that
//! waits can be cancelled, outlived by its file, or finished.

mod rig;

use gem_wire::native::{Call, CreateFlags, Sized, VERSION};
use gem_wire::userptr::{Claimed, Taking, UserptrFlags};
use gemd::answer::{Answer, Errno};
use gemd::fds::FdId;
use gemd::sqe::Tag;
use rig::{ALICE, BOB, Failure, PAGE, ROOT, Rig};
use syscall::error::ECANCELED;
use syscall::flag::MapFlags;
use syscall::schemev2::{Opcode, SqeFlags};

/// What earlier operations have come to.
#[derive(Default)]
struct Made {
    card: Option<FdId>,
    render: Option<FdId>,
    object: Option<FdId>,
    handle: u32,
    name: u32,
    offset: u64,
    user_offset: u64,
    files: Vec<FdId>,
    bytes: Vec<u8>,
}

impl Made {
    fn card(&self) -> FdId {
        self.card.unwrap()
    }

    fn object(&self) -> FdId {
        self.object.unwrap()
    }

    fn file(&mut self, value: u64) -> Option<FdId> {
        let file = FdId::from_raw(value);
        self.files.push(file);
        Some(file)
    }
}

/// One operation: how it is asked for, and what is kept of its result.
struct Operation {
    name: &'static str,
    ask: fn(&mut Rig, &mut Made) -> Tag,
    keep: fn(&mut Made, u64),
}

const SIZE: u64 = 3 * PAGE;
const GREETING: Call = Call::Hello { version: VERSION };
const START: u64 = 0x40_0000;

fn path(rig: &mut Rig, pid: u64, at: FdId, opcode: Opcode, path: &'static str) -> Tag {
    let (address, length) = (path.as_ptr() as u64, path.len() as u64);
    let flags = syscall::flag::O_RDWR as u64;
    let args = [at.raw(), address, length, flags, 0, 0];
    rig.send(pid, opcode, SqeFlags::empty(), args)
}

fn map(rig: &mut Rig, fd: FdId, offset: u64, size: u64) -> Tag {
    let flags = MapFlags::MAP_SHARED | MapFlags::PROT_READ | MapFlags::PROT_WRITE;
    let args = [fd.raw(), size, flags.bits() as u64, offset, 0, 0];
    rig.send(ALICE, Opcode::MmapPrep, SqeFlags::empty(), args)
}

fn bytes(rig: &mut Rig, made: &mut Made, opcode: Opcode) -> Tag {
    made.bytes = vec![7; 100];
    let (address, length) = (made.bytes.as_mut_ptr() as u64, 100);
    let args = [made.object().raw(), address, length, 50, 0, 0];
    rig.send(ALICE, opcode, SqeFlags::empty(), args)
}

/// Each needs the ones before it.
const SCRIPT: &[Operation] = &[
    Operation {
        name: "open card0",
        ask: |rig, _| path(rig, ALICE, rig.root, Opcode::OpenAt, "card0"),
        keep: |made, value| made.card = made.file(value),
    },
    Operation {
        name: "open renderD128",
        ask: |rig, _| path(rig, BOB, rig.root, Opcode::OpenAt, "renderD128"),
        keep: |made, value| made.render = made.file(value),
    },
    // The first call makes a node its caller's, whatever becomes of the call.
    Operation {
        name: "greet through card0",
        ask: |rig, made| rig.begin(ALICE, made.card(), GREETING.encode()),
        keep: |_, _| {},
    },
    Operation {
        name: "greet through renderD128",
        ask: |rig, made| rig.begin(BOB, made.render.unwrap(), GREETING.encode()),
        keep: |_, _| {},
    },
    Operation {
        name: "create",
        ask: |rig, made| {
            let flags = CreateFlags::empty();
            rig.begin(
                ALICE,
                made.card(),
                Call::Create { size: SIZE, flags }.encode(),
            )
        },
        keep: |made, value| made.handle = Sized::unpack(value).handle,
    },
    Operation {
        name: "create, write-combined and in one piece",
        ask: |rig, made| {
            let flags = CreateFlags::WRITE_COMBINING | CreateFlags::CONTIGUOUS;
            rig.begin(
                ALICE,
                made.card(),
                Call::Create { size: SIZE, flags }.encode(),
            )
        },
        keep: |_, _| {},
    },
    Operation {
        name: "flink",
        ask: |rig, made| {
            let handle = made.handle;
            rig.begin(ALICE, made.card(), Call::Flink { handle }.encode())
        },
        keep: |made, value| made.name = value as u32,
    },
    Operation {
        name: "open by name",
        ask: |rig, made| {
            let name = made.name;
            rig.begin(ALICE, made.card(), Call::Open { name }.encode())
        },
        keep: |_, _| {},
    },
    Operation {
        name: "fake offset",
        ask: |rig, made| {
            let handle = made.handle;
            rig.begin(ALICE, made.card(), Call::Map { handle }.encode())
        },
        keep: |made, value| made.offset = value,
    },
    Operation {
        name: "map through the node",
        ask: |rig, made| map(rig, made.card(), made.offset, SIZE),
        keep: |_, _| {},
    },
    Operation {
        name: "export",
        ask: |rig, made| path(rig, ALICE, made.card(), Opcode::Dup, "handle/1"),
        keep: |made, value| made.object = made.file(value),
    },
    Operation {
        name: "import",
        ask: |rig, made| {
            let (node, object) = (made.render.unwrap(), made.object());
            let [number, ..] = Call::Import.encode();
            let args = [node.raw(), 1 << 63, 0, number, 0, object.raw()];
            rig.send(BOB, Opcode::Call, SqeFlags::MULTIPLE_IDS, args)
        },
        keep: |_, _| {},
    },
    Operation {
        name: "map the object",
        ask: |rig, made| map(rig, made.object(), PAGE, PAGE),
        keep: |_, _| {},
    },
    Operation {
        name: "write to the object",
        ask: |rig, made| bytes(rig, made, Opcode::Write),
        keep: |_, _| {},
    },
    Operation {
        name: "read from the object",
        ask: |rig, made| bytes(rig, made, Opcode::Read),
        keep: |_, _| {},
    },
    Operation {
        name: "unmap a part",
        ask: |rig, made| {
            let args = [made.card().raw(), PAGE, 0, made.offset + PAGE, 0, 0];
            rig.send(ALICE, Opcode::Munmap, SqeFlags::empty(), args)
        },
        keep: |_, _| {},
    },
    Operation {
        name: "have pages taken over",
        ask: |rig, made| {
            let taking = Taking::New {
                address: START,
                pages: 2,
                read_only: false,
            };
            let tag = rig.send_fds(ALICE, made.card(), taking.encode().unwrap(), 1);
            // The worker is never the one that fails here: that is tried elsewhere.
            if rig.world.borrow().is_taking() {
                rig.world.borrow_mut().finish_taking(None);
                rig.kick();
            }
            tag
        },
        keep: |_, _| {},
    },
    Operation {
        name: "claim them",
        ask: |rig, made| {
            let call = Call::Userptr {
                address: START,
                pages: 2,
                flags: UserptrFlags::empty(),
            };
            rig.begin(ALICE, made.card(), call.encode())
        },
        keep: |made, value| made.user_offset = Claimed::unpack(value).offset,
    },
    Operation {
        name: "map them again",
        ask: |rig, made| map(rig, made.card(), made.user_offset, 2 * PAGE),
        keep: |_, _| {},
    },
    Operation {
        name: "close a handle",
        ask: |rig, made| {
            let handle = made.handle;
            rig.begin(ALICE, made.card(), Call::Close { handle }.encode())
        },
        keep: |_, _| {},
    },
];

/// A rig on which the first `done` operations of the script have been done.
fn played(done: usize) -> (Rig, Made) {
    let mut rig = Rig::new();
    rig.world.borrow_mut().takes_user_pages = true;
    let mut made = Made::default();
    for operation in &SCRIPT[..done] {
        let tag = (operation.ask)(&mut rig, &mut made);
        finish(&mut rig, &mut made, operation, tag);
    }
    (rig, made)
}

/// The operation has worked.
fn finish(rig: &mut Rig, made: &mut Made, operation: &Operation, tag: Tag) {
    match rig.answer(tag) {
        Some(Answer::Value(value)) => (operation.keep)(made, value),
        Some(Answer::File { id, .. }) => (operation.keep)(made, id.raw()),
        other => panic!("{}: {other:?}", operation.name),
    }
}

/// All that anybody can see of what the server holds, and all that the platform knows of.
fn seen(rig: &mut Rig) -> String {
    let mut seen = String::new();
    for text in ["stats", "objects"] {
        seen += &rig.text(ROOT, text);
    }
    let world = rig.world.borrow();
    seen += &format!("{:?} {:?}", world.live, world.user_sets);
    seen += &format!(
        "{} {} {}",
        world.fds.len(),
        world.taking.len(),
        rig.executor.waiting()
    );
    seen
}

/// Everything is closed, and nothing is left.
fn end(mut rig: Rig, made: Made) {
    for file in made.files {
        rig.close(file);
    }
    let text = rig.text(ROOT, "stats");
    for key in [
        "opens",
        "objects",
        "handles",
        "object-fds",
        "names",
        "memory-pages",
        "mapped-pages",
        "userptr-pages",
        "userptr-ranges",
    ] {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        assert_eq!(line.map(str::trim), Some("0"), "{key}:\n{text}");
    }
    let world = rig.world.borrow();
    assert!(world.live.is_empty() && world.user_sets.is_empty());
    assert!(world.fds.is_empty() && world.taking.is_empty());
}

/// Tries operation `index` with the platform's answer number `nth` failing; `None` where it does
/// not ask so often.
fn failing(index: usize, nth: usize, failure: Failure) -> Option<(Rig, Made, String, Tag)> {
    let (mut rig, mut made) = played(index);
    let before = seen(&mut rig);
    rig.world.borrow_mut().fails = Some((nth, failure));
    let tag = (SCRIPT[index].ask)(&mut rig, &mut made);
    let has_failed = rig.world.borrow_mut().fails.take().is_none();
    if !has_failed {
        finish(&mut rig, &mut made, &SCRIPT[index], tag);
        end(rig, made);
        return None;
    }
    Some((rig, made, before, tag))
}

/// The operation works, now that nothing fails.
fn again(mut rig: Rig, mut made: Made, operation: &Operation) {
    let tag = (operation.ask)(&mut rig, &mut made);
    finish(&mut rig, &mut made, operation, tag);
    end(rig, made);
}

#[test]
fn an_operation_that_fails_at_any_point_changes_nothing() {
    let mut failed = 0;
    for (index, operation) in SCRIPT.iter().enumerate() {
        for failure in [Failure::Exhausted, Failure::Broken] {
            for nth in 0.. {
                let Some((mut rig, made, before, tag)) = failing(index, nth, failure) else {
                    break;
                };
                failed += 1;
                let name = operation.name;
                let answer = rig.answer(tag);
                assert!(
                    matches!(answer, Some(Answer::Error(_) | Answer::Unwanted(..))),
                    "{name}: {answer:?}"
                );
                assert_eq!(seen(&mut rig), before, "{name}, {failure:?} at {nth}");
                again(rig, made, operation);
            }
        }
    }
    assert!(failed >= 20, "{failed} points of failure");
}

#[test]
fn an_operation_that_waits_at_any_point_can_be_cancelled() {
    let mut waited = 0;
    for (index, operation) in SCRIPT.iter().enumerate() {
        for nth in 0.. {
            let Some((mut rig, made, before, tag)) = failing(index, nth, Failure::Later) else {
                break;
            };
            if rig.answer(tag).is_some() {
                // Of something that cannot be waited for.
                continue;
            }
            waited += 1;
            rig.cancel(tag);
            let cancelled = Answer::Error(Errno(ECANCELED));
            assert_eq!(rig.answer(tag), Some(cancelled), "{}", operation.name);
            assert_eq!(seen(&mut rig), before, "{}", operation.name);
            // What comes late does nothing.
            rig.world.borrow_mut().finish_all();
            rig.kick();
            assert_eq!(rig.answer(tag), None);
            assert_eq!(seen(&mut rig), before, "{}", operation.name);
            again(rig, made, operation);
        }
    }
    assert!(waited > 3, "{waited} points of waiting");
}

#[test]
fn an_operation_that_waits_at_any_point_can_outlive_its_file_or_go_on() {
    for (index, operation) in SCRIPT.iter().enumerate() {
        for nth in 0.. {
            let Some((mut rig, mut made, _, tag)) = failing(index, nth, Failure::Later) else {
                break;
            };
            if let Some(answer) = rig.answer(tag) {
                assert!(
                    matches!(answer, Answer::Error(_) | Answer::Unwanted(..)),
                    "{answer:?}"
                );
                continue;
            }
            rig.world.borrow_mut().finish_all();
            rig.kick();
            finish(&mut rig, &mut made, operation, tag);
            end(rig, made);

            let (mut rig, mut made, _, tag) = failing(index, nth, Failure::Later).unwrap();
            for file in made.files.drain(..) {
                rig.close(file);
            }
            let cancelled = Answer::Error(Errno(ECANCELED));
            assert_eq!(rig.answer(tag), Some(cancelled), "{}", operation.name);
            rig.world.borrow_mut().finish_all();
            rig.kick();
            end(rig, made);
        }
    }
}
