//! DRM calls: Linux's ioctl numbers and structs, as relibc sends them.
//!
//! relibc turns `ioctl(fd, DRM_IOCTL_*)` into one call whose first metadata word is the ioctl's
//! number and whose payload is the struct, without the pointers to counted arrays; those arrays
//! follow the struct, in order of declaration. The answer is written over the payload. Numbers
//! and layouts are those of Linux's `include/uapi/drm/drm.h`, `drm_mode.h` and `i915_drm.h`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Malformed;

/// DRM_IOCTL_VERSION.
pub const VERSION: u64 = 0x00;
/// DRM_IOCTL_GET_UNIQUE.
pub const GET_UNIQUE: u64 = 0x01;
/// DRM_IOCTL_GET_MAGIC.
pub const GET_MAGIC: u64 = 0x02;
/// DRM_IOCTL_GET_CLIENT.
pub const GET_CLIENT: u64 = 0x05;
/// DRM_IOCTL_SET_VERSION.
pub const SET_VERSION: u64 = 0x07;
/// DRM_IOCTL_GEM_CLOSE.
pub const GEM_CLOSE: u64 = 0x09;
/// DRM_IOCTL_GEM_FLINK.
pub const GEM_FLINK: u64 = 0x0a;
/// DRM_IOCTL_GEM_OPEN.
pub const GEM_OPEN: u64 = 0x0b;
/// DRM_IOCTL_GET_CAP.
pub const GET_CAP: u64 = 0x0c;
/// DRM_IOCTL_SET_CLIENT_CAP.
pub const SET_CLIENT_CAP: u64 = 0x0d;
/// DRM_IOCTL_AUTH_MAGIC.
pub const AUTH_MAGIC: u64 = 0x11;
/// DRM_IOCTL_SET_MASTER.
pub const SET_MASTER: u64 = 0x1e;
/// DRM_IOCTL_DROP_MASTER.
pub const DROP_MASTER: u64 = 0x1f;
/// DRM_IOCTL_PRIME_FD_TO_HANDLE: a two-fd call here, because an fd number means nothing to a
/// server. (PRIME_HANDLE_TO_FD, 0x2d, is a dup of the node fd.)
pub const PRIME_FD_TO_HANDLE: u64 = 0x2e;
/// DRM_IOCTL_I915_GEM_MADVISE (0x26 of the driver's own numbers, which begin at 0x40).
pub const I915_GEM_MADVISE: u64 = 0x66;
/// DRM_IOCTL_MODE_CREATE_DUMB.
pub const MODE_CREATE_DUMB: u64 = 0xb2;
/// DRM_IOCTL_MODE_MAP_DUMB.
pub const MODE_MAP_DUMB: u64 = 0xb3;
/// DRM_IOCTL_MODE_DESTROY_DUMB.
pub const MODE_DESTROY_DUMB: u64 = 0xb4;

/// DRM_IOCTL_I915_GEM_USERPTR.
pub const I915_GEM_USERPTR: u64 = 0x73;

/// Capabilities that GET_CAP knows (`DRM_CAP_*`).
pub mod cap {
    /// Dumb buffers can be made.
    pub const DUMB_BUFFER: u64 = 0x1;
    /// Sharing by object fd: [`PRIME_IMPORT`] | [`PRIME_EXPORT`].
    pub const PRIME: u64 = 0x5;
    /// Timestamps are those of the monotonic clock.
    pub const TIMESTAMP_MONOTONIC: u64 = 0x6;
    /// Synchronization objects can be made.
    pub const SYNCOBJ: u64 = 0x13;
    /// Synchronization objects with a timeline can be made.
    pub const SYNCOBJ_TIMELINE: u64 = 0x14;
    /// The highest capability of Linux 6.18 (`DRM_CAP_ATOMIC_ASYNC_PAGE_FLIP`).
    pub const LAST: u64 = 0x15;
    /// In the value of [`PRIME`]: fds can be imported.
    pub const PRIME_IMPORT: u64 = 0x1;
    /// In the value of [`PRIME`]: handles can be exported.
    pub const PRIME_EXPORT: u64 = 0x2;
    /// The highest client capability of Linux 6.18 (`DRM_CLIENT_CAP_PLANE_COLOR_PIPELINE`).
    pub const CLIENT_LAST: u64 = 7;
}

macro_rules! wire_structs {
    ($($(#[$doc:meta])* struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(
            Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout,
        )]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }
    )*};
}

wire_structs! {
    /// VERSION. The three texts follow the struct, each as long as its length field says.
    struct Version {
        /// Major number of the driver.
        major: i32,
        /// Minor number of the driver.
        minor: i32,
        /// Patch level of the driver.
        patchlevel: i32,
        /// Padding of the C struct.
        pad: u32,
        /// In: room for the name, in bytes. Out: its length.
        name_len: u64,
        /// In: room for the date. Out: its length.
        date_len: u64,
        /// In: room for the description. Out: its length.
        desc_len: u64,
    }
    /// GET_UNIQUE. The text follows the struct.
    struct Unique {
        /// In: room in bytes. Out: length.
        unique_len: u64,
    }
    /// GET_MAGIC and AUTH_MAGIC.
    struct Auth {
        /// The magic number.
        magic: u32,
    }
    /// GET_CLIENT: always about the asking open.
    struct Client {
        /// Must be 0.
        index: i32,
        /// Out: 1 where the open is authenticated.
        auth: i32,
        /// Out: process id.
        pid: u64,
        /// Out: user id.
        uid: u64,
        /// Out: 0, as on Linux.
        magic: u64,
        /// Out: 0, as on Linux.
        iocs: u64,
    }
    /// SET_VERSION: −1 means "whatever you have".
    struct SetVersion {
        /// Interface major number.
        di_major: i32,
        /// Interface minor number.
        di_minor: i32,
        /// Driver major number.
        dd_major: i32,
        /// Driver minor number.
        dd_minor: i32,
    }
    /// GEM_CLOSE.
    struct GemClose {
        /// The handle.
        handle: u32,
        /// Ignored, as on Linux.
        pad: u32,
    }
    /// GEM_FLINK.
    struct GemFlink {
        /// In: the handle.
        handle: u32,
        /// Out: the name.
        name: u32,
    }
    /// GEM_OPEN.
    struct GemOpen {
        /// In: the name.
        name: u32,
        /// Out: the new handle.
        handle: u32,
        /// Out: the object's size in bytes.
        size: u64,
    }
    /// GET_CAP and SET_CLIENT_CAP.
    struct Cap {
        /// Which capability.
        capability: u64,
        /// Its value.
        value: u64,
    }
    /// I915_GEM_MADVISE.
    struct Madvise {
        /// In: the handle.
        handle: u32,
        /// In: an [`Advice`](crate::native::Advice).
        madv: u32,
        /// Out: 1 where the object has its pages still, 0 where it was purged.
        retained: u32,
    }
    /// I915_GEM_USERPTR: the handle on pages that a `sendfd` has taken over.
    struct Userptr {
        /// From where they were taken.
        user_ptr: u64,
        /// Their size in bytes.
        user_size: u64,
        /// As they were taken ([`UserptrFlags::from_drm`](crate::userptr::UserptrFlags::from_drm)).
        flags: u32,
        /// Out: the handle.
        handle: u32,
    }
    /// MODE_CREATE_DUMB.
    struct CreateDumb {
        /// Rows.
        height: u32,
        /// Pixels in a row.
        width: u32,
        /// Bits in a pixel.
        bpp: u32,
        /// Must be 0.
        flags: u32,
        /// Out: the handle.
        handle: u32,
        /// Out: bytes from one row to the next.
        pitch: u32,
        /// Out: the object's size in bytes.
        size: u64,
    }
    /// MODE_MAP_DUMB.
    struct MapDumb {
        /// In: the handle.
        handle: u32,
        /// Ignored, as on Linux.
        pad: u32,
        /// Out: the fake offset in bytes.
        offset: u64,
    }
    /// MODE_DESTROY_DUMB.
    struct DestroyDumb {
        /// The handle.
        handle: u32,
    }
}

/// A DRM call, checked for form: number and payload length agree, the struct is copied out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Call {
    /// The driver's version and texts.
    Version(Version),
    /// The device's bus id.
    GetUnique(Unique),
    /// This open's magic number.
    GetMagic(Auth),
    /// As master: lets another open use names.
    AuthMagic(Auth),
    /// About the asking open.
    GetClient(Client),
    /// Agrees on interface versions.
    SetVersion(SetVersion),
    /// Drops a handle.
    GemClose(GemClose),
    /// Gives an object its global name.
    GemFlink(GemFlink),
    /// A new handle on a named object.
    GemOpen(GemOpen),
    /// What the device can do.
    GetCap(Cap),
    /// What the client can do.
    SetClientCap(Cap),
    /// Become master.
    SetMaster,
    /// Cease to be master.
    DropMaster,
    /// Handle of the object behind the second fd; two-fd calls only.
    PrimeFdToHandle,
    /// The handle on a client's own pages.
    Userptr(Userptr),
    /// Whether a buffer's contents are worth keeping.
    Madvise(Madvise),
    /// A buffer for pixels.
    CreateDumb(CreateDumb),
    /// Where to map it.
    MapDumb(MapDumb),
    /// GEM_CLOSE by another name.
    DestroyDumb(DestroyDumb),
}

/// The longest struct of a call, in bytes: what must be read of a payload to decode it.
pub const HEAD: usize = 40;

impl Call {
    /// The call of this number with a payload of `length` bytes that begins with `head` (at least
    /// its first [`HEAD`] bytes, or all of it where it is shorter). The length must be exactly
    /// that of the struct and the arrays that the struct says follow it.
    pub fn decode(number: u64, head: &[u8], length: usize) -> Result<Self, Malformed> {
        let payload = Payload { head, length };
        Ok(match number {
            VERSION => {
                let version: Version = payload.head()?;
                payload.arrays::<Version>([
                    version.name_len,
                    version.date_len,
                    version.desc_len,
                ])?;
                Self::Version(version)
            }
            GET_UNIQUE => {
                let unique: Unique = payload.head()?;
                payload.arrays::<Unique>([unique.unique_len])?;
                Self::GetUnique(unique)
            }
            GET_MAGIC => Self::GetMagic(payload.whole()?),
            AUTH_MAGIC => Self::AuthMagic(payload.whole()?),
            GET_CLIENT => Self::GetClient(payload.whole()?),
            SET_VERSION => Self::SetVersion(payload.whole()?),
            GEM_CLOSE => Self::GemClose(payload.whole()?),
            GEM_FLINK => Self::GemFlink(payload.whole()?),
            GEM_OPEN => Self::GemOpen(payload.whole()?),
            GET_CAP => Self::GetCap(payload.whole()?),
            SET_CLIENT_CAP => Self::SetClientCap(payload.whole()?),
            SET_MASTER => payload.none(Self::SetMaster)?,
            DROP_MASTER => payload.none(Self::DropMaster)?,
            PRIME_FD_TO_HANDLE => payload.none(Self::PrimeFdToHandle)?,
            I915_GEM_USERPTR => Self::Userptr(payload.whole()?),
            I915_GEM_MADVISE => Self::Madvise(payload.whole()?),
            MODE_CREATE_DUMB => Self::CreateDumb(payload.whole()?),
            MODE_MAP_DUMB => Self::MapDumb(payload.whole()?),
            MODE_DESTROY_DUMB => Self::DestroyDumb(payload.whole()?),
            _ => return Err(Malformed::UnknownCall(number)),
        })
    }
}

/// A payload as far as it was read, and how long it is.
struct Payload<'a> {
    head: &'a [u8],
    length: usize,
}

impl Payload<'_> {
    fn head<T: FromBytes>(&self) -> Result<T, Malformed> {
        let (head, _) = T::read_from_prefix(self.head).map_err(|_| Malformed::PayloadLength)?;
        Ok(head)
    }

    fn whole<T: FromBytes>(&self) -> Result<T, Malformed> {
        self.arrays::<T>([])?;
        self.head()
    }

    fn none(&self, call: Call) -> Result<Call, Malformed> {
        self.arrays::<()>([])?;
        Ok(call)
    }

    /// Whether arrays of these lengths in bytes behind a `T` are the whole payload.
    fn arrays<T>(&self, lengths: impl IntoIterator<Item = u64>) -> Result<(), Malformed> {
        let total = lengths
            .into_iter()
            .try_fold(size_of::<T>() as u64, u64::checked_add);
        if total == Some(self.length as u64) {
            Ok(())
        } else {
            Err(Malformed::PayloadLength)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structs_have_the_sizes_of_the_c_structs() {
        assert_eq!(size_of::<Version>(), HEAD);
        assert_eq!(size_of::<Client>(), 40);
        assert_eq!(size_of::<SetVersion>(), 16);
        assert_eq!(size_of::<GemOpen>(), 16);
        assert_eq!(size_of::<Madvise>(), 12);
        assert_eq!(size_of::<CreateDumb>(), 32);
        assert_eq!(size_of::<MapDumb>(), 16);
    }

    #[test]
    fn a_payload_one_byte_short_or_long_is_refused() {
        let bytes = [0u8; 64];
        for (number, length) in [
            (GEM_CLOSE, 8),
            (GEM_FLINK, 8),
            (GEM_OPEN, 16),
            (GET_CAP, 16),
            (SET_MASTER, 0),
            (I915_GEM_USERPTR, 24),
            (I915_GEM_MADVISE, 12),
            (MODE_CREATE_DUMB, 32),
            (MODE_DESTROY_DUMB, 4),
            (VERSION, 40),
            (GET_UNIQUE, 8),
        ] {
            assert!(
                Call::decode(number, &bytes[..length], length).is_ok(),
                "{number:#x}"
            );
            assert_eq!(
                Call::decode(number, &bytes[..length + 1], length + 1),
                Err(Malformed::PayloadLength)
            );
            if length > 0 {
                assert_eq!(
                    Call::decode(number, &bytes[..length - 1], length - 1),
                    Err(Malformed::PayloadLength)
                );
            }
        }
    }

    #[test]
    fn array_lengths_that_wrap_are_refused() {
        let version = Version {
            name_len: u64::MAX,
            date_len: 1,
            ..Version::default()
        };
        assert_eq!(
            Call::decode(VERSION, version.as_bytes(), 40),
            Err(Malformed::PayloadLength)
        );
    }

    #[test]
    fn ioctls_that_we_do_not_have_are_unknown() {
        for number in [0x03, 0x2d, 0x3a, 0x40, 0xa0, 0xff] {
            assert_eq!(
                Call::decode(number, &[], 0),
                Err(Malformed::UnknownCall(number))
            );
        }
    }
}
