//! Threads, locks, queues and the clock, as the worker and its owner use them: of the test image's
//! runtime, or of std on a full Redox (and on the host, where the latter are tested).

#[cfg(all(feature = "rt", not(feature = "std")))]
pub use rt::sync::{Mutex, Queue};
#[cfg(all(feature = "rt", not(feature = "std")))]
pub use rt::thread::{Thread, spawn};
#[cfg(all(feature = "rt", not(feature = "std")))]
pub use rt::time::Instant;

#[cfg(feature = "std")]
mod with_std;
#[cfg(feature = "std")]
pub use with_std::{Instant, Mutex, Queue, Thread, spawn};

#[cfg(not(any(feature = "rt", feature = "std")))]
compile_error!("the platform needs threads: enable the feature `rt` or `std`");
