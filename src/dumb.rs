//! Dumb buffers: how many bytes pixels take.

use crate::units::PageCount;

/// What rows are rounded up to, in bytes: what display engines want of a pitch.
const PITCH_ALIGNMENT: u32 = 64;

/// The shape of a dumb buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Shape {
    /// Bytes from one row to the next.
    pub(crate) pitch: u32,
    /// Size of the buffer.
    pub(crate) pages: PageCount,
}

/// The shape of `width` × `height` pixels of `bits` each, which are rounded up to whole bytes.
/// `None` for a side of 0, for no bits or more than 32, and where a number overflows.
pub(crate) fn shape(width: u32, height: u32, bits: u32) -> Option<Shape> {
    if width == 0 || height == 0 || !(1..=32).contains(&bits) {
        return None;
    }
    let row = width.checked_mul(bits.div_ceil(8))?;
    let pitch = row.checked_next_multiple_of(PITCH_ALIGNMENT)?;
    let bytes = u64::from(pitch).checked_mul(height.into())?;
    Some(Shape {
        pitch,
        pages: PageCount::covering(bytes)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_rounded_up_to_64_bytes_and_the_whole_to_pages() {
        let shape = shape(17, 3, 24).unwrap();
        assert_eq!(shape.pitch, 64);
        assert_eq!(shape.pages.get(), 1);
        assert_eq!(super::shape(1024, 768, 32).unwrap().pages.get(), 768);
        assert_eq!(super::shape(9, 1, 1).unwrap().pitch, 64);
    }

    #[test]
    fn pixels_that_cannot_be_are_refused() {
        for (width, height, bits) in [
            (0, 1, 32),
            (1, 0, 32),
            (1, 1, 0),
            (1, 1, 33),
            (u32::MAX, 1, 32),
            (u32::MAX, 1, 8),
            (1 << 30, 1, 32),
        ] {
            assert_eq!(shape(width, height, bits), None, "{width}x{height}@{bits}");
        }
    }
}
