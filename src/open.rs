//! Opens: one client's node, with its handles and its standing.
//!
//! State only: the device changes it. An open is nobody's until it is bound, and then its uid's
//! for good; what it may do follows from `node`, `authenticated`, `was_master` and `revoked`, and
//! is decided by the server.

use alloc::collections::BTreeMap;

use hashbrown::HashSet;

use crate::events::Inbox;
use crate::handles::{HandleTable, Reserved};
use crate::ledger::AccountKey;
use crate::slots::Key;
use crate::units::Identity;
use crate::usage::Usage;
use crate::user::UserAddr;

/// Which node was opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Node {
    /// `card0`: everything.
    Primary,
    /// `renderD128`: no names, no master.
    Render,
}

/// A magic number: what an open shows to the master to be authenticated.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Magic(core::num::NonZeroU32);

impl Magic {
    /// The largest number: 31 bits, so that no answer's low half is an errno.
    pub(crate) const MAX: u32 = i32::MAX as u32;

    /// The magic number `raw`, or `None` for zero.
    pub fn new(raw: u32) -> Option<Self> {
        core::num::NonZeroU32::new(raw).map(Self)
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// Whose an open is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) identity: Identity,
    pub(crate) account: AccountKey,
}

/// An object of a client's own pages whose handle the client has not asked for yet.
#[derive(Debug)]
pub(crate) struct Unclaimed {
    pub(crate) object: Key,
    pub(crate) reserved: Reserved,
}

/// One client's node.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) node: Node,
    /// Its number for people: counts up, never used again.
    pub(crate) client: u64,
    /// `None` until it is bound.
    pub(crate) owner: Option<Owner>,
    pub(crate) handles: HandleTable,
    /// Objects that have pages mapped through this node.
    pub(crate) mapped: HashSet<Key>,
    /// What is or was taken over through this open and not claimed, by where it began.
    pub(crate) unclaimed: BTreeMap<UserAddr, Unclaimed>,
    /// Object fds that were made through this open and are not closed.
    pub(crate) object_fds: u32,
    /// How much memory it holds.
    pub(crate) usage: Usage,
    pub(crate) magic: Option<Magic>,
    pub(crate) authenticated: bool,
    pub(crate) was_master: bool,
    /// Nothing new is made through it.
    pub(crate) revoked: bool,
    /// What it is told and has not read.
    pub(crate) inbox: Inbox,
}

impl Open {
    pub(crate) fn new(node: Node, client: u64, inbox: Inbox) -> Self {
        Self {
            node,
            client,
            owner: None,
            handles: HandleTable::default(),
            mapped: HashSet::default(),
            unclaimed: BTreeMap::new(),
            object_fds: 0,
            usage: Usage::default(),
            magic: None,
            authenticated: false,
            was_master: false,
            revoked: false,
            inbox,
        }
    }
}
