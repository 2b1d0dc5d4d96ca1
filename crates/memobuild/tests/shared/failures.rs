//! Whatever happens to a shared cache, the build goes on and is right.

use std::fs;

use crate::{files, image, on, project, support::traced, try_on, warnings};

const TO: &str = "type=local,dest=../shared,mode=max";
const FROM: &str = "type=local,src=../shared";

#[test]
fn a_cache_that_is_not_there_is_told() {
    if !traced() {
        return;
    }
    let project = project();
    let built = on(&project, "one", &["--cache-from", "type=local,src=../none"]);
    assert_eq!(built.runs().len(), 4);
    assert_eq!(warnings(&built).len(), 1, "{:?}", warnings(&built));
    assert!(warnings(&built)[0].contains("there is no cache yet"), "{:?}", warnings(&built));
    // Nobody listens there.
    let built = on(&project, "two", &["--cache-from", "127.0.0.1:9/a:b", "--cache-to", "127.0.0.1:9/a:b"]);
    assert_eq!(built.runs().len(), 4);
    assert_eq!(warnings(&built).len(), 2, "{:?}", warnings(&built));
    let must = "type=registry,ref=127.0.0.1:9/a:b,ignore-error=false";
    assert_eq!(try_on(&project, "two", &["--cache-to", must]).output.status.code(), Some(5));
}

/// Each blob of a cache damaged or taken away in turn: steps run again where that is needed, and the image is the same.
#[test]
fn damage_to_any_part_costs_time_only() {
    if !traced() {
        return;
    }
    let project = project();
    let alone = image(&project, "alone", &[]);
    image(&project, "one", &["--cache-to", TO]);
    let blobs = files(&project.place.path("../shared/blobs"));
    assert!(blobs.len() > 6, "{blobs:?}");
    for (number, blob) in blobs.iter().enumerate() {
        let whole = fs::read(blob).unwrap();
        for damage in ["removed", "changed", "cut"] {
            let mut bytes = whole.clone();
            match damage {
                "removed" => fs::remove_file(blob).unwrap(),
                "changed" => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    fs::write(blob, &bytes).unwrap();
                }
                _ => fs::write(blob, &whole[..whole.len() / 2]).unwrap(),
            }
            let machine = format!("m{number}-{damage}");
            assert_eq!(image(&project, &machine, &["--cache-from", FROM]), alone, "{} {damage}", blob.display());
            fs::write(blob, &whole).unwrap();
        }
    }
    // And whole again it serves.
    assert!(on(&project, "last", &["--reproducible", "--cache-from", FROM]).ran.is_empty());
}
