//! The monotonic clock.

use core::time::Duration;

use syscall::data::TimeSpec;
use syscall::flag::CLOCK_MONOTONIC;

/// A moment: time since the machine was started.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Instant(Duration);

impl Instant {
    /// This moment.
    pub fn now() -> Self {
        let mut time = TimeSpec::default();
        // The clock exists, and the structure is ours: it cannot fail.
        let _ = syscall::clock_gettime(CLOCK_MONOTONIC, &mut time);
        Self(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }

    /// How long after the machine's start.
    pub fn since_start(self) -> Duration {
        self.0
    }

    /// The moment so long after the machine's start.
    pub fn from_start(duration: Duration) -> Self {
        Self(duration)
    }

    /// The moment `duration` later.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// As the kernel takes deadlines.
    pub(crate) fn to_time_spec(self) -> TimeSpec {
        TimeSpec {
            tv_sec: i64::try_from(self.0.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: self.0.subsec_nanos() as i32,
        }
    }
}

/// Sleeps.
pub fn sleep(duration: Duration) {
    let end = Instant::now().after(duration);
    while let Some(rest) = end
        .0
        .checked_sub(Instant::now().0)
        .filter(|rest| !rest.is_zero())
    {
        let request = Instant(rest).to_time_spec();
        // An interrupt ends it early; what is left is slept in the next round.
        let _ = syscall::nanosleep(&request, &mut TimeSpec::default());
    }
}
