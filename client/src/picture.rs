//! A picture in a buffer: a small header, then the pixels.
//!
//! A buffer does not know what is in it. Programs that agree on nothing else can agree on this
//! (numbers in the machine's byte order):
//!
//! | bytes | |
//! |---|---|
//! | 0–7 | `GEMPIC01` |
//! | 8–11 | width in pixels |
//! | 12–15 | height in rows |
//! | 16–23 | where the pixels begin, in bytes |
//! | 24–31 | 0 |
//!
//! Pixels are four bytes each (red, green, blue, alpha, not multiplied), rows follow each other
//! without gaps. The header is written last, so that a buffer that has one is complete.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::buffer::Buffer;
use crate::card::Card;
use crate::error::{Error, Result};
use crate::mapping::Mapping;
use alloc::vec::Vec;
use syscall::error::EINVAL;

/// Where pixels begin, in bytes.
const PIXELS: usize = 64;
const MAGIC: [u8; 8] = *b"GEMPIC01";
const BYTES_PER_PIXEL: u64 = 4;

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Header {
    magic: [u8; 8],
    width: u32,
    height: u32,
    /// Where pixels begin, in bytes.
    pixels: u64,
    reserved: u64,
}

/// Pixels with their measures.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Red, green, blue, alpha; row by row.
    pub rgba: Vec<u8>,
}

impl Picture {
    /// Puts the picture into a new buffer.
    ///
    /// # Errors
    ///
    /// EINVAL where the measures are not those of the pixels; those of making and mapping a
    /// buffer.
    pub fn store(&self, card: &Card) -> Result<Buffer> {
        let size = size(self.width, self.height)
            .filter(|size| *size == self.rgba.len() as u64)
            .ok_or(Error::new("store a picture of these measures", EINVAL))?;
        let buffer = card.create(PIXELS as u64 + size)?;
        let mapping = buffer.map()?;
        let header = Header {
            magic: MAGIC,
            width: self.width,
            height: self.height,
            pixels: PIXELS as u64,
            reserved: 0,
        };
        mapping.write_at(PIXELS, &self.rgba)?;
        mapping.write_at(0, header.as_bytes())?;
        Ok(buffer)
    }

    /// Takes the picture out of a mapped buffer. Whoever wrote it is not trusted.
    ///
    /// # Errors
    ///
    /// EINVAL where there is no picture in it.
    pub fn load(mapping: &Mapping) -> Result<Self> {
        let none = Error::new("find a picture in the buffer", EINVAL);
        let mut bytes = [0; size_of::<Header>()];
        mapping.read_at(0, &mut bytes)?;
        let header = Header::read_from_bytes(&bytes).map_err(|_| none)?;
        let room = mapping.len() as u64;
        let size = size(header.width, header.height).ok_or(none)?;
        let end = header.pixels.checked_add(size).ok_or(none)?;
        if header.magic != MAGIC || end > room {
            return Err(none);
        }
        // Both fit the mapping, which fits the address space.
        let mut rgba = alloc::vec![0; size as usize];
        mapping.read_at(header.pixels as usize, &mut rgba)?;
        Ok(Self {
            width: header.width,
            height: header.height,
            rgba,
        })
    }
}

/// The size of the pixels in bytes; `None` for an empty picture and one too large to be.
fn size(width: u32, height: u32) -> Option<u64> {
    let pixels = u64::from(width).checked_mul(height.into())?;
    pixels.checked_mul(BYTES_PER_PIXEL).filter(|&size| size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::tests::anonymous;
    use crate::object_fd::Rights;

    fn header(magic: [u8; 8], width: u32, height: u32, pixels: u64) -> Mapping {
        let mapping = anonymous(4096, Rights::ReadWrite);
        let header = Header {
            magic,
            width,
            height,
            pixels,
            reserved: 0,
        };
        mapping.write_at(0, header.as_bytes()).unwrap();
        mapping
    }

    #[test]
    fn a_picture_that_just_fits_is_found() {
        let picture = Picture::load(&header(MAGIC, 8, 4, 4096 - 128)).unwrap();
        assert_eq!((picture.width, picture.height), (8, 4));
        assert_eq!(picture.rgba, [0; 128]);
    }

    #[test]
    fn a_header_that_lies_is_no_picture() {
        for (magic, width, height, pixels) in [
            (*b"GEMPIC02", 1, 1, 64),
            ([0; 8], 1, 1, 64),
            (MAGIC, 0, 1, 64),
            (MAGIC, 1, 0, 64),
            (MAGIC, 8, 4, 4096 - 127),
            (MAGIC, 1, 1, 4096),
            (MAGIC, 1, 1, u64::MAX),
            (MAGIC, u32::MAX, u32::MAX, 64),
            (MAGIC, 1 << 31, 1 << 31, 64),
        ] {
            let error = Picture::load(&header(magic, width, height, pixels)).unwrap_err();
            assert_eq!(error.errno(), EINVAL, "{width} x {height} at {pixels}");
        }
    }
}
