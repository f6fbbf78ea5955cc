//! Who may what: `docs/authority.md` as code, and the only place that decides it.
//!
//! What an fd is decides, not who holds it. A node is asked here before each call; object fds
//! carry their rights with them; texts are filtered by the reader's uid.

use gem::pages::PageSource;
use gem::units::{Identity, Uid};
use gem::{Device, Node, OpenId};
use gem_wire::{drm, native};
use syscall::error::EACCES;

use crate::answer::Errno;

/// What a call needs of the node that it is made on: the columns of the table, from left to
/// right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Right {
    /// Every node may: buffers and sharing by fd.
    Every,
    /// Primary nodes may.
    Primary,
    /// Authenticated primary nodes may: global names.
    Names,
    /// The master may.
    Master,
    /// Who was master, or is root, may become or cease to be master.
    Mastery,
    /// Root may, through any node: what concerns other people's things.
    Root,
}

impl Right {
    /// What this native call needs.
    pub fn of_native(call: &native::Call) -> Self {
        use native::Call::*;
        match call {
            Hello { .. }
            | Create { .. }
            | Close { .. }
            | Map { .. }
            | Size { .. }
            | Import
            | Userptr { .. }
            | Advise { .. }
            | GetLimit { .. } => Self::Every,
            SetLimit { .. } | Revoke { .. } => Self::Root,
            Flink { .. } | Open { .. } => Self::Names,
            GetMagic => Self::Primary,
            AuthMagic { .. } => Self::Master,
        }
    }

    /// What this DRM call needs.
    pub fn of_drm(call: &drm::Call) -> Self {
        use drm::Call::*;
        match call {
            Version(_) | GetCap(_) | GemClose(_) | PrimeFdToHandle | Madvise(_) | Userptr(_) => {
                Self::Every
            }
            GetUnique(_) | GetClient(_) | SetClientCap(_) | GetMagic(_) | CreateDumb(_)
            | MapDumb(_) | DestroyDumb(_) => Self::Primary,
            GemFlink(_) | GemOpen(_) => Self::Names,
            AuthMagic(_) | SetVersion(_) => Self::Master,
            SetMaster | DropMaster => Self::Mastery,
        }
    }
}

/// Whether this open may, or EACCES.
#[inline]
pub fn check<S: PageSource>(device: &Device<S>, open: OpenId, right: Right) -> Result<(), Errno> {
    if right == Right::Every || allows(device, open, right) {
        Ok(())
    } else {
        Err(Errno(EACCES))
    }
}

fn allows<S: PageSource>(device: &Device<S>, open: OpenId, right: Right) -> bool {
    match right {
        Right::Every => true,
        Right::Root => is_root(device, open),
        _ if device.node(open) != Some(Node::Primary) => false,
        Right::Primary => true,
        Right::Names => device.is_authenticated(open) || is_root(device, open),
        Right::Master => device.is_master(open),
        Right::Mastery => device.was_master(open) || is_root(device, open),
    }
}

fn is_root<S: PageSource>(device: &Device<S>, open: OpenId) -> bool {
    device
        .identity(open)
        .is_some_and(|who| who.uid == Uid::ROOT)
}

/// Whose things `reader` may be told about: everybody's (`None`), or one uid's.
pub fn sees_only(reader: &Identity) -> Option<Uid> {
    (reader.uid != Uid::ROOT).then_some(reader.uid)
}

/// Whether `reader` may be told where in physical memory something lies.
pub fn sees_physical(reader: &Identity) -> bool {
    reader.uid == Uid::ROOT
}

/// Whether `reader` may be told about what belongs to `owner`.
pub fn may_see(reader: &Identity, owner: Uid) -> bool {
    sees_only(reader).is_none_or(|uid| uid == owner)
}
