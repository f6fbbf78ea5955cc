//! A picture in a buffer: a small header, then the pixels.
//!
//! A buffer does not know what is in it. Programs that agree on nothing else can agree on this:
//! 32 bytes of header at the start, pixels from byte 64 on, rows without gaps, four bytes (red,
//! green, blue, alpha) a pixel.

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
