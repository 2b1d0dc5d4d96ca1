//! Any bytes as a layer's tar, and as an archive in any compression. A layer that can be read has a change that is
//! encoded and decoded without loss.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memobuild_oci::layer::{archive, parse_only};
use memobuild_tree::codec;

fuzz_target!(|bytes: &[u8]| {
    let _ = archive::is_archive(&mut &*bytes);
    match parse_only(bytes) {
        Ok(diff) => {
            assert_eq!(codec::decode(&codec::encode(&diff)).as_ref(), Ok(&diff));
            diff.walk(&mut |path, _| {
                assert!(path.split(|b| *b == b'/').all(|part| part != b".." && part != b"."), "{path:?}");
            });
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
