//! What a scheme's answer leads to: a new file descriptor, a mapping, a reply to whoever waits.
//!
//! A call says when it is made what its answer is for (`call::After`); this does it, and undoes
//! what cannot be finished as the Redox kernel does. Unmappings are told to the scheme one after
//! the other, each when the one before was answered. Nothing here waits.

use std::collections::VecDeque;
use std::sync::Arc;

use syscall::error::{
    EBADFD, EBUSY, EFAULT, EINVAL, EIO, ENFILE, ENOMEM, EOVERFLOW, Error, Result,
};
use syscall::flag::{F_GETFL, F_SETFL, MunmapFlags, O_ACCMODE};
use syscall::schemev2::Opcode;

use super::State;
use super::address_space::Mapping;
use super::call::{
    After, AfterUnmapping, Buffer, Call, Caller, ClientId, Held, LocalAnswer, MapRequest, Unmapping,
};
use super::files::Description;
use super::reply::Attachment;
use super::scheme::Scheme;
use crate::memfd::{self, Window};
use crate::proto::Reply;
use crate::user::watch::Range;

/// An answer, read from a CQE.
#[derive(Debug)]
pub(crate) enum Response {
    /// A number.
    Regular {
        /// The number, or an errno.
        result: Result<usize>,
        /// `NewFdFlags`, where the number is a new file.
        extra: u8,
        /// Whether the scheme wants to hear when a descriptor of the file is closed.
        notify_on_detach: bool,
    },
    /// A file of any scheme.
    Fd(Arc<Description>),
    /// Files of any schemes, which were handed over before.
    Fds(Vec<Arc<Description>>),
}

impl Response {
    /// The answer `errno`.
    pub(crate) fn error(errno: i32) -> Self {
        Self::Regular {
            result: Err(Error::new(errno)),
            extra: 0,
            notify_on_detach: false,
        }
    }

    /// The number; EIO for files where none are meant.
    pub(crate) fn into_regular(self) -> Result<usize> {
        match self {
            Self::Regular { result, .. } => result,
            Self::Fd(_) | Self::Fds(_) => Err(Error::new(EIO)),
        }
    }
}

impl State {
    /// Does what `call`, of `scheme`, was made for, and replies to its caller.
    pub(super) fn complete(&mut self, scheme: &Arc<Scheme>, call: Call, response: Response) {
        let Call {
            caller,
            after,
            payload,
            gives_back,
            held,
            ..
        } = call;
        if let After::Unmapped(unmapping) = after {
            return self.unmap_next(unmapping);
        }
        let Some(caller) = caller else {
            return forget(scheme, &after, response);
        };
        if let After::Watching(watching) = after {
            let file = held.as_ref().and_then(Held::description);
            let file = file.map_or(0, |file| file.number());
            return self.watched(caller, watching, (scheme.id(), file), response);
        }
        if let After::Map(request) = after {
            return self.map(caller, request, held, response);
        }
        let mut payload = payload;
        let result = self.finish(scheme, &caller, after, held, response, &mut payload);
        let back = if gives_back { payload.bytes() } else { &[] };
        self.reply_with(&caller, result, 0, back, None);
    }

    fn finish(
        &mut self,
        scheme: &Arc<Scheme>,
        caller: &Caller,
        after: After,
        held: Option<Held>,
        response: Response,
        payload: &mut Buffer,
    ) -> Result<usize> {
        let description = held.as_ref().and_then(Held::description);
        match after {
            After::Value => response.into_regular(),
            After::Zero => response.into_regular().map(|_| 0),
            After::Sent(count) => response.into_regular().map(|_| count),
            After::NewFd { flags, replace } => {
                let new = new_description(scheme, flags, response)?;
                match replace {
                    None => self.insert_fd(caller, new, 0),
                    Some(fd) => self.replace_fd(caller, new, fd),
                }
            }
            After::Advance => {
                let bytes = response.into_regular()?;
                if let Some(description) = description {
                    description.advance(bytes as u64);
                }
                Ok(bytes)
            }
            After::Fcntl { command, argument } => {
                response.into_regular()?;
                let description = description.ok_or(Error::new(EBADFD))?;
                set_flags(description, command, argument)
            }
            After::Stat => {
                response.into_regular()?;
                let device = payload.bytes_mut().first_chunk_mut::<8>();
                *device.ok_or(Error::new(EIO))? = (scheme.id() as u64).to_ne_bytes();
                Ok(0)
            }
            After::StdFs => {
                let Response::Regular {
                    result,
                    notify_on_detach,
                    ..
                } = response
                else {
                    return Err(Error::new(EIO));
                };
                if let Some(description) = description {
                    description.set_notify_on_detach(notify_on_detach);
                }
                result
            }
            After::SeekEnd(distance) => {
                let size = response.into_regular()? as u64;
                let description = description.ok_or(Error::new(EBADFD))?;
                seek(description, size, distance)
            }
            After::Received => {
                let Response::Fds(descriptions) = response else {
                    response.into_regular()?;
                    return Err(Error::new(EIO));
                };
                self.insert_fds(caller, descriptions, payload.bytes_mut())
            }
            After::Map(_) | After::Unmapped(_) | After::Watching(_) => Err(Error::new(EIO)),
        }
    }

    /// Enters a mapping whose pages the scheme has named, takes out what was in its place, and
    /// replies when the schemes of that know.
    fn map(&mut self, caller: Caller, request: MapRequest, held: Option<Held>, response: Response) {
        match self.try_map(&caller, request, held, response) {
            Ok(unmapping) => self.unmap_next(unmapping),
            Err(error) => self.reply(&caller, Err(error)),
        }
    }

    fn try_map(
        &mut self,
        caller: &Caller,
        request: MapRequest,
        held: Option<Held>,
        response: Response,
    ) -> Result<Unmapping> {
        let base = response.into_regular()? as u64;
        let description = held.and_then(Held::take).ok_or(Error::new(EBADFD))?;
        if !base.is_multiple_of(gem::units::PAGE_SIZE) {
            return Err(Error::new(EINVAL));
        }
        let (window, offset) = memfd::resolve(base, request.bytes).ok_or(Error::new(EIO))?;
        let mapping = Mapping {
            description,
            offset: request.offset,
            bytes: request.bytes,
            writeable: request.writeable,
            range: None,
        };
        let memory = match window {
            Window::User(range) => return self.try_map_range(caller, request, range, mapping),
            Window::Object(memory) if request.writeable => Attachment::Shared(memory),
            Window::Object(memory) => {
                Attachment::read_only(memory).map_err(|_| Error::new(ENFILE))?
            }
        };
        let address = request.address.ok_or(Error::new(ENOMEM))?;
        let client = self.client_of(caller)?;
        if !client.space.has_room() {
            return Err(Error::new(ENOMEM));
        }
        let pieces = client.space.carve(address, request.bytes);
        client.space.insert(address, mapping);
        let adopts = false;
        Ok(Unmapping {
            context: client.context,
            caller: Some((
                caller.clone(),
                AfterUnmapping::Mapped {
                    memory,
                    offset,
                    adopts,
                },
            )),
            current: None,
            pieces,
            watched: None,
        })
    }

    /// A mapping of the client's own pages, which may take the place of just those, once. A scheme
    /// that has agreed to another one is told at once that it is gone.
    fn try_map_range(
        &mut self,
        caller: &Caller,
        request: MapRequest,
        range: Arc<Range>,
        mapping: Mapping,
    ) -> Result<Unmapping> {
        let Caller::Client(id, _) = caller else {
            return Err(Error::new(EBUSY));
        };
        let client = self.client_of(caller)?;
        let may =
            client.space.has_room() && range.begin_to_map(*id, request.address, request.bytes);
        let mut unmapping = Unmapping {
            context: client.context,
            caller: None,
            current: None,
            pieces: VecDeque::new(),
            watched: None,
        };
        let after = if may {
            let address = request.address.ok_or(Error::new(ENOMEM))?;
            unmapping.pieces = client.space.carve(address, request.bytes);
            let (memory, offset) = range.memory();
            let range = Some(range);
            client.space.insert(address, Mapping { range, ..mapping });
            AfterUnmapping::Mapped {
                // To copy the pages into it, however they will be mapped.
                memory: Attachment::Shared(memory),
                offset,
                adopts: true,
            }
        } else {
            unmapping.pieces.push_back(mapping);
            AfterUnmapping::Failed(Error::new(EFAULT))
        };
        unmapping.caller = Some((caller.clone(), after));
        Ok(unmapping)
    }

    /// Tells the scheme of the next piece, or the caller that all is told.
    pub(super) fn unmap_next(&mut self, mut unmapping: Unmapping) {
        // The piece that was told may have been the last that kept its description open.
        unmapping.current = None;
        while let Some(piece) = unmapping.pieces.pop_front() {
            let scheme = piece.description.scheme().clone();
            let flags = if piece.writeable {
                MunmapFlags::NEEDS_SYNC
            } else {
                MunmapFlags::empty()
            };
            let number = piece.description.number();
            let args = [number, piece.bytes, flags.bits() as u64, piece.offset, 0];
            unmapping.current = Some(piece);
            let caller = unmapping.caller.as_ref().map(|(caller, _)| caller.clone());
            let context = unmapping.context;
            let call = Call::new(caller, After::Unmapped(unmapping));
            match self.issue(&scheme, context, Opcode::Munmap, args, call) {
                Ok(()) => return,
                // The scheme is gone, and with it all interest in the piece.
                Err(call) => match call.after {
                    After::Unmapped(rest) => unmapping = rest,
                    _ => return,
                },
            }
            unmapping.current = None;
        }
        if let Some(token) = unmapping.watched {
            self.read_told(token);
        }
        match unmapping.caller {
            None => {}
            Some((caller, AfterUnmapping::Nothing)) => self.reply(&caller, Ok(0)),
            Some((caller, AfterUnmapping::Failed(error))) => self.reply(&caller, Err(error)),
            // Only clients map.
            Some((Caller::Thread(_), AfterUnmapping::Mapped { .. })) => {}
            Some((
                Caller::Client(id, request),
                AfterUnmapping::Mapped {
                    memory,
                    offset,
                    adopts,
                },
            )) => {
                let mapped = Reply {
                    request,
                    adopts: adopts.into(),
                    result: 0,
                    value: offset,
                };
                self.send_reply(id, mapped, &[], Some(memory));
            }
        }
    }

    /// Replies with a number.
    pub(super) fn reply(&mut self, caller: &Caller, result: Result<usize>) {
        self.reply_with(caller, result, 0, &[], None);
    }

    /// Replies with all that a reply can have. A client that does not take it is disconnected.
    pub(super) fn reply_with(
        &mut self,
        caller: &Caller,
        result: Result<usize>,
        value: u64,
        payload: &[u8],
        attachment: Option<Attachment>,
    ) {
        let result = Error::mux(result);
        let (id, request) = match caller {
            Caller::Thread(waiter) => {
                let payload = payload.to_vec();
                return waiter.answer(LocalAnswer { result, payload });
            }
            Caller::Client(id, request) => (*id, *request),
        };
        let reply = Reply {
            request,
            adopts: 0,
            result: result as u64,
            value,
        };
        self.send_reply(id, reply, payload, attachment);
    }

    fn send_reply(
        &mut self,
        id: ClientId,
        reply: Reply,
        payload: &[u8],
        attachment: Option<Attachment>,
    ) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.calls.leave(reply.request);
            self.send(id, reply, payload, attachment);
        }
    }
}

/// An answer for which nobody waits any more. A new file gets closed at once; the kernel would
/// forget it, and leave the scheme with a file that nobody can ever close.
fn forget(scheme: &Arc<Scheme>, after: &After, response: Response) {
    if let After::NewFd { flags, .. } = after {
        drop(new_description(scheme, *flags, response));
    }
}

fn new_description(
    scheme: &Arc<Scheme>,
    flags: u32,
    response: Response,
) -> Result<Arc<Description>> {
    match response {
        Response::Regular { result, extra, .. } => {
            let number = result? as u64;
            Description::new(scheme.clone(), number, flags, extra).map(Arc::new)
        }
        Response::Fd(description) => Ok(description),
        Response::Fds(_) => Err(Error::new(EIO)),
    }
}

fn set_flags(description: &Description, command: u64, argument: u64) -> Result<usize> {
    let flags = description.flags();
    match usize::try_from(command) {
        Ok(F_GETFL) => Ok(flags as usize),
        Ok(F_SETFL) => {
            let access = O_ACCMODE as u32;
            description.set_flags((flags & access) | (argument as u32 & !access));
            Ok(0)
        }
        _ => Err(Error::new(EINVAL)),
    }
}

/// Moves the kernel's offset to `distance` from `from`.
pub(super) fn seek(description: &Description, from: u64, distance: i64) -> Result<usize> {
    let position = distance
        .checked_add_unsigned(from)
        .ok_or(Error::new(EOVERFLOW))?;
    let position = u64::try_from(position).map_err(|_| Error::new(EINVAL))?;
    description.set_offset(position);
    Ok(position as usize)
}
