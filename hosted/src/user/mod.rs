//! Clients' own pages, taken over by a scheme (userptr): what on Redox is a TRANSFER from one
//! address space to another.
//!
//! Linux cannot move pages between processes, so the client copies its range into a memory file
//! and maps that in its place; until it has, whoever writes to the range waits, so that no write is
//! lost. From then on the pages are a mapping of the scheme's like any other, but for one thing: the
//! client may unmap it with Linux's own calls, and does not go on before the scheme has been told.
//! Both rest on userfaultfd, see [`watch`].
//!
//! The steps, and who does them:
//!
//! 1. the client makes a userfaultfd and sends it: it gets a file that stands for its address space
//!    ([`client::address_space`](crate::client::address_space)), which it sends to its scheme as on
//!    Redox;
//! 2. the daemon asks for a range of it ([`UserSource::acquire`](gem::user::UserSource::acquire)):
//!    a thread makes its writers wait ([`watch`]);
//! 3. the client maps the set that came of it, at the address where the range is: the kernel sends
//!    the memory file, the client copies and maps it (`client::adopt`), and the kernel, who hears of
//!    that by the userfaultfd, lets the writers go on (`kernel::watching`).

pub(crate) mod maps;
pub(crate) mod sets;
pub(crate) mod uffd;
pub(crate) mod watch;
