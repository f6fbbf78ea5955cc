//! Numbers of opens, objects and object fds inside the device. Never used twice.

use crate::slots::Key;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub(crate) Key);

        impl $name {
            /// As one number, for people and for inode numbers.
            pub fn as_u64(self) -> u64 {
                self.0.as_u64()
            }
        }
    )*};
}

ids! {
    /// An open: one client's node.
    OpenId
    /// An object.
    ObjectId
    /// An fd on an object.
    ObjectFdId
}
