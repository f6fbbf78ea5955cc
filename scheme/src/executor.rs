//! Requests that wait.
//!
//! Most requests are answered where they stand, without a future and without an allocation. One
//! that has to wait (for pages, for an event, for a turn) becomes a boxed future here, in a slab,
//! found again by its tag (Cancel) and by its file (close). Futures reach the server only through
//! `Access::with`, so that no borrow of it survives an await; whatever was checked before an
//! await is checked again after it, because the attempt is made again from the start.
//!
//! Dropping a future at any await leaves no trace: an attempt either happened or changed nothing,
//! and what one kind of them has begun (`server::userptr`) is undone when its request is dropped.
//! Every request that came in is answered exactly once, also when it is cancelled or its file is
//! closed, because until then the kernel keeps the client's payload mapped. The payload is taken
//! away from the request before its answer leaves this module.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use gem::Device;
use gem::units::{Pid, Uid};
use gem::user::{Errand, UserSource};
use slab::Slab;
use spin::Mutex;
use syscall::error::{ECANCELED, EMFILE, ENODEV};

use crate::answer::{Answer, Errno};
use crate::fds::FdId;
use crate::payload::Payload;
use crate::platform::Platform;
use crate::server::{Cause, Server, Stop};
use crate::sqe::{Message, Operation, Request, Tag};

/// How many waiting requests go on before the socket has its turn again.
const ROUND: usize = 32;

/// How many waiting requests are looked at for each that is refused: whether their processes are
/// alive, which means to ask the machine.
const LOOKS: usize = 4;

/// What a request came to.
pub enum Step {
    /// The answer.
    Done(Answer),
    /// It waits.
    Park(Pin<Box<dyn Future<Output = Answer>>>),
}

/// A waiting request's way to the server.
pub struct Access<P: Platform> {
    server: Rc<RefCell<Server<P>>>,
    request: Rc<RefCell<Request>>,
    waits: Rc<RefCell<Waits>>,
}

impl<P: Platform> Access<P> {
    /// One turn with the server and this request. Nothing of either can be kept.
    fn with<T>(&self, turn: impl FnOnce(&mut Server<P>, &mut Request) -> T) -> T {
        turn(
            &mut self.server.borrow_mut(),
            &mut self.request.borrow_mut(),
        )
    }

    /// Ends when `cause` has happened.
    fn happened(&self, cause: Cause) -> impl Future<Output = ()> + use<P> {
        Happening {
            waits: self.waits.clone(),
            cause,
            place: None,
        }
    }
}

/// Attempts the request again each time what it waited for is there.
async fn again<P: Platform>(access: Access<P>, mut stop: Stop) -> Answer {
    loop {
        match stop {
            Stop::Refused(errno) => return Answer::Error(errno),
            Stop::Wait(cause) => access.happened(cause).await,
            Stop::Turn => NextTurn::default().await,
        }
        match access.with(|server, request| server.attempt(request)) {
            Ok(answer) => return answer,
            Err(next) => stop = next,
        }
    }
}

/// A request that waits.
struct Parked {
    /// Whose it is.
    user: Uid,
    request: Rc<RefCell<Request>>,
    future: Pin<Box<dyn Future<Output = Answer>>>,
}

/// Answers on their way to the kernel.
pub type Answers = Vec<(Tag, Answer)>;

/// The server and the requests that wait for it.
pub struct Executor<P: Platform> {
    server: Rc<RefCell<Server<P>>>,
    waits: Rc<RefCell<Waits>>,
    parked: Slab<Parked>,
    by_tag: BTreeMap<u32, usize>,
    by_file: BTreeSet<(FdId, usize)>,
    /// How many requests of each user wait; never 0.
    by_user: BTreeMap<Uid, u32>,
    ready: Arc<Ready>,
    /// How many requests have been looked at because another one might not wait.
    looked: usize,
}

impl<P: Platform + 'static> Executor<P> {
    /// An executor for this server, with nothing waiting.
    pub fn new(server: Server<P>) -> Self {
        Self {
            server: Rc::new(RefCell::new(server)),
            waits: Rc::default(),
            parked: Slab::new(),
            by_tag: BTreeMap::new(),
            by_file: BTreeSet::new(),
            by_user: BTreeMap::new(),
            ready: Arc::default(),
            looked: 0,
        }
    }

    /// Takes in what the kernel says and adds the answers that are due at once.
    pub fn message(&mut self, mut message: Message, answers: &mut Answers) {
        log::trace!("{message:?}");
        match &mut message {
            // Most requests are answered where they are; one is moved when it has to wait.
            Message::Request(request) => {
                if let Some(stop) = self.attempt(request, answers)
                    && let Message::Request(request) = message
                {
                    self.park(request, stop, answers);
                }
            }
            &mut Message::Refused(tag, errno) => answers.push((tag, Answer::Error(errno))),
            &mut Message::Cancel(tag) => self.cancel(tag, answers),
            &mut Message::Closed(fd) => self.closed(fd, answers),
            Message::Nothing => {}
        }
    }

    /// Runs waiting requests that can go on, and adds their answers. Whether there are more that
    /// can go on without anything new from the kernel.
    #[inline]
    pub fn run_ready(&mut self, answers: &mut Answers) -> bool {
        if !self.has_ready() {
            return false;
        }
        self.run_round(answers);
        self.has_ready()
    }

    /// One round only: a request that asks for another turn lets the socket speak in between, and
    /// so do many.
    #[cold]
    fn run_round(&mut self, answers: &mut Answers) {
        let happened = self.server.borrow_mut().take_happened();
        for (fd, errno) in happened.ended {
            let keys: Vec<usize> = self.waiting_on(fd).collect();
            for key in keys {
                self.let_go(key, errno, answers);
            }
        }
        self.waits.borrow_mut().wake(happened.causes);
        for key in self.ready.take(ROUND) {
            self.poll(key, answers);
        }
    }

    /// Whether there is something to do without anything new from the kernel.
    #[inline]
    pub fn has_ready(&self) -> bool {
        self.server.borrow().has_happened()
            || !self.parked.is_empty() && !self.ready.0.lock().is_empty()
    }

    /// A file that the kernel is to be told of, because it has become readable; each one told once.
    #[inline]
    pub fn next_readable(&mut self) -> Option<FdId> {
        self.server.borrow_mut().next_readable()
    }

    /// A turn with the memory manager, for whoever drives hardware. What it does wakes those who
    /// wait for it at the next [`Executor::run_ready`].
    pub fn with_device<T>(&mut self, turn: impl FnOnce(&mut Device<P::Pages>) -> T) -> T {
        let mut server = self.server.borrow_mut();
        let turned = turn(server.device_mut());
        server.nobody_waits();
        turned
    }

    /// Has this done off the socket's thread, in this user's turn.
    pub fn elsewhere(&mut self, owner: Uid, errand: Errand) {
        let mut server = self.server.borrow_mut();
        server.device_mut().source_mut().elsewhere(owner, errand);
    }

    /// Whether the daemon was told to leave.
    pub fn is_leaving(&self) -> bool {
        self.server.borrow().is_leaving()
    }

    /// Answers everything that waits with ENODEV, and wakes who waits in the kernel: the server is
    /// leaving.
    pub fn dismiss_all(&mut self, answers: &mut Answers) {
        self.server.borrow_mut().say_farewell();
        let keys: Vec<usize> = self.parked.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.dismiss(key, Errno(ENODEV), answers);
        }
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.parked.len()
    }

    /// Answers the request, if that can be done now; else what it has to wait for.
    fn attempt(&mut self, request: &mut Request, answers: &mut Answers) -> Option<Stop> {
        // Before anything is begun for it.
        if let Operation::SendFds { .. } = request.operation
            && let Err(errno) = self.may_wait(request.fd, request.caller, answers)
        {
            let answer = self.server.borrow_mut().turn_away(request.caller, errno);
            answers.push((request.tag, answer));
            return None;
        }
        let attempt = self.server.borrow_mut().attempt(request);
        match attempt {
            Ok(answer) => answers.push((request.tag, answer)),
            Err(Stop::Refused(errno)) => answers.push((request.tag, Answer::Error(errno))),
            Err(stop) => return Some(stop),
        }
        None
    }

    #[cold]
    fn park(&mut self, request: Request, stop: Stop, answers: &mut Answers) {
        let (tag, fd) = (request.tag, request.fd);
        let user = match self.may_wait(fd, request.caller, answers) {
            Ok(user) => user,
            // It is done, and cannot be refused any more. Whoever is gone is nobody.
            Err(_) if self.server.borrow().owes(tag) => Uid(u32::MAX),
            Err(errno) => {
                self.server.borrow_mut().forget(tag);
                return answers.push((tag, Answer::Error(errno)));
            }
        };
        *self.by_user.entry(user).or_default() += 1;
        self.server.borrow_mut().waiting += 1;
        let request = Rc::new(RefCell::new(request));
        let access = Access {
            server: self.server.clone(),
            request: request.clone(),
            waits: self.waits.clone(),
        };
        let key = self.parked.insert(Parked {
            user,
            request,
            future: Box::pin(again(access, stop)),
        });
        self.by_tag.insert(tag.0, key);
        self.by_file.insert((fd, key));
        self.poll(key, answers);
    }

    /// Whether one more request may wait on this file; the user whose it is. EMFILE where that
    /// user has enough, on the file or altogether. What others who have the same file wait for
    /// stands in nobody's way.
    fn may_wait(&mut self, fd: FdId, caller: Pid, answers: &mut Answers) -> Result<Uid, Errno> {
        let user = self.server.borrow_mut().asker(fd, caller)?;
        if !self.has_room(fd, user) {
            self.bury(fd, user, answers);
            if !self.has_room(fd, user) {
                return Err(Errno(EMFILE));
            }
        }
        Ok(user)
    }

    fn has_room(&self, fd: FdId, user: Uid) -> bool {
        let server = self.server.borrow();
        let limits = server.device().limits();
        let of_user = self.by_user.get(&user).copied().unwrap_or(0);
        let is_users = |key: &usize| self.parked.get(*key).is_some_and(|it| it.user == user);
        self.waiting_on(fd).filter(is_users).count() < limits.waiting_per_open as usize
            && of_user < limits.waiting_per_uid
    }

    /// Answers what waits on a file for processes of this user that are gone. The kernel says nothing
    /// of them as long as another process has the file. Only some are looked at, in turns: whoever
    /// asks for what is refused, over and over, is not to keep us busy with that.
    fn bury(&mut self, fd: FdId, user: Uid, answers: &mut Answers) {
        let is_users = |key: &usize| self.parked.get(*key).is_some_and(|it| it.user == user);
        let own: Vec<usize> = self.waiting_on(fd).filter(is_users).collect();
        let turn = self.looked.checked_rem(own.len()).unwrap_or(0);
        self.looked = self.looked.wrapping_add(LOOKS);
        for &key in own.iter().cycle().skip(turn).take(LOOKS.min(own.len())) {
            let Some(parked) = self.parked.get(key) else {
                continue;
            };
            let (tag, caller) = {
                let request = parked.request.borrow();
                (request.tag, request.caller)
            };
            // A process that ends waits for its pages, too.
            let is_dead = {
                let mut server = self.server.borrow_mut();
                !server.owes(tag) && server.user(caller).is_err()
            };
            if is_dead {
                self.dismiss(key, Errno(ECANCELED), answers);
            }
        }
    }

    fn poll(&mut self, key: usize, answers: &mut Answers) {
        // A key from the ready list can be stale: its request was cancelled, its slot perhaps
        // taken by another one. Polling a future once too often does no harm.
        let Some(parked) = self.parked.get_mut(key) else {
            return;
        };
        let waker = Waker::from(Arc::new(Wakeup {
            key,
            ready: self.ready.clone(),
        }));
        if let Poll::Ready(answer) = parked
            .future
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
        {
            self.answer(key, answer, answers);
        }
    }

    fn cancel(&mut self, tag: Tag, answers: &mut Answers) {
        // Not found: answered already, or never seen; the kernel knows.
        if let Some(&key) = self.by_tag.get(&tag.0) {
            self.let_go(key, Errno(ECANCELED), answers);
        }
    }

    /// Nobody is left who waits on this file.
    fn closed(&mut self, fd: FdId, answers: &mut Answers) {
        let keys: Vec<usize> = self.waiting_on(fd).collect();
        for key in keys {
            self.dismiss(key, Errno(ECANCELED), answers);
        }
        self.server.borrow_mut().close(fd);
    }

    fn waiting_on(&self, fd: FdId) -> impl Iterator<Item = usize> + '_ {
        self.by_file
            .range((fd, 0)..=(fd, usize::MAX))
            .map(|&(_, key)| key)
    }

    /// Answers a request that is to wait no longer, whose asker lives: at once, or when what it has
    /// begun with the asker's memory is undone.
    fn let_go(&mut self, key: usize, errno: Errno, answers: &mut Answers) {
        let tag = self
            .parked
            .get(key)
            .map(|parked| parked.request.borrow().tag);
        if !tag.is_some_and(|tag| self.server.borrow_mut().wind_up(tag, errno)) {
            self.dismiss(key, errno, answers);
        }
    }

    fn dismiss(&mut self, key: usize, errno: Errno, answers: &mut Answers) {
        self.answer(key, Answer::Error(errno), answers);
    }

    /// Takes the request out and answers it. The future goes first, then what it has begun, then
    /// the payload, then the answer may leave.
    fn answer(&mut self, key: usize, answer: Answer, answers: &mut Answers) {
        let parked = self.parked.try_remove(key);
        let Some(Parked {
            user,
            request,
            future,
        }) = parked
        else {
            return;
        };
        drop(future);
        self.server.borrow_mut().waiting -= 1;
        if let Some(count) = self.by_user.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                self.by_user.remove(&user);
            }
        }
        let mut request = request.borrow_mut();
        self.server.borrow_mut().forget(request.tag);
        request.payload = Payload::EMPTY;
        self.by_tag.remove(&request.tag.0);
        self.by_file.remove(&(request.fd, key));
        answers.push((request.tag, answer));
    }
}

/// Who waits for what.
#[derive(Default)]
struct Waits {
    waiting: BTreeMap<Place, Waker>,
    last: u64,
}

/// What somebody waits for, and which of those who do that is; never used twice.
type Place = (Cause, u64);

impl Waits {
    fn wake(&mut self, causes: Vec<Cause>) {
        for cause in causes {
            let of_cause = (cause, 0)..=(cause, u64::MAX);
            for (_, waker) in self.waiting.extract_if(of_cause, |_, _| true) {
                waker.wake();
            }
        }
    }

    fn wait(&mut self, cause: Cause, waker: Waker) -> Place {
        self.last += 1;
        let place = (cause, self.last);
        self.waiting.insert(place, waker);
        place
    }
}

/// Waits until something has happened. Dropped, it waits no longer: a request that is made and
/// cancelled over and over while some work takes long leaves nothing behind.
struct Happening {
    waits: Rc<RefCell<Waits>>,
    cause: Cause,
    /// `None` until it is polled.
    place: Option<Place>,
}

impl Future for Happening {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(place) = self.place else {
            let waker = context.waker().clone();
            let place = self.waits.borrow_mut().wait(self.cause, waker);
            self.place = Some(place);
            return Poll::Pending;
        };
        if self.waits.borrow().waiting.contains_key(&place) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

impl Drop for Happening {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.waits.borrow_mut().waiting.remove(&place);
        }
    }
}

/// Ends at the second poll: others get their turn in between.
#[derive(Default)]
struct NextTurn {
    asked: bool,
}

impl Future for NextTurn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.asked {
            return Poll::Ready(());
        }
        self.asked = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Keys of parked requests that can go on.
#[derive(Default)]
struct Ready(Mutex<Vec<usize>>);

impl Ready {
    /// Those that are ready longest.
    fn take(&self, most: usize) -> Vec<usize> {
        let mut keys = self.0.lock();
        let most = most.min(keys.len());
        keys.drain(..most).collect()
    }
}

struct Wakeup {
    key: usize,
    ready: Arc<Ready>,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.ready.0.lock().push(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use gem::pages::Ticket;

    fn poll(future: &mut Happening) -> Poll<()> {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_round_takes_the_first_and_leaves_the_others_to_the_next() {
        let ready = Arc::new(Ready::default());
        for key in 0..5 {
            let ready = ready.clone();
            Waker::from(Arc::new(Wakeup { key, ready })).wake();
        }
        assert_eq!(ready.take(3), [0, 1, 2]);
        Waker::from(Arc::new(Wakeup {
            key: 0,
            ready: ready.clone(),
        }))
        .wake();
        assert_eq!(ready.take(3), [3, 4, 0]);
        assert!(ready.take(3).is_empty());
    }

    #[test]
    fn who_waits_no_longer_leaves_nothing_behind() {
        let waits: Rc<RefCell<Waits>> = Rc::default();
        let wait = |ticket| Happening {
            waits: waits.clone(),
            cause: Cause::Finished(Ticket(ticket)),
            place: None,
        };
        let (mut first, mut second, mut other) = (wait(1), wait(1), wait(2));
        for future in [&mut first, &mut second, &mut other] {
            assert_eq!(poll(future), Poll::Pending);
        }
        drop(first);
        assert_eq!(waits.borrow().waiting.len(), 2);
        waits.borrow_mut().wake(vec![Cause::Finished(Ticket(1))]);
        assert_eq!(poll(&mut second), Poll::Ready(()));
        assert_eq!(poll(&mut other), Poll::Pending);
        drop((second, other));
        assert!(waits.borrow().waiting.is_empty());
    }
}
