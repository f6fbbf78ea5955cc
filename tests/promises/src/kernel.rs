//! Promises about requests that libredox never makes, and other programs can: the kernel's system
//! calls in any form.

use alloc::format;
use alloc::vec;

use gem_wire::drm::{self, GemFlink, GemOpen};
use gem_wire::native::{Call, Features};
use libredox::flag::{O_DIRECTORY, O_RDONLY};
use syscall::CallFlags;
use syscall::data::Stat;
use syscall::error::{
    EACCES, EBADF, EINVAL, EISDIR, ENAMETOOLONG, ENODEV, ENOENT, ENOSPC, EOPNOTSUPP,
};
use syscall::flag::{F_GETFL, MapFlags, StdFsCallKind};
use zerocopy::IntoBytes;

use crate::command::{Command, Foreign, KernelCall};
use crate::puppet::{PAGE, Puppet};
use crate::{World, count, promises};

promises![
    a_stat_buffer_that_is_too_short_is_refused_in_every_form,
    open_flags_that_do_not_exist_are_refused,
    map_flags_other_than_shared_are_refused,
    what_a_node_has_mapped_it_maps_again_as_a_fork_asks,
    operations_that_no_file_has_are_refused_on_every_file,
    reads_and_writes_stay_inside_the_object,
    a_refused_call_leaves_its_payload_alone,
    paths_are_taken_as_they_are,
];

/// One fd of each kind.
struct Files {
    card: u64,
    render: u64,
    object: u64,
    text: u64,
    root: u64,
}

impl Files {
    fn open(a: &mut Puppet) -> Self {
        let card = a.open("card0");
        let handle = a.create(card, 2 * PAGE).unwrap();
        Self {
            card,
            render: a.open("renderD128"),
            object: a.dup(card, &format!("handle/{handle}")).unwrap(),
            text: a.open_as("stats", O_RDONLY).unwrap(),
            root: a.open_as("", O_RDONLY | O_DIRECTORY).unwrap(),
        }
    }

    fn all(&self) -> [u64; 5] {
        [self.card, self.render, self.object, self.text, self.root]
    }
}

fn a_stat_buffer_that_is_too_short_is_refused_in_every_form(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let size = size_of::<Stat>() as u64;
    for fd in Files::open(&mut a).all() {
        for length in [0, 1, 8, size - 1] {
            assert_eq!(
                a.kernel(KernelCall::Fstat(fd, length)),
                Err(EINVAL),
                "{length} bytes"
            );
            let standard = Command::Call {
                fds: vec![fd],
                flags: (CallFlags::STD_FS | CallFlags::READ).bits() as u64,
                words: vec![StdFsCallKind::Fstat as u64, 0, 0],
                payload: vec![0; length as usize],
            };
            assert_eq!(a.tell(standard).map(|_| ()), Err(EINVAL), "{length} bytes");
        }
        assert!(a.kernel(KernelCall::Fstat(fd, size)).is_ok());
        assert_eq!(a.kernel(KernelCall::Fsync(fd)), Ok(0));
    }
}

fn open_flags_that_do_not_exist_are_refused(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let root = Files::open(&mut a).root;
    let before = count(&world.text("stats"), "files");
    for flags in [1 << 32, 1 << 63, u64::MAX] {
        let open = KernelCall::OpenAt(root, b"card0".to_vec(), flags);
        assert_eq!(a.kernel(open), Err(EINVAL), "{flags:#x}");
    }
    assert_eq!(count(&world.text("stats"), "files"), before);
    let read_write = (syscall::flag::O_RDWR | syscall::flag::O_NONBLOCK) as u64;
    assert!(
        a.kernel(KernelCall::OpenAt(root, b"card0".to_vec(), read_write))
            .is_ok()
    );
}

fn map_flags_other_than_shared_are_refused(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let files = Files::open(&mut a);
    let both = MapFlags::PROT_READ | MapFlags::PROT_WRITE;
    for flags in [
        both,
        both | MapFlags::MAP_PRIVATE,
        both | MapFlags::MAP_PRIVATE | MapFlags::MAP_SHARED,
        both | MapFlags::MAP_SHARED | MapFlags::PROT_EXEC,
        both | MapFlags::MAP_SHARED | MapFlags::from_bits_retain(1 << 8),
        both | MapFlags::MAP_SHARED | MapFlags::from_bits_retain(1 << 31),
    ] {
        let map = KernelCall::Fmap(files.object, 0, PAGE, flags.bits() as u64, 0);
        assert_eq!(a.kernel(map), Err(EINVAL), "{flags:?}");
    }
    let shared = (both | MapFlags::MAP_SHARED).bits() as u64;
    for (fd, offset, size, errno) in [
        (files.object, 1, PAGE, EINVAL),
        (files.object, 0, 0, EINVAL),
        (files.object, 0, u64::MAX - PAGE, EINVAL),
        (files.object, u64::MAX - PAGE + 1, PAGE, EINVAL),
        (files.card, 0, PAGE, EINVAL),
        (files.text, 0, PAGE, ENODEV),
        (files.root, 0, PAGE, ENODEV),
        (12345, 0, PAGE, EBADF),
    ] {
        let map = KernelCall::Fmap(fd, offset, size, shared, 0);
        assert_eq!(
            a.kernel(map),
            Err(errno),
            "fd {fd}, {size:#x} bytes from {offset:#x}"
        );
    }
    assert_eq!(count(&world.text("stats"), "mapped-pages"), 0);
    assert!(
        a.kernel(KernelCall::Fmap(files.object, 0, PAGE + 1, shared, 0))
            .is_ok()
    );
    assert_eq!(
        count(&world.text("stats"), "mapped-pages"),
        2,
        "whole pages"
    );
}

fn what_a_node_has_mapped_it_maps_again_as_a_fork_asks(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let handle = a.create(card, 8 * PAGE).unwrap();
    let offset = a.call(card, Call::Map { handle }).unwrap();
    // Room for it.
    let room = a.map_handle(card, handle, 8 * PAGE).unwrap();
    a.poke(room + 7 * PAGE, 7);
    a.unmap(room, 8 * PAGE).unwrap();
    let flags = MapFlags::PROT_READ
        | MapFlags::PROT_WRITE
        | MapFlags::MAP_SHARED
        | MapFlags::MAP_FIXED_NOREPLACE;
    let again = |a: &mut Puppet, offset, pages, at| {
        let flags = flags.bits() as u64;
        a.kernel(KernelCall::Fmap(card, offset, pages * PAGE, flags, at))
    };
    assert_eq!(again(&mut a, offset, 4, room), Ok(room), "with a handle");
    let mapped = a.unmap(room + PAGE, 3 * PAGE);
    assert_eq!(mapped.map(|_| ()), Ok(()));
    let tail = offset + 7 * PAGE;
    assert_eq!(again(&mut a, tail, 1, room + PAGE), Ok(room + PAGE));
    assert_eq!(a.peek(room + PAGE), 7);
    a.call(card, Call::Close { handle }).unwrap();
    assert_eq!(again(&mut a, tail, 1, room + 2 * PAGE), Ok(room + 2 * PAGE));
    assert_eq!(again(&mut a, tail, 2, room + 3 * PAGE), Err(EINVAL));
    let whole = a.map(card, offset, PAGE, crate::puppet::READ_WRITE);
    assert_eq!(whole, Err(EACCES), "no other mapping without a handle");
    assert_eq!(count(&world.text("stats"), "mapped-pages"), 3);
    a.unmap(room, 3 * PAGE).unwrap();
    assert_eq!(again(&mut a, tail, 1, room), Err(EINVAL), "it is gone");
}

fn operations_that_no_file_has_are_refused_on_every_file(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let files = Files::open(&mut a);
    let takes_spaces = a.features(files.card).contains(Features::USERPTR);
    for fd in files.all() {
        for operation in [
            Foreign::Chmod,
            Foreign::Chown,
            Foreign::Truncate,
            Foreign::Times,
            Foreign::StatVfs,
            Foreign::Receive,
            Foreign::Lock,
        ] {
            let reply = a.tell(Command::Foreign(fd, operation));
            assert_eq!(reply.map(|_| ()), Err(EOPNOTSUPP), "{operation:?}");
        }
        // A node takes address spaces, where there are such things, and once it is somebody's;
        // what comes with this one says that nothing is to be taken from it.
        let sent = a.tell(Command::Foreign(fd, Foreign::Send)).map(|_| ());
        let errno = match fd {
            _ if !takes_spaces => EOPNOTSUPP,
            _ if fd == files.card => EINVAL,
            _ if fd == files.render => EACCES,
            _ => EOPNOTSUPP,
        };
        assert_eq!(sent, Err(errno));
        let path = b"/scheme/gem/new".to_vec();
        let watch = if fd == files.card || fd == files.render {
            Ok(0)
        } else {
            Err(EOPNOTSUPP)
        };
        assert_eq!(a.kernel(KernelCall::Fevent(fd, 1)), watch);
        for call in [
            KernelCall::Flink(fd, path.clone()),
            KernelCall::Frename(fd, path),
            KernelCall::Unlinkat(fd, b"new".to_vec(), 0),
        ] {
            assert_eq!(a.kernel(call.clone()), Err(EOPNOTSUPP), "{call:?}");
        }
        let fcntl = |command| Command::Foreign(fd, Foreign::Fcntl(command));
        assert_eq!(a.tell(fcntl(999)).map(|_| ()), Err(EINVAL));
        assert!(a.tell(fcntl(F_GETFL as u64)).is_ok());
    }
    assert_eq!(a.tell(Command::Write(files.root, vec![1])), Err(EISDIR));
    assert_eq!(a.tell(Command::Write(files.text, vec![1])), Err(EACCES));
}

fn reads_and_writes_stay_inside_the_object(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let object = Files::open(&mut a).object;
    let end = 2 * PAGE;
    let write = |offset, length| KernelCall::WriteAt(object, vec![7; length], offset);
    assert_eq!(a.kernel(write(end - 3, 10)), Ok(3), "cut at the end");
    for offset in [end, end + 1, u64::MAX - 1] {
        assert_eq!(a.kernel(write(offset, 1)), Err(ENOSPC), "{offset:#x}");
    }
    assert_eq!(
        a.kernel(write(u64::MAX, 1)),
        Err(EINVAL),
        "no offset at all"
    );
    let read = |offset, length| Command::Kernel(KernelCall::ReadAt(object, length, offset));
    assert_eq!(
        a.tell(read(end - 5, 10)).unwrap().bytes[..5],
        [0, 0, 7, 7, 7]
    );
    for offset in [end, end + 1, u64::MAX - 1] {
        assert_eq!(a.tell(read(offset, 10)).unwrap().value, 0, "{offset:#x}");
    }
    assert_eq!(a.tell(read(u64::MAX, 1)).map(|_| ()), Err(EINVAL));
}

fn a_refused_call_leaves_its_payload_alone(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let files = Files::open(&mut a);
    let flink = GemFlink {
        handle: 77,
        name: 0x5555,
    };
    let open = GemOpen {
        name: 0x5555,
        handle: 66,
        size: 88,
    };
    for (fd, words, payload, errno) in [
        (
            files.card,
            vec![drm::GEM_FLINK],
            flink.as_bytes().to_vec(),
            ENOENT,
        ),
        (
            files.card,
            vec![drm::GEM_OPEN],
            open.as_bytes().to_vec(),
            ENOENT,
        ),
        (
            files.render,
            vec![drm::GEM_OPEN],
            open.as_bytes().to_vec(),
            EACCES,
        ),
        (
            files.card,
            vec![drm::GEM_OPEN, 1, 0],
            open.as_bytes().to_vec(),
            EINVAL,
        ),
        (files.card, vec![0x3f], vec![0xaa; 100], EINVAL),
        (
            files.card,
            Call::GetMagic.encode().to_vec(),
            vec![0xaa; 8],
            EINVAL,
        ),
        (
            files.object,
            vec![drm::GEM_OPEN],
            open.as_bytes().to_vec(),
            EOPNOTSUPP,
        ),
    ] {
        let call = Command::Refused {
            fd,
            words: words.clone(),
            payload: payload.clone(),
        };
        let outcome = a.tell(call).unwrap();
        assert_eq!(outcome.value, errno as u64, "{words:x?}");
        assert_eq!(outcome.bytes, payload, "{words:x?}");
    }
}

fn paths_are_taken_as_they_are(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let root = Files::open(&mut a).root;
    let mut open = |path: &[u8]| a.kernel(KernelCall::OpenAt(root, path.to_vec(), 0));
    for path in [
        &b"card0\0"[..],
        b"card0 ",
        b"CARD0",
        b"clients/../stats",
        b"objects/",
        b"12",
        b"clients/007",
        b"clients/18446744073709551616",
    ] {
        assert_eq!(open(path), Err(ENOENT), "{path:?}");
    }
    assert_eq!(open(b"name/1"), Err(EACCES), "names need a card's fd");
    assert_eq!(open(b"\xff"), Err(EINVAL));
    assert_eq!(open(&vec![b'x'; 4000]), Err(ENOENT));
    assert_eq!(open(&vec![b'x'; 5000]), Err(ENAMETOOLONG), "the kernel's");
    assert!(open(b"stats").is_ok());
}
