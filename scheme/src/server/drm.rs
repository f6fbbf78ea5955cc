//! DRM calls: Linux's semantics and errno, structs answered over the payload.
//!
//! The same methods of the device as for native calls, in Linux's form. The struct was copied
//! before the first check, so a client that changes its payload meanwhile changes nothing here;
//! the payload is written when the call has succeeded, and not otherwise.

use gem::OpenId;
use gem::units::Pid;
use gem_wire::drm::{
    Auth, Call, Cap, Client, CreateDumb, DestroyDumb, GemClose, GemFlink, GemOpen, Madvise,
    MapDumb, SetVersion, Unique, Version, cap,
};
use gem_wire::native::Advice;
use syscall::error::{EINVAL, EOPNOTSUPP};
use zerocopy::{Immutable, IntoBytes};

use super::native::as_meant;
use super::{Reply, Server, Stop, handle, handle_to_close, name};
use crate::answer::{Answer, Errno};
use crate::authority::Right;
use crate::payload::Payload;
use crate::platform::Platform;

const NAME: &str = "gem";
const DATE: &str = "2026";
const DESCRIPTION: &str = "Graphics memory for Redox";
/// The bus id. There is no device on a bus behind buffers in memory.
const UNIQUE: &str = "gem";

/// The driver's version.
const DRIVER: (i32, i32, i32) = (1, 0, 0);
/// The DRM interface version that Linux 6.18 speaks (`DRM_IF_MAJOR`, `DRM_IF_MINOR`).
const INTERFACE: (i32, i32) = (1, 4);

impl<P: Platform> Server<P> {
    pub(super) fn drm(
        &mut self,
        open: OpenId,
        caller: Pid,
        call: Call,
        payload: &mut Payload,
    ) -> Reply {
        self.allowed(open, Right::of_drm(&call))?;
        match call {
            Call::Version(asked) => version(asked, payload),
            Call::GetUnique(asked) => unique(asked, payload),
            Call::GetMagic(_) => {
                let magic = self.device.magic(open)?.get();
                put(payload, Auth { magic })
            }
            Call::AuthMagic(Auth { magic }) => {
                self.authenticate(magic)?;
                Ok(Answer::DONE)
            }
            Call::GetClient(asked) => self.get_client(open, asked, payload),
            Call::SetVersion(asked) => set_version(asked, payload),
            Call::GemClose(GemClose { handle, .. }) | Call::DestroyDumb(DestroyDumb { handle }) => {
                self.device.close_handle(open, handle_to_close(handle)?)?;
                Ok(Answer::DONE)
            }
            Call::GemFlink(asked) => {
                let name = self.device.flink(open, handle(asked.handle)?)?.get();
                put(payload, GemFlink { name, ..asked })
            }
            Call::GemOpen(asked) => {
                let (handle, pages) = self.device.open_name(open, name(asked.name)?)?;
                let answer = GemOpen {
                    handle: handle.get(),
                    size: pages.bytes(),
                    ..asked
                };
                put(payload, answer)
            }
            Call::GetCap(asked) => {
                let value = capability(asked.capability)?;
                put(payload, Cap { value, ..asked })
            }
            Call::SetClientCap(asked) => Err(client_capability(asked.capability).into()),
            Call::SetMaster => {
                self.device.set_master(open)?;
                Ok(Answer::DONE)
            }
            Call::DropMaster => {
                self.device.drop_master(open)?;
                Ok(Answer::DONE)
            }
            Call::Userptr(asked) => put(payload, self.claim_drm(open, caller, asked)?),
            Call::Madvise(asked) => self.madvise(open, asked, payload),
            Call::CreateDumb(asked) => self.create_dumb(open, asked, payload),
            Call::MapDumb(asked) => {
                let offset = self.device.map_offset(open, handle(asked.handle)?)?.get();
                put(payload, MapDumb { offset, ..asked })
            }
            // Comes as an operation of its own, with two files.
            Call::PrimeFdToHandle => Err(Errno(EINVAL).into()),
        }
    }

    fn create_dumb(&mut self, open: OpenId, asked: CreateDumb, payload: &mut Payload) -> Reply {
        if asked.flags != 0 {
            return Err(Errno(EINVAL).into());
        }
        let dumb = self
            .device
            .create_dumb(open, asked.width, asked.height, asked.bpp)?;
        let answer = CreateDumb {
            handle: dumb.handle.get(),
            pitch: dumb.pitch,
            size: dumb.size,
            ..asked
        };
        put(payload, answer)
    }

    fn madvise(&mut self, open: OpenId, asked: Madvise, payload: &mut Payload) -> Reply {
        let advice = Advice::from_number(asked.madv.into()).ok_or(Errno(EINVAL))?;
        let handle = handle(asked.handle)?;
        let retained = self.device.advise(open, handle, as_meant(advice))?.into();
        put(payload, Madvise { retained, ..asked })
    }

    fn get_client(&self, open: OpenId, asked: Client, payload: &mut Payload) -> Reply {
        let identity = self.device.identity(open).ok_or(Errno(EINVAL))?;
        if asked.index != 0 {
            return Err(Errno(EINVAL).into());
        }
        let answer = Client {
            index: 0,
            auth: self.allowed(open, Right::Names).is_ok().into(),
            pid: identity.pid.0,
            uid: identity.uid.0.into(),
            magic: 0,
            iocs: 0,
        };
        put(payload, answer)
    }
}

/// Writes the answer over the payload, which is exactly as long: the decoder saw to that.
fn put(payload: &mut Payload, answer: impl IntoBytes + Immutable) -> Reply {
    payload.put(0, answer.as_bytes());
    Ok(Answer::DONE)
}

fn version(asked: Version, payload: &mut Payload) -> Reply {
    let (major, minor, patchlevel) = DRIVER;
    let mut at = size_of::<Version>();
    for (room, text) in [
        (asked.name_len, NAME),
        (asked.date_len, DATE),
        (asked.desc_len, DESCRIPTION),
    ] {
        at += put_text(payload, at, room, text);
    }
    let answer = Version {
        major,
        minor,
        patchlevel,
        pad: 0,
        name_len: NAME.len() as u64,
        date_len: DATE.len() as u64,
        desc_len: DESCRIPTION.len() as u64,
    };
    put(payload, answer)
}

fn unique(asked: Unique, payload: &mut Payload) -> Reply {
    put_text(payload, size_of::<Unique>(), asked.unique_len, UNIQUE);
    let unique_len = UNIQUE.len() as u64;
    put(payload, Unique { unique_len })
}

/// Puts as much of `text` as there is `room` for at byte `at`, and returns the room. The decoder
/// has seen that all the rooms together end where the payload does.
fn put_text(payload: &mut Payload, at: usize, room: u64, text: &str) -> usize {
    let room = usize::try_from(room).unwrap_or(0);
    let length = room.min(text.len());
    payload.put(at, &text.as_bytes()[..length]);
    room
}

fn set_version(asked: SetVersion, payload: &mut Payload) -> Reply {
    let (di_major, di_minor) = INTERFACE;
    let (dd_major, dd_minor, _) = DRIVER;
    check_version((asked.di_major, asked.di_minor), INTERFACE)?;
    check_version((asked.dd_major, asked.dd_minor), (dd_major, dd_minor))?;
    let answer = SetVersion {
        di_major,
        di_minor,
        dd_major,
        dd_minor,
    };
    put(payload, answer)
}

/// A major number of −1 asks for nothing.
fn check_version(asked: (i32, i32), have: (i32, i32)) -> Result<(), Stop> {
    let fits = asked.0 == have.0 && (0..=have.1).contains(&asked.1);
    if asked.0 == -1 || fits {
        Ok(())
    } else {
        Err(Errno(EINVAL).into())
    }
}

fn capability(capability: u64) -> Result<u64, Stop> {
    match capability {
        cap::DUMB_BUFFER | cap::TIMESTAMP_MONOTONIC => Ok(1),
        cap::PRIME => Ok(cap::PRIME_IMPORT | cap::PRIME_EXPORT),
        // Not an error, as on Linux: whoever asks is told that there are none.
        cap::SYNCOBJ | cap::SYNCOBJ_TIMELINE => Ok(0),
        // The others are about displays, which we do not have.
        1..=cap::LAST => Err(Errno(EOPNOTSUPP).into()),
        _ => Err(Errno(EINVAL).into()),
    }
}

/// All client capabilities are about displays.
fn client_capability(capability: u64) -> Errno {
    match capability {
        1..=cap::CLIENT_LAST => Errno(EOPNOTSUPP),
        _ => Errno(EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_agreed_on_when_it_is_ours_or_older() {
        assert!(check_version((-1, 9), INTERFACE).is_ok());
        assert!(check_version((1, 0), INTERFACE).is_ok());
        assert!(check_version((1, 4), INTERFACE).is_ok());
        for asked in [(1, 5), (1, -1), (2, 0), (0, 0), (-2, 0)] {
            assert!(check_version(asked, INTERFACE).is_err(), "{asked:?}");
        }
    }

    #[test]
    fn texts_are_cut_to_the_room_given_and_stay_in_it() {
        let mut memory = [0u8; 47];
        let asked = Version {
            name_len: 2,
            date_len: 0,
            desc_len: 5,
            ..Version::default()
        };
        // SAFETY: the test's own memory outlives the payload.
        let mut payload =
            unsafe { Payload::from_sqe(memory.as_mut_ptr() as u64, memory.len() as u64) };
        assert_eq!(version(asked, &mut payload), Ok(Answer::DONE));
        assert_eq!(&memory[40..], b"geGraph");
        assert_eq!(memory[16..24], (NAME.len() as u64).to_le_bytes());
    }
}
