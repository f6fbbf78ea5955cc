//! How much memory the machine has left, for a page source whose users are not to take all of it.
//!
//! A thread looks every now and then, while there is somebody who has memory, and tells. What it
//! looks at is what Linux says that new memory could be had without swapping (`MemAvailable`), or
//! less, where a control group (version 2) allows this process less.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use gem::units::PageCount;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(500);

/// Where the control group's files are.
const GROUPS: &str = "/sys/fs/cgroup";

/// A thread that looks; gone when dropped.
pub(crate) struct Watch(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether somebody wants to know.
    watching: bool,
    /// Whether the thread waits for somebody who does.
    idle: bool,
    closed: bool,
    /// What was seen and not been taken.
    seen: Option<PageCount>,
}

impl Watch {
    /// Starts the thread, which calls `tell` after each look.
    pub(crate) fn start(tell: impl Fn() + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let own = shared.clone();
        thread::Builder::new()
            .name("memory left".to_owned())
            .spawn(move || own.run(tell))?;
        Ok(Self(shared))
    }

    /// Whether to look from now on. Costs little, so that it can change often.
    pub(crate) fn watch(&self, watching: bool) {
        let mut state = self.0.lock();
        state.watching = watching;
        if watching && state.idle {
            self.0.changed.notify_one();
        }
    }

    /// What was seen last, if it was not taken yet.
    pub(crate) fn take(&self) -> Option<PageCount> {
        self.0.lock().seen.take()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, tell: impl Fn()) {
        loop {
            let watching = self.changed.wait_while(self.lock(), |state| {
                state.idle = !state.watching && !state.closed;
                state.idle
            });
            if watching.unwrap_or_else(PoisonError::into_inner).closed {
                return;
            }
            // Not under the lock: whoever is told takes it.
            if let Some(left) = pages_left() {
                self.lock().seen = Some(left);
                tell();
            }
            let pause = self
                .changed
                .wait_timeout_while(self.lock(), PERIOD, |state| !state.closed);
            drop(pause);
        }
    }
}

fn pages_left() -> Option<PageCount> {
    let machine = available(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let group = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|groups| group_left(Path::new(GROUPS), &groups));
    let bytes = group.map_or(machine, |group| group.min(machine));
    PageCount::new(bytes / gem::units::PAGE_SIZE)
}

/// `MemAvailable` out of `/proc/meminfo`, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The bytes that the control group of this `/proc/self/cgroup`, and those around it, leave.
/// `None` where none of them has a limit.
fn group_left(root: &Path, groups: &str) -> Option<u64> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let around = Path::new(own).ancestors();
    around.filter_map(|group| left_in(&root.join(group))).min()
}

/// The limit less what is used; files that are only cached go when memory is wanted.
fn left_in(group: &Path) -> Option<u64> {
    let number = |file: &str| -> Option<u64> {
        let text = fs::read_to_string(group.join(file)).ok()?;
        text.trim().parse().ok()
    };
    let (most, used) = (number("memory.max")?, number("memory.current")?);
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let cached = stat
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file "))
        .and_then(|bytes| bytes.parse().ok())
        .unwrap_or(0);
    Some(most.saturating_sub(used.saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn what_linux_has_available_is_read() {
        let text = "MemTotal:  100 kB\nMemFree:  3 kB\nMemAvailable:    2048 kB\nBuffers: 1 kB\n";
        assert_eq!(available(text), Some(2 << 20));
        for text in ["", "MemAvailable: many kB", "MemAvailable: 7 MB"] {
            assert_eq!(available(text), None);
        }
        let here = pages_left().unwrap().get();
        assert!((1..1 << 40).contains(&here));
    }

    #[test]
    fn the_narrowest_control_group_around_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = |path: &str, files: &[(&str, &str)]| {
            let group = root.path().join(path);
            fs::create_dir_all(&group).unwrap();
            for (name, text) in files {
                fs::write(group.join(name), text).unwrap();
            }
        };
        let left = |groups| group_left(root.path(), groups);
        group("a/b", &[("memory.max", "max\n"), ("memory.current", "5\n")]);
        assert_eq!(left("1:name=x:/y\n0::/a/b\n"), None);
        group("a", &[("memory.max", "1000"), ("memory.current", "900\n")]);
        assert_eq!(left("0::/a/b"), Some(100));
        group("a", &[("memory.stat", "file 70\ninactive_file 50\n")]);
        assert_eq!(left("0::/a/b"), Some(150));
        group("", &[("memory.max", "20"), ("memory.current", "70")]);
        assert_eq!(left("0::/a/b"), Some(0));
        assert_eq!(left("2:memory:/a"), None, "version 1");
    }

    #[test]
    fn nobody_is_told_before_somebody_wants_to_know() {
        let (told, heard) = channel();
        let watch = Watch::start(move || told.send(()).unwrap()).unwrap();
        assert_eq!(watch.take(), None);
        watch.watch(true);
        heard.recv().unwrap();
        assert!(watch.take().is_some());
        // And again after a while.
        heard.recv().unwrap();
        assert!(watch.take().is_some());
        assert_eq!(watch.take(), None);
        // The end of the thread is the end of what it tells with.
        drop(watch);
        while heard.recv().is_ok() {}
    }
}
