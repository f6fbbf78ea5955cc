//! Pictures from and to PNG files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Error, Seek};
use std::path::Path;
use std::vec::Vec;

use alloc::format;
use png::{BitDepth, ColorType, Decoder, Encoder, Transformations};

use crate::picture::Picture;

impl Picture {
    /// Reads a PNG; whatever its pixels are, they become red, green, blue, alpha.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is no PNG; the message names the file.
    pub fn read_png(path: &Path) -> io::Result<Self> {
        let file = File::open(path).map_err(|error| naming("open", path, error))?;
        decode(BufReader::new(file)).map_err(|error| naming("read", path, error))
    }

    /// Writes a PNG.
    ///
    /// # Errors
    ///
    /// The file cannot be written; the message names it.
    pub fn write_png(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path).map_err(|error| naming("write", path, error))?;
        let mut encoder = Encoder::new(BufWriter::new(file), self.width, self.height);
        encoder.set_color(ColorType::Rgba);
        encoder.set_depth(BitDepth::Eight);
        encoder
            .write_header()
            .and_then(|mut writer| {
                writer.write_image_data(&self.rgba)?;
                // Dropping it would hide that the disk is full.
                writer.finish()
            })
            .map_err(|error| naming("write", path, error.into()))
    }
}

fn naming(action: &str, path: &Path, error: Error) -> Error {
    let path = path.display();
    Error::new(error.kind(), format!("cannot {action} {path}: {error}"))
}

fn decode(file: impl BufRead + Seek) -> io::Result<Picture> {
    let mut decoder = Decoder::new(file);
    decoder.set_transformations(Transformations::normalize_to_color8() | Transformations::ALPHA);
    let mut reader = decoder.read_info()?;
    let size = reader.output_buffer_size();
    let size = size.ok_or_else(|| Error::other("the picture is too large"))?;
    let mut bytes = alloc::vec![0; size];
    let frame = reader.next_frame(&mut bytes)?;
    bytes.truncate(frame.buffer_size());
    let rgba = match frame.color_type {
        ColorType::Rgba => bytes,
        ColorType::GrayscaleAlpha => gray_to_rgba(&bytes),
        other => {
            return Err(Error::other(format!(
                "pixels of an unknown kind: {other:?}"
            )));
        }
    };
    Ok(Picture {
        width: frame.width,
        height: frame.height,
        rgba,
    })
}

fn gray_to_rgba(bytes: &[u8]) -> Vec<u8> {
    let (pixels, _) = bytes.as_chunks::<2>();
    let rgba = pixels
        .iter()
        .flat_map(|&[gray, alpha]| [gray, gray, gray, alpha]);
    rgba.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A PNG of two pixels, decoded.
    fn pixels(color: ColorType, depth: BitDepth, palette: &[u8], data: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, 2, 1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if !palette.is_empty() {
            encoder.set_palette(palette);
            encoder.set_trns(&[255u8, 128][..]);
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        let picture = decode(Cursor::new(file)).unwrap();
        assert_eq!((picture.width, picture.height), (2, 1));
        picture.rgba
    }

    #[test]
    fn pixels_of_every_kind_become_rgba() {
        use ColorType::*;
        let eight = BitDepth::Eight;
        assert_eq!(
            pixels(Rgba, eight, &[], &[1, 2, 3, 4, 5, 6, 7, 8]),
            [1, 2, 3, 4, 5, 6, 7, 8]
        );
        assert_eq!(
            pixels(Rgb, eight, &[], &[1, 2, 3, 5, 6, 7]),
            [1, 2, 3, 255, 5, 6, 7, 255]
        );
        assert_eq!(
            pixels(Grayscale, eight, &[], &[9, 10]),
            [9, 9, 9, 255, 10, 10, 10, 255]
        );
        assert_eq!(
            pixels(GrayscaleAlpha, eight, &[], &[9, 1, 10, 2]),
            [9, 9, 9, 1, 10, 10, 10, 2]
        );
        assert_eq!(
            pixels(Grayscale, BitDepth::One, &[], &[0b0100_0000]),
            [0, 0, 0, 255, 255, 255, 255, 255]
        );
        assert_eq!(
            pixels(Grayscale, BitDepth::Sixteen, &[], &[9, 0, 10, 0]),
            [9, 9, 9, 255, 10, 10, 10, 255]
        );
        assert_eq!(
            pixels(Indexed, eight, &[1, 2, 3, 5, 6, 7], &[1, 0]),
            [5, 6, 7, 128, 1, 2, 3, 255]
        );
    }

    #[test]
    fn what_is_no_png_is_an_error() {
        for bytes in [&b""[..], b"GIF89a", &b"\x89PNG\r\n\x1a\n"[..]] {
            assert!(decode(Cursor::new(bytes)).is_err());
        }
    }
}
