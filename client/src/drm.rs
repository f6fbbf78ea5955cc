//! The DRM calls that have no native form, or that somebody wants in their DRM form: Linux's
//! structs, sent as relibc sends them.

use gem_wire::drm;
pub use gem_wire::drm::{
    Auth, Cap, Client, CreateDumb, GemClose, GemFlink, GemOpen, MapDumb, SetVersion, Userptr, cap,
};
use syscall::error::EINVAL;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::card::Card;
use crate::error::{Error, Result};

/// MODE_CREATE_DUMB. The handle is the caller's to close.
///
/// # Errors
///
/// EINVAL for pixels that cannot be; EACCES on a render node; ENOMEM, EMFILE.
pub fn create_dumb(card: &Card, width: u32, height: u32, bpp: u32) -> Result<CreateDumb> {
    let asked = CreateDumb {
        width,
        height,
        bpp,
        ..CreateDumb::default()
    };
    call(card, "make a dumb buffer", drm::MODE_CREATE_DUMB, asked)
}

/// GET_CAP.
///
/// # Errors
///
/// EOPNOTSUPP for what concerns displays, EINVAL for what is unknown.
pub fn capability(card: &Card, capability: u64) -> Result<u64> {
    let asked = Cap {
        capability,
        value: 0,
    };
    Ok(call(card, "ask for a capability", drm::GET_CAP, asked)?.value)
}

/// GET_CLIENT: what the server knows of this open.
///
/// # Errors
///
/// EACCES on a render node.
pub fn client(card: &Card) -> Result<Client> {
    call(card, "ask who we are", drm::GET_CLIENT, Client::default())
}

/// I915_GEM_USERPTR, and what has to be around it here. The handle is the caller's to close.
///
/// # Errors
///
/// As [`Card::userptr`], and those of the call on Linux, for the same reasons.
///
/// # Safety
///
/// As [`Card::userptr`], for the memory that `asked` names.
pub unsafe fn userptr(card: &Card, asked: Userptr) -> Result<Userptr> {
    // SAFETY: by contract.
    unsafe { crate::userptr::register_as_asked(card, asked) }
}

/// SET_MASTER.
///
/// # Errors
///
/// EACCES where this open was never master, EBUSY where another one is.
pub fn set_master(card: &Card) -> Result<()> {
    let number = drm::SET_MASTER;
    card.node.call_words("become master", &[number], &mut [])?;
    Ok(())
}

/// DROP_MASTER.
///
/// # Errors
///
/// EACCES where this open was never master, EINVAL where it is not now.
pub fn drop_master(card: &Card) -> Result<()> {
    let number = drm::DROP_MASTER;
    card.node
        .call_words("cease to be master", &[number], &mut [])?;
    Ok(())
}

/// Any DRM call whose argument is this struct, below a page in size. It travels from the stack, so
/// that it never lies in a mapping of a GEM object (see the crate's documentation).
///
/// # Errors
///
/// EINVAL for a struct of a page or more, which would be lent to the server instead of copied;
/// whatever the server answers.
pub fn call<T>(card: &Card, action: &'static str, number: u64, mut argument: T) -> Result<T>
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout,
{
    if size_of::<T>() > gem_wire::MAX_PAYLOAD {
        return Err(Error::new(action, EINVAL));
    }
    card.node
        .call_words(action, &[number], argument.as_mut_bytes())?;
    Ok(argument)
}
