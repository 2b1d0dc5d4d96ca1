//! `type=inline`: an image that carries its cache.

use std::fs;

use crate::{contents, image, on, project, support::traced};

#[test]
fn an_image_is_a_cache() {
    if !traced() {
        return;
    }
    let project = project();
    let out = project.place.path("../image");
    let dest = format!("type=oci,tar=false,dest={}", out.display());
    on(&project, "one", &["--cache-to", "type=inline", "-o", &dest]);
    let from = format!("type=local,src={}", out.display());
    let second = on(&project, "two", &["--cache-from", &from]);
    assert!(second.ran.is_empty() && contents(&project, "two").is_empty(), "{second:?}");
    // Contents come out of the image's layers.
    project.replace("wc -c < /res/huge", "wc -l < /res/huge");
    let built = on(&project, "two", &["--cache-from", &from]);
    assert_eq!(built.runs(), ["wc -l < /res/huge > /size"]);
    assert_eq!(image(&project, "two", &["--cache-from", &from]), image(&project, "alone", &[]));
}

#[test]
fn an_image_without_one_is_none() {
    if !traced() {
        return;
    }
    let project = project();
    let out = project.place.path("../image");
    let dest = format!("type=oci,tar=false,dest={}", out.display());
    on(&project, "one", &["-o", &dest]);
    let from = format!("type=local,src={}", out.display());
    let second = on(&project, "two", &["--cache-from", &from]);
    assert_eq!(second.runs().len(), 4);
    assert!(crate::warnings(&second)[0].contains("does not carry a cache"), "{:?}", crate::warnings(&second));
    // What is built on an image that carries one does not.
    on(&project, "one", &["--cache-to", "type=inline", "-o", &dest]);
    project.dockerfile("FROM carrier\nRUN true\n");
    let next = project.place.path("../next");
    let carrier = format!("carrier=oci-layout://{}", out.display());
    let dest = format!("type=oci,tar=false,dest={}", next.display());
    on(&project, "one", &["--build-context", &carrier, "-o", &dest]);
    for blob in crate::files(&next.join("blobs")) {
        let bytes = fs::read(blob).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("memobuild.cache"));
    }
}
