//! A client's own pages, beside what Linux itself takes for the same range.
//!
//! The bare steps are those without which no write of another thread is kept and no unmapping noticed
//! in time: the range's writers are made to wait (UFFDIO_REGISTER, UFFDIO_WRITEPROTECT), room is made in
//! a memory file, the range is copied there and mapped over itself (mmap, mremap), the writers go on and
//! the new mapping is watched (UFFDIO_REGISTER, UFFDIO_WAKE); and five empty calls, for the space, its
//! sending, the handle, the mapping and the closing. An unmapping that is watched returns when
//! somebody has read the event. There is nothing to alias on Linux.

use std::hint::black_box;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::time::Instant;

use gem_client::{Card, Register, Userptr};
use libredox::Fd;
use linux_raw_sys::general::{
    UFFD_API, UFFD_FEATURE_EVENT_UNMAP, UFFD_FEATURE_PAGEFAULT_FLAG_WP,
    UFFD_FEATURE_WP_HUGETLBFS_SHMEM, UFFD_FEATURE_WP_UNPOPULATED, UFFD_USER_MODE_ONLY,
    UFFDIO_REGISTER_MODE_WP, uffd_msg, uffdio_api, uffdio_range, uffdio_register,
    uffdio_writeprotect,
};
use linux_raw_sys::ioctl;

const PAGE: usize = 4096;

/// What is asked of both clients, by the number of pages.
pub const OPERATIONS: [(&str, [usize; 4]); 2] = [
    ("register + release", [1, 16, 256, 4096]),
    ("munmap while held", [1, 16, 256, 4096]),
];

/// Private memory that has been written to, page by page.
struct Memory {
    address: *mut u8,
    bytes: usize,
}

impl Memory {
    fn new(pages: usize) -> Self {
        let bytes = pages * PAGE;
        let address = map(
            ptr::null_mut(),
            bytes,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        for page in (0..bytes).step_by(PAGE) {
            // SAFETY: mapped above, and nobody else's.
            unsafe { address.add(page).write_volatile(1) };
        }
        Self { address, bytes }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more.
        unsafe { libc::munmap(self.address.cast(), self.bytes) };
    }
}

fn map(at: *mut u8, bytes: usize, flags: i32, fd: i32, offset: usize) -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: nothing is replaced.
    let mapped = unsafe { libc::mmap(at.cast(), bytes, protection, flags, fd, offset as i64) };
    assert_ne!(mapped, libc::MAP_FAILED);
    mapped.cast()
}

/// Nanoseconds of each operation on what is prepared for it; what it returns is dropped afterwards.
fn times<P, T>(
    pages: usize,
    mut prepare: impl FnMut() -> P,
    mut operation: impl FnMut(P) -> T,
) -> Vec<f64> {
    let rounds = 20_000 / (pages + 40);
    let time = |_| {
        let prepared = prepare();
        let start = Instant::now();
        let left = operation(prepared);
        let elapsed = start.elapsed().as_nanos() as f64;
        black_box(left);
        elapsed
    };
    (0..rounds).map(time).collect()
}

/// With gemd.
pub fn ours(card: &Card, operation: &str, pages: usize) -> Vec<f64> {
    let register = |memory: &Memory| -> Userptr {
        let base = NonNull::new(memory.address).unwrap();
        let bytes = NonNull::slice_from_raw_parts(base, memory.bytes);
        // SAFETY: nobody has a reference to the memory, and it is unmapped only where the buffer is
        // not used any more.
        unsafe { card.userptr(bytes, Register::new()) }.unwrap()
    };
    match operation {
        "register + release" => times(
            pages,
            || Memory::new(pages),
            |memory| {
                register(&memory).release().unwrap();
                memory
            },
        ),
        _ => times(
            pages,
            || {
                let memory = Memory::new(pages);
                let userptr = register(&memory);
                (memory, userptr)
            },
            |(memory, userptr)| {
                drop(memory);
                userptr
            },
        ),
    }
}

/// Without a server behind it.
pub fn bare(fd: &Fd, operation: &str, pages: usize) -> Vec<f64> {
    let call = || super::call(fd, &mut [], [1, 2, 3]);
    let linux = Linux::new();
    match operation {
        "register + release" => times(
            pages,
            || Memory::new(pages),
            |memory| {
                // The space, its sending; the handle and the mapping; the closing.
                call();
                call();
                linux.adopt(&memory, || {
                    call();
                    call();
                });
                call();
                memory
            },
        ),
        _ => times(
            pages,
            || {
                let memory = Memory::new(pages);
                linux.adopt(&memory, || ());
                memory
            },
            drop,
        ),
    }
}

/// A userfaultfd of this process, with somebody who reads it, and a memory file.
struct Linux {
    uffd: OwnedFd,
    file: OwnedFd,
    end: std::cell::Cell<usize>,
}

impl Linux {
    fn new() -> Self {
        let flags = libc::O_CLOEXEC | UFFD_USER_MODE_ONLY as i32;
        // SAFETY: the call takes a number and makes a file.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        assert!(fd >= 0, "this machine forbids userfaultfd");
        // SAFETY: just made.
        let uffd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let features = UFFD_FEATURE_PAGEFAULT_FLAG_WP
            | UFFD_FEATURE_WP_UNPOPULATED
            | UFFD_FEATURE_WP_HUGETLBFS_SHMEM
            | UFFD_FEATURE_EVENT_UNMAP;
        let mut api = uffdio_api {
            api: u64::from(UFFD_API),
            features: u64::from(features),
            ioctls: 0,
        };
        control(&uffd, ioctl::UFFDIO_API, &mut api);
        let reader = uffd.try_clone().unwrap();
        // It ends with the process.
        std::thread::spawn(move || {
            let mut message = [0_u8; size_of::<uffd_msg>()];
            loop {
                // SAFETY: as many bytes as there is room for.
                unsafe {
                    libc::read(
                        reader.as_raw_fd(),
                        message.as_mut_ptr().cast(),
                        message.len(),
                    )
                };
            }
        });
        let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
        let file = nix::sys::memfd::memfd_create(c"bench", flags).unwrap();
        let end = std::cell::Cell::new(0);
        Self { uffd, file, end }
    }

    fn adopt(&self, memory: &Memory, agree: impl FnOnce()) {
        let offset = self.end.get();
        self.end.set(offset + memory.bytes);
        nix::unistd::ftruncate(&self.file, self.end.get() as i64).unwrap();
        let range = uffdio_range {
            start: memory.address as u64,
            len: memory.bytes as u64,
        };
        let mut register = uffdio_register {
            range,
            mode: u64::from(UFFDIO_REGISTER_MODE_WP),
            ioctls: 0,
        };
        control(&self.uffd, ioctl::UFFDIO_REGISTER, &mut register);
        let mut protect = uffdio_writeprotect { range, mode: 1 };
        control(&self.uffd, ioctl::UFFDIO_WRITEPROTECT, &mut protect);
        agree();
        let fd = self.file.as_raw_fd();
        let aside = map(ptr::null_mut(), memory.bytes, libc::MAP_SHARED, fd, offset);
        // SAFETY: both are mapped, as long, and nobody else's; what is mapped aside is known here
        // only, and replaces its source.
        unsafe {
            ptr::copy_nonoverlapping(memory.address, aside, memory.bytes);
            let (bytes, how) = (memory.bytes, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED);
            let moved = libc::mremap(aside.cast(), bytes, bytes, how, memory.address);
            assert_ne!(moved, libc::MAP_FAILED);
        }
        control(&self.uffd, ioctl::UFFDIO_REGISTER, &mut register);
        let mut range = range;
        control(&self.uffd, ioctl::UFFDIO_WAKE, &mut range);
    }
}

fn control<T>(uffd: &OwnedFd, request: u32, argument: &mut T) {
    // SAFETY: the file is a userfaultfd, and each caller passes the request's own structure.
    let done = unsafe { libc::ioctl(uffd.as_raw_fd(), request.into(), argument) };
    assert_eq!(done, 0, "{request:#x}: {}", std::io::Error::last_os_error());
}
