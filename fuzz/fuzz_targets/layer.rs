//! Any bytes as a layer's tar, as they are or with the headers' checksums put right (else nearly all would end there),
//! and as an archive in any compression. A layer that can be read has a change that is encoded and decoded without
//! loss, and that names nothing outside the root.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memobuild_oci::layer::{archive, parse_only};
use memobuild_tree::codec;

/// Gives every block that has a tar's magic the checksum of a header.
fn put_right(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
}

fuzz_target!(|bytes: &[u8]| {
    let _ = archive::is_archive(&mut &*bytes);
    let mut bytes = bytes.to_vec();
    put_right(&mut bytes);
    match parse_only(&bytes) {
        Ok(diff) => {
            assert_eq!(codec::decode(&codec::encode(&diff)).as_ref(), Ok(&diff));
            diff.walk(&mut |path, _| {
                let mut parts = path.split(|byte| *byte == b'/').skip(1);
                assert!(parts.all(|part| !matches!(part, b"" | b"." | b"..")), "{path:?}");
            });
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
