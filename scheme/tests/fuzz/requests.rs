//! Raw SQEs with raw payloads against the whole server: whatever a client can make the kernel
//! send, the daemon answers exactly once and lives; when all files are closed nothing is left.
//!
//! The input is a run of records: opcode, flags, file, payload length, caller and a hint byte,
//! then five words, then the payload. Files are chosen among those that are open (so that the
//! fuzzer gets past EBADF) or taken from the word as they are. Between requests hardware begins and
//! ends its work, and opens are told of things.

use crate::rig::{ALICE, BOB, PAGE, ROOT, Rig};
use gem::units::{Handle, PageCount};
use gem::user::UserFault;
use gem::{ObjectId, Pressure};
use gem_wire::native::{Call, CreateFlags};
use gemd::answer::Answer;
use gemd::fds::FdId;
use syscall::schemev2::{Opcode, SqeFlags};

const CALLERS: [u64; 4] = [ROOT, ALICE, BOB, 999];

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn word(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

/// Sends all these requests, and then closes everything.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut rig = Rig::new();
    rig.world.borrow_mut().takes_user_pages = true;
    let mut files: Vec<FdId> = vec![rig.root];
    for (caller, path) in [(ALICE, "card0"), (BOB, "card0"), (BOB, "renderD128")] {
        let node = rig.open(caller, path);
        let flags = CreateFlags::empty();
        let size = 3 * PAGE;
        rig.call(caller, node, Call::Create { size, flags })
            .unwrap();
        files.push(node);
        files.push(rig.dup(caller, node, "handle/1").unwrap());
    }
    let mut uses = Vec::new();
    while record(&mut rig, &mut input, &mut files, &mut uses).is_some() {}

    for object in uses {
        rig.executor.with_device(|device| device.end_use(object));
    }
    let mut answers = Vec::new();
    rig.executor.dismiss_all(&mut answers);
    for fd in files {
        rig.close(fd);
    }
    finish_taking(&mut rig, None);
    assert_eq!(rig.executor.waiting(), 0);
    let stats = rig.executor.with_device(|device| device.stats());
    assert!(stats.user_pages.is_zero(), "{stats:?}");
    let world = rig.world.borrow();
    assert!(world.live.is_empty(), "pages are left");
    assert!(world.user_sets.is_empty(), "a client's own pages are left");
    assert!(world.fds.is_empty(), "fds are left");
}

/// The worker does all that it has to do.
fn finish_taking(rig: &mut Rig, fault: Option<UserFault>) {
    while rig.world.borrow().is_taking() {
        rig.world.borrow_mut().finish_taking(fault);
    }
    rig.kick();
}

/// Something that no client has asked for.
fn happen(rig: &mut Rig, what: u8, uses: &mut Vec<ObjectId>) {
    let client = u64::from(what >> 4);
    let handle = Handle::MIN;
    rig.executor.with_device(|device| {
        let open = device.client(client);
        match (what % 6, open) {
            (0, _) => device.announce_limit(u32::from(what >> 4), what.into()),
            (1, _) => device.announce_pressure(Pressure::Low, PageCount::ZERO),
            (2, Some(open)) => device.post_evicted(open, handle),
            (3, Some(open)) => device.post_revoked(open, handle, None),
            (4, Some(open)) => uses.extend(device.begin_use(open, handle)),
            _ => {
                if let Some(object) = uses.pop() {
                    device.end_use(object);
                }
            }
        }
    });
}

/// Nobody is told of a file twice without having looked, and of none that never was.
fn check_told(rig: &mut Rig, files: &[FdId]) {
    let mut told = rig.readable();
    assert!(told.iter().all(|fd| files.contains(fd)));
    told.sort_unstable();
    assert!(told.is_sorted_by(|a, b| a < b), "told twice");
}

fn record(
    rig: &mut Rig,
    input: &mut Input<'_>,
    files: &mut Vec<FdId>,
    uses: &mut Vec<ObjectId>,
) -> Option<()> {
    let opcode = Opcode::try_from_raw(input.byte()?)?;
    let flags = SqeFlags::from_bits_truncate(input.byte()?);
    let file = input.byte()?;
    let length = usize::from(input.byte()?);
    let caller = CALLERS[usize::from(input.byte()? % 4)];
    let hint = input.byte()?;
    let mut args = [0; 6];
    for word in &mut args {
        *word = input.word()?;
    }
    let mut payload = input.take(length)?.to_vec();
    if hint & 1 == 0 {
        args[0] = files[usize::from(file) % files.len()].raw();
    }
    if hint & 2 == 0 {
        args[5] = files[usize::from(hint) % files.len()].raw();
    }
    if has_payload(opcode) {
        args[1] = payload.as_mut_ptr() as u64;
        args[2] = payload.len() as u64;
    }
    // The daemon's own file is no client's.
    if [args[0], args[5]].contains(&rig.control.raw()) {
        return Some(());
    }
    rig.world.borrow_mut().waits = usize::from(hint >> 6);

    if hint & 16 != 0 {
        happen(rig, file, uses);
    }
    let tag = rig.send(caller, opcode, flags, args);
    check_told(rig, files);
    if hint & 4 != 0 && rig.world.borrow().is_taking() {
        finish_taking(rig, (hint & 8 != 0).then_some(UserFault::Hole));
    }
    match rig.answer(tag) {
        Some(Answer::File { id, .. }) => files.push(id),
        // The kernel looks at the low half only.
        Some(Answer::Value(value)) => assert!(!(-4095..0).contains(&(value as i32)), "an errno?"),
        Some(Answer::Error(errno) | Answer::Unwanted(errno, _)) => {
            assert!((1..4096).contains(&errno.0))
        }
        None => {
            // It waits, or nobody waits for it. Its payload is about to go: cancel it.
            let waiting = rig.executor.waiting();
            rig.cancel(tag);
            let answered = rig.answer(tag).is_some();
            assert_eq!(rig.executor.waiting() + usize::from(answered), waiting);
        }
    }
    assert!(rig.answer(tag).is_none(), "answered twice");
    if opcode as u8 == Opcode::CloseMsg as u8 {
        files.retain(|fd| fd.raw() != args[0]);
        if files.is_empty() {
            return None;
        }
    }
    Some(())
}

/// What the kernel lends a payload with. Not the daemon's own list: where that one is longer, it takes
/// words of the input for an address, and that is to be noticed here.
fn has_payload(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::OpenAt
            | Opcode::Dup
            | Opcode::Read
            | Opcode::Write
            | Opcode::Fpath
            | Opcode::Fstat
            | Opcode::Getdents
            | Opcode::Call
            | Opcode::StdFsCall
    )
}
