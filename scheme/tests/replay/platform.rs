//! The platform of a replay: processes as the trace tells, and the stand-in's pages, which are
//! there when they were there in the trace.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use gem::pages::{NotReady, PageRequest, PageSet, PageSource, Ticket};
use gem::units::{Gid, Identity, Pid, Uid, WindowAddr};
use gem::user::UserSource;
use gemd::platform::Platform;
use hosted::pages::MemfdPages;

/// What the player tells the platform.
#[derive(Default)]
pub struct Script {
    /// The processes there are, with uid and gid.
    pub processes: BTreeMap<u64, (u32, u32)>,
    /// Whether the machine of the trace takes over clients' own pages. No trace has any.
    pub user_pages: bool,
    /// Whether who asks for pages now has to wait.
    pub hold: bool,
    /// What was given out to wait for.
    pub held: Vec<Ticket>,
    /// What need not be waited for any longer.
    pub released: Vec<Ticket>,
    last: u64,
}

impl Script {
    fn wait(&mut self) -> NotReady {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.held.push(ticket);
        NotReady::Wait(ticket)
    }
}

/// How long the stand-in may take for a memory file.
const PATIENCE: Duration = Duration::from_secs(60);

/// The stand-in's pages. What it would have others wait for is waited for here.
pub struct Pages {
    script: Rc<RefCell<Script>>,
    pages: MemfdPages,
    progress: Receiver<()>,
}

impl Pages {
    pub fn new(script: Rc<RefCell<Script>>) -> Self {
        let mut pages = MemfdPages::new().expect("memory files");
        let (sender, progress) = channel();
        pages.set_notify(Box::new(move || {
            // Nobody listens any more when the replay is over.
            let _ = sender.send(());
        }));
        Self {
            script,
            pages,
            progress,
        }
    }

    fn ask<T>(
        &mut self,
        mut ask: impl FnMut(&mut MemfdPages) -> Result<T, NotReady>,
    ) -> Result<T, NotReady> {
        let mut script = self.script.borrow_mut();
        if script.hold {
            return Err(script.wait());
        }
        loop {
            match ask(&mut self.pages) {
                Err(NotReady::Wait(ticket)) => {
                    let mut finished = Vec::new();
                    while !finished.contains(&ticket) {
                        let progress = self.progress.recv_timeout(PATIENCE);
                        progress.expect("the stand-in makes memory files");
                        self.pages.finished(&mut finished);
                    }
                }
                result => return result,
            }
        }
    }
}

impl PageSource for Pages {
    fn allocate(&mut self, request: PageRequest) -> Result<PageSet, NotReady> {
        self.ask(|pages| pages.allocate(request))
    }

    fn window(&mut self, set: &PageSet) -> Result<WindowAddr, NotReady> {
        self.ask(|pages| pages.window(set))
    }

    fn read(&mut self, set: &PageSet, offset: u64, bytes: &mut [u8]) -> Result<(), NotReady> {
        self.ask(|pages| pages.read(set, offset, bytes))
    }

    fn write(&mut self, set: &PageSet, offset: u64, bytes: &[u8]) -> Result<(), NotReady> {
        self.ask(|pages| pages.write(set, offset, bytes))
    }

    fn free(&mut self, owner: Uid, set: PageSet) {
        self.pages.free(owner, set);
    }
}

impl UserSource for Pages {
    fn takes_user_pages(&self) -> bool {
        self.script.borrow().user_pages
    }
}

/// The machine of the trace.
pub struct Machine(pub Rc<RefCell<Script>>);

impl Platform for Machine {
    type Pages = Pages;

    fn identity(&mut self, pid: Pid) -> Option<Identity> {
        let (uid, gid) = *self.0.borrow().processes.get(&pid.0)?;
        Some(Identity {
            uid: Uid(uid),
            gid: Gid(gid),
            pid,
        })
    }

    fn finished(&mut self, _: &mut Pages, tickets: &mut Vec<Ticket>) {
        tickets.append(&mut self.0.borrow_mut().released);
    }
}
