//! Whoever takes pages of its own back is answered when the daemon has let go of them: a platform
//! whose worker takes as long for that as the test says.

mod rig;

use gem::Limits;
use gem::units::PageCount;
use gem_wire::native::Call;
use gem_wire::userptr::{Claimed, Taking, UserptrFlags};
use gemd::answer::Answer;
use gemd::fds::FdId;
use gemd::sqe::Tag;
use rig::{ALICE, PAGE, ROOT, Rig};
use syscall::error::EMFILE;
use syscall::flag::MapFlags;
use syscall::schemev2::{Opcode, SqeFlags};

const START: u64 = 0x20_0000;
const PAGES: u64 = 3;

/// A node of Alice's, on a platform that takes pages over at once and lets go of them slowly.
fn rig() -> (Rig, FdId) {
    let mut limits = Limits::for_memory(PageCount::new(1 << 20).unwrap());
    limits.waiting_per_open = 2;
    let mut rig = Rig::with_limits(limits);
    rig.world.borrow_mut().takes_user_pages = true;
    rig.world.borrow_mut().releases_wait = true;
    let card = rig.open(ALICE, "card0");
    rig.call(ALICE, card, Call::GetMagic).unwrap();
    (rig, card)
}

impl Rig {
    /// Registers a range of Alice's and maps it again.
    fn hold(&mut self, card: FdId, start: u64) -> Claimed {
        let (address, pages, read_only) = (start, PAGES, false);
        let new = Taking::New {
            address,
            pages,
            read_only,
        };
        let tag = self.send_fds(ALICE, card, new.encode().unwrap(), 1);
        self.world.borrow_mut().finish_taking(None);
        self.kick();
        assert_eq!(self.now(tag), Ok(0));
        let flags = UserptrFlags::empty();
        let claim = Call::Userptr {
            address,
            pages,
            flags,
        };
        let claimed = Claimed::unpack(self.call(ALICE, card, claim).unwrap());
        let flags = MapFlags::MAP_SHARED | MapFlags::PROT_READ | MapFlags::PROT_WRITE;
        self.map(ALICE, card, claimed.offset, PAGES * PAGE, flags)
            .unwrap();
        claimed
    }

    fn begin_unmap(&mut self, card: FdId, offset: u64, pages: u64) -> Tag {
        let args = [card.raw(), pages * PAGE, 0, offset, 0, 0];
        self.send(ALICE, Opcode::Munmap, SqeFlags::empty(), args)
    }

    /// The worker has let go of everything.
    fn let_go(&mut self) {
        self.world.borrow_mut().finish_all();
        self.kick();
    }
}

#[test]
fn an_unmapping_returns_when_the_daemon_has_let_go() {
    let (mut rig, card) = rig();
    let claimed = rig.hold(card, START);
    let tag = rig.begin_unmap(card, claimed.offset, 1);
    rig.kick();
    assert_eq!(rig.answer(tag), None);
    // What is unmapped now takes nothing back, and others are served meanwhile.
    let rest = rig.begin_unmap(card, claimed.offset + PAGE, PAGES - 1);
    assert_eq!(rig.now(rest), Ok(0));
    rig.call(ALICE, card, Call::GetMagic).unwrap();
    rig.let_go();
    assert_eq!(rig.now(tag), Ok(0));
    assert_eq!(rig.executor.waiting(), 0);
}

#[test]
fn so_do_the_closing_of_a_handle_and_a_revocation() {
    let (mut rig, card) = rig();
    let handle = rig.hold(card, START).handle;
    let close = rig.begin(ALICE, card, Call::Close { handle }.encode());
    assert_eq!(rig.answer(close), None);
    rig.let_go();
    assert_eq!(rig.now(close), Ok(0));

    // Two at once: both are waited for.
    rig.hold(card, 2 * START);
    rig.hold(card, 3 * START);
    let root = rig.open(ROOT, "card0");
    let revoke = rig.begin(ROOT, root, Call::Revoke { client: 1 }.encode());
    assert_eq!(rig.answer(revoke), None);
    let second = rig.world.borrow_mut().begun.pop().unwrap();
    rig.let_go();
    assert_eq!(rig.answer(revoke), None, "one is not");
    rig.world.borrow_mut().begun.push(second);
    rig.let_go();
    assert_eq!(rig.now(revoke), Ok(0));
    assert_eq!(rig.executor.waiting(), 0);
}

#[test]
fn neither_a_signal_nor_a_limit_nor_a_revocation_answers_it_before() {
    let (mut rig, card) = rig();
    let first = rig.hold(card, START);
    let second = rig.hold(card, 2 * START);
    let third = rig.hold(card, 3 * START);
    let unmap = |rig: &mut Rig, claimed: Claimed| rig.begin_unmap(card, claimed.offset, PAGES);
    let tags = [first, second, third].map(|claimed| unmap(&mut rig, claimed));
    rig.cancel(tags[0]);
    for tag in tags {
        assert_eq!(
            rig.answer(tag),
            None,
            "two may wait, and what is done has to"
        );
    }
    let root = rig.open(ROOT, "card0");
    assert_eq!(rig.events(ALICE, card).unwrap().len(), 3);
    let mut bytes = [0; 4000];
    let read = rig.begin_read(ALICE, card, &mut bytes, 0);
    assert_eq!(rig.now(read), Err(EMFILE), "what is not may not");
    // Its process ends meanwhile.
    rig.world.borrow_mut().users.remove(&ALICE);
    rig.call(ROOT, root, Call::Revoke { client: 1 }).unwrap();
    for tag in tags {
        assert_eq!(rig.answer(tag), None);
    }
    rig.let_go();
    for tag in tags {
        assert_eq!(rig.now(tag), Ok(0));
    }
    assert_eq!(rig.executor.waiting(), 0);
}

#[test]
fn nobody_waits_for_what_goes_with_the_node() {
    let (mut rig, card) = rig();
    let claimed = rig.hold(card, START);
    let other = rig.hold(card, 2 * START);
    let tag = rig.begin_unmap(card, claimed.offset, PAGES);
    rig.close(card);
    assert!(matches!(rig.answer(tag), Some(Answer::Error(_))));
    assert!(other.handle > 0 && rig.world.borrow().user_sets.is_empty());
    // Whoever comes next is not made to wait for it.
    let card = rig.open(ALICE, "card0");
    rig.call(ALICE, card, Call::GetMagic).unwrap();
    rig.let_go();
    assert_eq!(rig.executor.waiting(), 0);
    assert!(rig.world.borrow().begun.is_empty());
}
