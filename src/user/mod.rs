//! A client's own pages as an object's: what a range, and a set of pages that was taken over, are.
//!
//! A [`UserRange`] is what a client names, a [`UserSet`] what the platform made of it: pages that
//! the client maps and the daemon has a mapping of. Taking pages over takes time and a worker, so
//! the server does it with its platform; this crate never looks at an address of a client's.

mod range;
mod source;
mod state;

pub(crate) use state::{Registrar, User};

pub use range::{RangeError, UserAddr, UserFault, UserRange, UserSet};
pub use source::{Errand, SpaceFd, UserSource};
