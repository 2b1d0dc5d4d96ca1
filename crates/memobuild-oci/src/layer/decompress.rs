//! Decompression by content, as docker and containerd do it: the media type is not believed.

use std::io::{self, BufRead, BufReader, Read};

use liblzma::{bufread::XzDecoder, stream::Stream};

/// Bytes read from the source at once.
const BUFFER: usize = 256 * 1024;
/// What an xz stream may ask for: `xz -9` needs 65 MiB to unpack, a hostile one asks for 4 GiB. (zstd's own limit is a
/// window of 128 MiB.)
const XZ_MEMORY: u64 = 256 << 20;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Packing {
    /// Told by the first bytes (six are enough).
    pub(crate) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Plain,
        }
    }

    /// The media type of a layer that is packed so; `None` for what no layer may be.
    pub(crate) fn media_type(self) -> Option<&'static str> {
        match self {
            Self::Plain => Some(memobuild_image::media::LAYER),
            Self::Gzip => Some(memobuild_image::media::LAYER_GZIP),
            Self::Zstd => Some(memobuild_image::media::LAYER_ZSTD),
            Self::Bzip2 | Self::Xz => None,
        }
    }
}

/// A source whose first bytes have been looked at.
pub(crate) struct Sniffed<R> {
    pub(crate) packing: Packing,
    source: BufReader<R>,
}

impl<R: Read> Sniffed<R> {
    pub(crate) fn new(source: R) -> io::Result<Self> {
        let mut source = BufReader::with_capacity(BUFFER, source);
        let start = loop {
            match source.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        Ok(Self { packing: Packing::of(start), source })
    }

    /// Hands the uncompressed stream to `read`, then what is left of the source (behind the end of the compressed
    /// stream) is read to its end.
    pub(crate) fn unpack<T>(&mut self, read: impl FnOnce(&mut dyn Read) -> io::Result<T>) -> io::Result<T> {
        let source = &mut self.source;
        match self.packing {
            Packing::Plain => read(source),
            Packing::Gzip => read(&mut flate2::bufread::MultiGzDecoder::new(source)),
            Packing::Zstd => read(&mut zstd::Decoder::with_buffer(source)?),
            Packing::Bzip2 => read(&mut bzip2::bufread::MultiBzDecoder::new(source)),
            Packing::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
                read(&mut XzDecoder::new_stream(source, stream))
            }
        }
    }

    /// Reads what is left of the source.
    pub(crate) fn drain(&mut self) -> io::Result<u64> {
        io::copy(&mut self.source, &mut io::sink())
    }
}
