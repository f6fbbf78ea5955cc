//! Pictures from and to PNG files.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Error};
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
        decode(file).map_err(|error| naming("read", path, error))
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
            .and_then(|mut writer| writer.write_image_data(&self.rgba))
            .map_err(|error| naming("write", path, error.into()))
    }
}

fn naming(action: &str, path: &Path, error: Error) -> Error {
    let path = path.display();
    Error::new(error.kind(), format!("cannot {action} {path}: {error}"))
}

fn decode(file: File) -> io::Result<Picture> {
    let mut decoder = Decoder::new(BufReader::new(file));
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
