//! Memory does not grow with the size of a file: a layer with one of 400 MB goes in and out in less than a quarter of it.
#![allow(clippy::unwrap_used)]

use std::io::{self, Read};

use memobuild_oci::layer::{Compression, Expected, TimestampPolicy, export_layer, import_layer};
use memobuild_store::Store;

const SIZE: u64 = 400_000_000;

/// A tar with one file, made as it is read.
struct Tar {
    head: Vec<u8>,
    /// Neither constant nor noise; repeated.
    text: Vec<u8>,
    at: u64,
}

impl Read for Tar {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let start = self.head.len() as u64;
        let total = start + SIZE.next_multiple_of(512) + 1024;
        let count = out.len().min((total - self.at) as usize);
        let from = match self.at {
            at if at < start => &self.head[at as usize..],
            at if at < start + SIZE => {
                let rest = &self.text[((at - start) % self.text.len() as u64) as usize..];
                &rest[..rest.len().min((start + SIZE - at) as usize)]
            }
            _ => &[0; 512],
        };
        let count = count.min(from.len());
        out[..count].copy_from_slice(&from[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

fn tar() -> Tar {
    let mut head = vec![0; 512];
    head[..3].copy_from_slice(b"big");
    head[100..107].copy_from_slice(b"0000644");
    for at in [108, 116, 329, 337] {
        head[at..at + 7].fill(b'0');
    }
    head[136..147].fill(b'0');
    head[124..135].copy_from_slice(format!("{SIZE:011o}").as_bytes());
    head[156] = b'0';
    head[257..265].copy_from_slice(b"ustar\x0000");
    head[148..156].fill(b' ');
    let sum: u32 = head.iter().map(|b| u32::from(*b)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let text = (0..1_000_003u64).map(|i| (i / 97 * i % 251) as u8).collect();
    Tar { head, text, at: 0 }
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().split(' ').next().unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn a_large_file_goes_in_and_out_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let imported = import_layer(tar(), &Expected::default(), true, &store).unwrap();
    let (after_import, blob) = (peak_mib(), imported.blob.unwrap());
    assert!(after_import < 100, "{after_import} MiB after the import");
    for compression in [
        Compression::Gzip { level: 1 },
        Compression::Zstd { level: 3 },
        Compression::Estargz { level: 1 },
        Compression::ZstdChunked { level: 3 },
    ] {
        let layer = export_layer(&store, &imported.bundle, compression, TimestampPolicy::Keep).unwrap();
        assert_eq!(layer.diff_id == imported.diff_id, !matches!(compression, Compression::Estargz { .. }));
        assert_ne!(layer.blob.digest, blob.0);
    }
    let after_export = peak_mib();
    assert!(after_export < 150, "{after_export} MiB after the export");
}
