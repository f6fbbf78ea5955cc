//! What clients, root, the platform and the hardware do.

use arbitrary::Arbitrary;

use crate::world::Mood;

/// One step. Any value of any field means something: opens, ranges and waiters are counted round and
/// round among those that are there.
#[derive(Arbitrary, Clone, Copy, Debug)]
#[allow(missing_docs, reason = "fields are what the operations call them")]
pub enum Step {
    /// A process opens the node.
    Open,
    /// It closes it, or dies.
    CloseOpen { open: u8 },
    /// Root revokes it.
    RevokeOpen { open: u8 },
    /// A client registers a range: the platform is to take it over.
    Begin {
        open: u8,
        start: u8,
        pages: u8,
        read_only: bool,
        mood: Mood,
    },
    /// The platform has, or has not been able to.
    Finish { range: u8, fine: bool },
    /// Its client does not wait for it any more.
    Forget { range: u8 },
    /// Its client asks for the handle, or somebody `wrong` does.
    Claim { range: u8, wrong: bool },
    /// Its client maps what was taken; 0 and 1 are `wrong`.
    Map { range: u8, wrong: u8 },
    /// Some of it is unmapped, by its client or by a child of it.
    Unmap {
        range: u8,
        skip: u8,
        pages: u8,
        child: bool,
    },
    /// Some of it is mapped for a child.
    Fork { range: u8, skip: u8, pages: u8 },
    /// Its client closes its handle.
    CloseHandle { range: u8 },
    /// Somebody gets a handle by name.
    Share { range: u8, open: u8 },
    /// And closes it.
    CloseShare { range: u8 },
    /// Its client registers new pages for the old handle, or a stranger does.
    Again { range: u8, stranger: bool },
    /// Its client binds it for a GPU.
    Bind {
        range: u8,
        space: u8,
        page: u8,
        mood: Mood,
    },
    /// Somebody else tries to.
    BindShare { range: u8 },
    /// Its client takes the newest binding away.
    Unbind { range: u8 },
    /// A request looks at the range's pages, and goes on later.
    Wait { range: u8 },
    /// It goes on.
    Wake { waiter: u8, page: u8 },
}
