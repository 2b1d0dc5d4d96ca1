//! Any bytes as a bundle's table of contents: what can be decoded has one encoding only, and applies to a tree or says
//! why not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memobuild_tree::{Diff, Tree, codec};

fuzz_target!(|bytes: &[u8]| {
    let Ok(diff) = codec::decode(bytes) else { return };
    assert_eq!(codec::encode(&diff), bytes);
    let Ok(tree) = diff.apply(&Tree::default()) else { return };
    let same = Diff::between(&Tree::default(), &tree).apply(&Tree::default()).expect("a tree can be made anew");
    assert_eq!(same.identity(), tree.identity());
});
