//! Clients' own pages, from the SQE to the platform and back: a platform that takes as long as the
//! test says, and a server that must leave nothing behind whatever happens meanwhile.

mod rig;

use gem::Limits;
use gem::units::{PageCount, Uid};
use gem::user::UserFault;
use gem_wire::drm;
use gem_wire::limit::Limit;
use gem_wire::native::{Call, CreateFlags, Features, Hello, Sized, VERSION};
use gem_wire::userptr::{Claimed, FIRST_OFFSET, Taking, UserptrFlags};
use gemd::answer::{Answer, Errno};
use gemd::fds::FdId;
use gemd::sqe::Tag;
use rig::{ALICE, ALICE_TOO, BOB, PAGE, ROOT, Rig};
use syscall::error::{
    E2BIG, EACCES, EAGAIN, EBADF, EBUSY, ECANCELED, EFAULT, EINVAL, EMFILE, ENODEV, ENOENT, ENOMEM,
    EOPNOTSUPP,
};
use syscall::flag::MapFlags;
use zerocopy::IntoBytes;

const START: u64 = 0x20_0000;
const PAGES: u64 = 3;

fn taking(start: u64, pages: u64) -> u64 {
    let read_only = false;
    let new = Taking::New {
        address: start,
        pages,
        read_only,
    };
    new.encode().unwrap()
}

fn again(start: u64, handle: u32) -> u64 {
    let address = start;
    Taking::Again { address, handle }.encode().unwrap()
}

fn userptr(start: u64, pages: u64, flags: UserptrFlags) -> Call {
    Call::Userptr {
        address: start,
        pages,
        flags,
    }
}

const PLAIN: Call = Call::Userptr {
    address: START,
    pages: PAGES,
    flags: UserptrFlags::empty(),
};

fn read_write() -> MapFlags {
    MapFlags::MAP_SHARED | MapFlags::PROT_READ | MapFlags::PROT_WRITE
}

/// A rig whose platform takes pages over, and a node of Alice's.
fn rig() -> (Rig, FdId) {
    let limits = Limits::for_memory(PageCount::new(1 << 20).unwrap());
    let mut rig = Rig::with_limits(limits);
    rig.world.borrow_mut().takes_user_pages = true;
    let card = rig.open(ALICE, "card0");
    rig.call(ALICE, card, Call::GetMagic).unwrap();
    (rig, card)
}

impl Rig {
    fn value(&mut self, key: &str) -> u64 {
        let text = self.text(ROOT, "stats");
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key}:")));
        found.expect(key).trim().parse().unwrap()
    }

    fn finish(&mut self, fault: Option<UserFault>) {
        self.world.borrow_mut().finish_taking(fault);
        self.kick();
    }

    /// Nothing of any client's pages is left anywhere.
    fn is_clean(&mut self) {
        assert_eq!(self.executor.waiting(), 0);
        for key in ["userptr-pages", "userptr-ranges", "objects", "mapped-pages"] {
            assert_eq!(self.value(key), 0, "{key}");
        }
        let world = self.world.borrow();
        assert!(world.fds.is_empty() && world.user_sets.is_empty());
        assert!(world.taking.is_empty());
    }

    /// Registers Alice's range and maps it again.
    fn hold(&mut self, card: FdId) -> Claimed {
        let tag = self.send_fds(ALICE, card, taking(START, PAGES), 1);
        assert_eq!(self.answer(tag), None, "it waits");
        self.finish(None);
        assert_eq!(self.now(tag), Ok(0));
        let claimed = Claimed::unpack(self.call(ALICE, card, PLAIN).unwrap());
        let mapped = self.map(ALICE, card, claimed.offset, PAGES * PAGE, read_write());
        mapped.unwrap();
        claimed
    }

    fn errno(&mut self, tag: Tag) -> i32 {
        match self.answer(tag) {
            Some(Answer::Error(Errno(errno)) | Answer::Unwanted(Errno(errno), _)) => errno,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_range_is_taken_claimed_held_and_given_back() {
    let (mut rig, card) = rig();
    let hello = rig.call(ALICE, card, Call::Hello { version: VERSION });
    let features = Hello::unpack(hello.unwrap()).features;
    assert!(features.contains(Features::USERPTR));
    let claimed = rig.hold(card);
    assert_eq!(claimed.offset, FIRST_OFFSET);
    assert_eq!(rig.value("userptr-pages"), PAGES);
    assert_eq!(rig.value("userptr-ranges"), 1);
    assert_eq!(rig.value("memory-pages"), 0);
    assert_eq!(rig.world.borrow().user_sets.len(), 1);
    assert!(rig.world.borrow().fds.is_empty());
    rig.unmap(ALICE, card, claimed.offset + PAGE, PAGE);
    assert!(rig.world.borrow().user_sets.is_empty(), "before the answer");
    let handle = claimed.handle;
    let tag = rig.send_fds(ALICE, card, again(START, handle), 1);
    assert_eq!(rig.errno(tag), EBUSY, "two are mapped yet");
    rig.unmap(ALICE, card, claimed.offset, PAGES * PAGE);
    assert_eq!(rig.value("userptr-pages"), 0);
    // Once more, with the same handle.
    let map = Call::Map { handle };
    assert_eq!(rig.call(ALICE, card, map), Err(ENODEV));
    let tag = rig.send_fds(ALICE, card, again(START, handle), 1);
    assert_eq!(rig.call(ALICE, card, map), Err(ENODEV), "not there yet");
    rig.finish(None);
    assert_eq!(rig.now(tag), Ok(0));
    assert_eq!(rig.call(ALICE, card, map), Ok(claimed.offset));
    let size = PAGES * PAGE;
    rig.map(ALICE, card, claimed.offset, size, read_write())
        .unwrap();
    rig.call(ALICE, card, Call::Close { handle }).unwrap();
    assert!(rig.world.borrow().user_sets.is_empty());
    assert_eq!(rig.value("userptr-ranges"), 1, "it is mapped");
    rig.close(card);
    rig.is_clean();
}

#[test]
fn the_drm_call_claims_as_well() {
    let (mut rig, card) = rig();
    let tag = rig.send_fds(ALICE, card, taking(START, PAGES), 1);
    rig.finish(None);
    assert_eq!(rig.now(tag), Ok(0));
    let mut asked = drm::Userptr {
        user_ptr: START,
        user_size: PAGES * PAGE,
        flags: 2,
        handle: 0,
    };
    let number = drm::I915_GEM_USERPTR;
    rig.drm(ALICE, card, number, asked.as_mut_bytes()).unwrap();
    let handle = asked.handle;
    assert_eq!(
        rig.call(ALICE, card, Call::Map { handle }),
        Ok(FIRST_OFFSET)
    );
    rig.close(card);
    rig.is_clean();
}

#[test]
fn what_linux_refuses_is_refused_alike_and_in_the_same_order() {
    let (mut rig, card) = rig();
    let huge = (1 << 52) - 1;
    for (start, size, flags, errno) in [
        (START, PAGE, 4, EINVAL),
        (START, PAGE, 0x80, EINVAL),
        (START, 0, 0, EINVAL),
        (START + 1, PAGE, 0, EINVAL),
        (START, PAGE + 1, 0, EINVAL),
        (START, PAGE - 1, 1 << 31, EINVAL),
        (1 << 47, PAGE, 0, EFAULT),
        ((1 << 47) - PAGE, 2 * PAGE, 0, EFAULT),
        (!0xfff, PAGE, 0, EFAULT),
        (0xffff_8000_0000_0000, PAGE, 1, EFAULT),
        (START, huge * PAGE, 0, EFAULT),
        (START, PAGE, 1 << 31, ENODEV),
        (START, PAGE, 0, EBADF),
    ] {
        let mut asked = drm::Userptr {
            user_ptr: start,
            user_size: size,
            flags,
            handle: 0,
        };
        let number = drm::I915_GEM_USERPTR;
        let refused = rig.drm(ALICE, card, number, asked.as_mut_bytes());
        assert_eq!(refused, Err(errno), "{start:#x} {size:#x} {flags:#x}");
    }
    for (start, pages, flags, errno) in [
        (START, 1 << 55, UserptrFlags::empty(), E2BIG),
        (START, 0, UserptrFlags::empty(), EINVAL),
        (START, 1, UserptrFlags::UNSYNCHRONIZED, ENODEV),
        (START, 1, UserptrFlags::READ_ONLY, EBADF),
    ] {
        let refused = rig.call(ALICE, card, userptr(start, pages, flags));
        assert_eq!(refused, Err(errno));
    }
    // A claim is for what was taken, and for who had it taken.
    let tag = rig.send_fds(ALICE, card, taking(START, PAGES), 1);
    assert_eq!(rig.call(ALICE, card, PLAIN), Err(EBADF), "not there yet");
    rig.finish(None);
    assert_eq!(rig.now(tag), Ok(0));
    for wrong in [
        userptr(START + PAGE, PAGES, UserptrFlags::empty()),
        userptr(START, PAGES - 1, UserptrFlags::empty()),
        userptr(START, PAGES, UserptrFlags::READ_ONLY),
    ] {
        assert_eq!(rig.call(ALICE, card, wrong), Err(EBADF));
    }
    assert_eq!(rig.call(ALICE_TOO, card, PLAIN), Err(EBADF));
    let claimed = Claimed::unpack(rig.call(ALICE, card, PLAIN).unwrap());
    assert_eq!(rig.call(ALICE, card, PLAIN), Err(EBADF), "once");
    let (offset, size) = (claimed.offset, PAGES * PAGE);
    let mapped = rig.map(ALICE_TOO, card, offset, size, read_write());
    assert_eq!(mapped, Err(ENODEV));
    let mapped = rig.map(ALICE, card, offset, size - PAGE, read_write());
    assert_eq!(mapped, Err(EINVAL));
    let path = format!("handle/{}", claimed.handle);
    assert_eq!(rig.dup(ALICE, card, &path), Err(EINVAL), "no export");
    rig.close(card);
    rig.is_clean();
}

#[test]
fn a_machine_that_takes_no_pages_says_so() {
    let mut rig = Rig::new();
    let card = rig.open(ALICE, "card0");
    let hello = rig.call(ALICE, card, Call::Hello { version: VERSION });
    let features = Hello::unpack(hello.unwrap()).features;
    assert!(!features.contains(Features::USERPTR));
    assert_eq!(rig.call(ALICE, card, PLAIN), Err(ENODEV));
    let tag = rig.send_fds(ALICE, card, taking(START, PAGES), 1);
    assert_eq!(rig.errno(tag), EOPNOTSUPP);
    rig.close(card);
    rig.is_clean();
}

#[test]
fn fds_that_nobody_wants_stay_in_the_request_and_are_closed_elsewhere() {
    let (mut rig, card) = rig();
    let flags = CreateFlags::empty();
    let made = rig.call(ALICE, card, Call::Create { size: PAGE, flags });
    let handle = Sized::unpack(made.unwrap()).handle;
    let object = rig.dup(ALICE, card, &format!("handle/{handle}")).unwrap();
    let stats = rig.open_at(ALICE, rig.root, "stats", 0).unwrap();
    let read_only = rig.open_at(ALICE, rig.root, "card0", syscall::flag::O_RDONLY);
    let read_only = read_only.unwrap();
    rig.call(ALICE, read_only, Call::GetMagic).unwrap();
    let fresh = rig.open(ALICE, "card0");
    let good = taking(START, PAGES);
    for (fd, word, count, errno) in [
        (object, good, 1, EOPNOTSUPP),
        (stats, good, 1, EOPNOTSUPP),
        (rig.root, good, 5, EOPNOTSUPP),
        (FdId::from_raw(1 << 40), good, 1, EBADF),
        (fresh, good, 1, EACCES),
        (read_only, good, 1, EACCES),
        (card, good, 2, EINVAL),
        (card, good, 0, EINVAL),
        (card, 0, 1, EINVAL),
        (card, again(START, 0), 1, ENOENT),
        (card, again(START, 77), 1, ENOENT),
        (card, again(START, handle), 1, EINVAL),
        (card, taking((1 << 47) - PAGE, 2), 1, EFAULT),
    ] {
        let tag = rig.send_fds(ALICE, fd, word, count);
        let unwanted = Answer::Unwanted(Errno(errno), Uid(1000));
        assert_eq!(rig.answer(tag), Some(unwanted), "{word:#x} {count}");
        assert_eq!(rig.world.borrow().last_fd, 0);
    }
    for fd in [card, object, read_only, fresh] {
        rig.close(fd);
    }
    rig.is_clean();
}

#[test]
fn what_the_platform_says_the_client_sees_and_nothing_is_left() {
    let (mut rig, card) = rig();
    for (fault, errno) in [
        (UserFault::Hole, EFAULT),
        (UserFault::Foreign, EFAULT),
        (UserFault::NotASpace, EBADF),
        (UserFault::NoMemory, ENOMEM),
        (UserFault::Unsupported, ENODEV),
        (UserFault::Failed, syscall::error::EIO),
    ] {
        let tag = rig.send_fds(ALICE, card, taking(START, PAGES), 1);
        let twice = rig.send_fds(ALICE, card, taking(START, PAGES), 1);
        assert_eq!(rig.errno(twice), EBUSY);
        rig.finish(Some(fault));
        assert_eq!(rig.errno(tag), errno);
        rig.is_clean();
    }
    let tags: Vec<Tag> = (0..4)
        .map(|number| rig.send_fds(ALICE, card, taking(number << 20, 1), 1))
        .collect();
    assert_eq!(rig.errno(tags[3]), EAGAIN, "the platform has enough to do");
    for &tag in &tags[..3] {
        rig.finish(None);
        assert_eq!(rig.now(tag), Ok(0));
    }
    rig.close(card);
    rig.is_clean();
}

/// What can end a request that waits.
#[derive(Clone, Copy, Debug)]
enum End {
    Cancel,
    Close,
    Revoke,
    Leave,
}

#[test]
fn a_registration_that_ends_early_is_undone_before_its_client_goes_on() {
    for done in [false, true] {
        for end in [End::Cancel, End::Close, End::Revoke, End::Leave] {
            let (mut rig, card) = rig();
            let tag = rig.send_fds(ALICE, card, taking(START, PAGES), 1);
            if done {
                // The worker has it, and the server has not heard of it.
                rig.world.borrow_mut().finish_taking(None);
            }
            match end {
                End::Cancel => rig.cancel(tag),
                End::Close => rig.close(card),
                End::Revoke => {
                    let root = rig.open(ROOT, "renderD128");
                    rig.call(ROOT, root, Call::Revoke { client: 1 }).unwrap();
                    rig.close(root);
                }
                End::Leave => rig.executor.dismiss_all(&mut rig.answers),
            }
            // A second reason changes nothing.
            rig.cancel(tag);
            let (errno, at_once) = match end {
                End::Cancel => (ECANCELED, false),
                End::Revoke => (ENODEV, false),
                // Nobody is there who could go on.
                End::Close => (ECANCELED, true),
                // And here the platform finishes before it goes.
                End::Leave => (ENODEV, true),
            };
            if at_once {
                assert_eq!(rig.errno(tag), errno);
            } else {
                assert_eq!(rig.answer(tag), None, "{end:?}");
            }
            assert_eq!(rig.value("userptr-pages"), PAGES, "{end:?}: charged");
            let abandoned = |world: &rig::World| world.taking.values().all(|it| it.abandoned);
            assert!(abandoned(&rig.world.borrow()));
            rig.finish(None);
            if !at_once {
                let expected = if matches!(end, End::Revoke) {
                    ECANCELED
                } else {
                    errno
                };
                assert_eq!(rig.errno(tag), expected, "{end:?}");
            }
            assert_eq!(rig.value("userptr-pages"), 0, "{end:?}: undone");
            rig.close(card);
            rig.is_clean();
        }
    }
}

#[test]
fn a_client_that_dies_while_its_pages_are_put_back_is_not_waited_for() {
    let (mut rig, card) = rig();
    let tag = rig.send_fds(ALICE, card, taking(START, PAGES), 1);
    rig.cancel(tag);
    rig.close(card);
    assert_eq!(rig.errno(tag), ECANCELED);
    assert_eq!(rig.value("userptr-pages"), PAGES);
    rig.finish(None);
    rig.is_clean();
}

#[test]
fn a_handle_that_is_closed_meanwhile_has_its_acquisition_undone() {
    let (mut rig, card) = rig();
    let Claimed { handle, offset } = rig.hold(card);
    rig.unmap(ALICE, card, offset, PAGES * PAGE);
    let tag = rig.send_fds(ALICE, card, again(START, handle), 1);
    rig.call(ALICE, card, Call::Close { handle }).unwrap();
    assert_eq!(rig.value("objects"), 1, "the platform is at it");
    rig.finish(None);
    assert_eq!(rig.answer(tag), None, "not before it is undone");
    assert_eq!(rig.value("userptr-pages"), PAGES);
    rig.finish(None);
    assert_eq!(rig.errno(tag), EBADF);
    rig.is_clean();
}

#[test]
fn limits_hold_before_anything_is_taken() {
    let (mut rig, card) = rig();
    let root = rig.open(ROOT, "renderD128");
    let limit = |rig: &mut Rig, limit, value| {
        rig.call(ROOT, root, Call::SetLimit { limit, value })
            .unwrap();
    };
    limit(&mut rig, Limit::UserPagesPerUid, 2);
    let tag = rig.send_fds(ALICE, card, taking(START, PAGES), 1);
    assert_eq!(rig.errno(tag), ENOMEM);
    limit(&mut rig, Limit::UserPagesPerUid, 100);
    limit(&mut rig, Limit::UserRangesPerUid, 1);
    let first = rig.send_fds(ALICE, card, taking(START, PAGES), 1);
    let second = rig.send_fds(ALICE, card, taking(0, 1), 1);
    assert_eq!(rig.errno(second), EMFILE);
    let bobs = rig.open(BOB, "card0");
    rig.call(BOB, bobs, Call::GetMagic).unwrap();
    let third = rig.send_fds(BOB, bobs, taking(START, PAGES), 1);
    assert_eq!(rig.answer(third), None, "another user's");
    for tag in [first, third] {
        rig.finish(None);
        assert_eq!(rig.now(tag), Ok(0));
    }
    limit(&mut rig, Limit::UserRangesPerUid, 100);
    limit(&mut rig, Limit::WaitingPerOpen, 1);
    let first = rig.send_fds(ALICE, card, taking(0, 1), 1);
    let second = rig.send_fds(ALICE, card, taking(PAGE, 1), 1);
    assert_eq!(rig.errno(second), EMFILE);
    assert_eq!(rig.world.borrow().taking.len(), 1, "nothing was begun");
    rig.finish(None);
    assert_eq!(rig.now(first), Ok(0));
    // What was mapped may be mapped again, whatever the limit on mappings.
    limit(&mut rig, Limit::MappedPerUid, 1);
    limit(&mut rig, Limit::MappedObjectsPerUid, 1);
    let claimed = Claimed::unpack(rig.call(ALICE, card, PLAIN).unwrap());
    let mapped = rig.map(ALICE, card, claimed.offset, PAGES * PAGE, read_write());
    mapped.unwrap();
    for fd in [card, bobs, root] {
        rig.close(fd);
    }
    rig.is_clean();
}

#[test]
fn a_fork_maps_again_what_is_held_and_completes_nothing() {
    let (mut rig, card) = rig();
    let fork = read_write() | MapFlags::MAP_FIXED_NOREPLACE;
    let tag = rig.send_fds(ALICE, card, taking(START, PAGES), 1);
    rig.finish(None);
    assert_eq!(rig.now(tag), Ok(0));
    let claimed = Claimed::unpack(rig.call(ALICE, card, PLAIN).unwrap());
    let (offset, size) = (claimed.offset, PAGES * PAGE);
    assert_eq!(rig.map(ALICE, card, offset, size, fork), Err(EACCES));
    let window = rig.map(ALICE, card, offset, size, read_write()).unwrap();
    // The whole, or a part: by the parent, before there is a child.
    assert_eq!(rig.map(ALICE, card, offset, size, fork), Ok(window));
    let part = rig.map(ALICE, card, offset + PAGE, PAGE, fork);
    assert_eq!(part, Ok(window + PAGE));
    assert_eq!(rig.value("mapped-pages"), 2 * PAGES + 1);
    rig.unmap(ALICE_TOO, card, offset + PAGE, PAGE);
    rig.unmap(ALICE_TOO, card, offset, size);
    assert_eq!(rig.world.borrow().user_sets.len(), 1, "the child's alone");
    rig.unmap(ALICE, card, offset, PAGE);
    assert!(rig.world.borrow().user_sets.is_empty());
    // What went back is nothing of the server's to map.
    assert_eq!(rig.map(ALICE, card, offset, size, fork), Err(ENODEV));
    rig.close(card);
    rig.is_clean();
}

#[test]
fn a_range_that_is_slow_to_take_holds_up_nobody() {
    let (mut rig, card) = rig();
    let tag = rig.send_fds(ALICE, card, taking(START, PAGES), 1);
    let bobs = rig.open(BOB, "card0");
    for client in [ALICE, BOB] {
        let fd = if client == BOB { bobs } else { card };
        let flags = CreateFlags::empty();
        let made = rig.call(client, fd, Call::Create { size: 1, flags });
        let handle = Sized::unpack(made.unwrap()).handle;
        rig.call(client, fd, Call::Close { handle }).unwrap();
    }
    assert_eq!(rig.answer(tag), None);
    rig.finish(None);
    assert_eq!(rig.now(tag), Ok(0));
    rig.close(card);
    rig.close(bobs);
    rig.is_clean();
}

#[test]
fn a_window_that_is_not_there_yet_is_waited_for() {
    let (mut rig, card) = rig();
    let tag = rig.send_fds(ALICE, card, taking(START, PAGES), 1);
    rig.finish(None);
    assert_eq!(rig.now(tag), Ok(0));
    let claimed = Claimed::unpack(rig.call(ALICE, card, PLAIN).unwrap());
    rig.world.borrow_mut().waits = 1;
    let flags = read_write().bits() as u64;
    let args = [card.raw(), PAGES * PAGE, flags, claimed.offset, 0, 0];
    let opcode = syscall::schemev2::Opcode::MmapPrep;
    let none = syscall::schemev2::SqeFlags::empty();
    let tag = rig.send(ALICE, opcode, none, args);
    assert_eq!(rig.answer(tag), None);
    // Meanwhile it is closed: the mapping comes to nothing.
    let handle = claimed.handle;
    rig.call(ALICE, card, Call::Close { handle }).unwrap();
    rig.world.borrow_mut().finish_all();
    rig.kick();
    assert_eq!(rig.errno(tag), EINVAL);
    rig.close(card);
    rig.is_clean();
}
