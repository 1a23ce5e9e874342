//! From a packed layer to its tar file.

use crate::document::MAX_LAYER_BYTES;
use std::{
    io::{self, BufReader, Read, Seek},
    sync::Arc,
};

/// A layer may always unpack to this much, in bytes.
const FREE_BYTES: u64 = 4 << 30;

/// Beyond that it may grow by this factor at most: what tells a layer from a bomb. Even text
/// seldom packs to a tenth.
const MAX_FACTOR: u64 = 200;

/// How much a layer that is packed into so many bytes may unpack to.
pub(crate) fn limit_bytes(packed_bytes: u64) -> u64 {
    packed_bytes
        .saturating_mul(MAX_FACTOR)
        .clamp(FREE_BYTES, MAX_LAYER_BYTES)
}

/// Unpacks by what the bytes themselves say they are: gzip, zstd, or nothing. What media types
/// say is wrong often enough.
pub(crate) fn reader<'a>(packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut packed = BufReader::with_capacity(128 << 10, packed);
    let start = peek(&mut packed)?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        // The second is a frame that tools put in front of others to be skipped.
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
            Box::new(zstd::Decoder::with_buffer(packed)?)
        }
        _ => Box::new(packed),
    })
}

/// The first bytes, which stay to be read; zeros where there are fewer.
fn peek(packed: &mut BufReader<impl Read>) -> io::Result<[u8; 4]> {
    use std::io::BufRead;
    let mut start = [0; 4];
    // A reader that gives them one by one is none of ours.
    let there = packed.fill_buf()?;
    let length = there.len().min(start.len());
    start[..length].copy_from_slice(&there[..length]);
    Ok(start)
}

/// A part of a file that several readers share.
pub(crate) struct Part {
    file: Arc<std::fs::File>,
    at: u64,
    end: u64,
}

impl Part {
    pub(crate) fn new(file: Arc<std::fs::File>, at: u64, length: u64) -> Part {
        Part {
            file,
            at,
            end: at.saturating_add(length),
        }
    }

    /// All of a file.
    pub(crate) fn whole(mut file: std::fs::File) -> io::Result<Part> {
        let length = file.seek(io::SeekFrom::End(0))?;
        Ok(Part::new(Arc::new(file), 0, length))
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..length], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut unpacked = Vec::new();
        reader(packed)?.read_to_end(&mut unpacked)?;
        Ok(unpacked)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn packed_and_plain() {
        let text = b"text ".repeat(1000);
        assert_eq!(unpack(&text).unwrap(), text);
        assert_eq!(unpack(b"").unwrap(), b"");
        assert_eq!(unpack(&gzip(&text)).unwrap(), text);
        // Several members, as lazily pulled images have them.
        let two = [gzip(b"a"), gzip(b"b")].concat();
        assert_eq!(unpack(&two).unwrap(), b"ab");
        let zstd = zstd::encode_all(&text[..], 3).unwrap();
        assert_eq!(unpack(&zstd).unwrap(), text);
        let skipped = [b"\x5a\x2a\x4d\x18\x02\0\0\0xx".as_slice(), &zstd].concat();
        assert_eq!(unpack(&skipped).unwrap(), text);
    }

    #[test]
    fn damaged() {
        let packed = gzip(&b"text ".repeat(1000));
        assert!(unpack(&packed[..packed.len() - 9]).is_err());
        let mut zstd = zstd::encode_all(&[1; 1000][..], 3).unwrap();
        zstd.truncate(zstd.len() - 2);
        assert!(unpack(&zstd).is_err());
    }

    #[test]
    fn how_much_is_too_much() {
        assert_eq!(limit_bytes(100), 4 << 30);
        assert_eq!(limit_bytes(100 << 20), 20_000 << 20);
        assert_eq!(limit_bytes(u64::MAX), 64 << 30);
    }
}
