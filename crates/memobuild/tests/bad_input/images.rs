//! Base images and archives that are damaged, or that try to reach where they should not.

use std::{
    fs,
    time::{Duration, Instant},
};

use memobuild_tree::Sha256Digest;

use crate::support::{self, BUILD, Tar, built, fails, layout_saying, listed, overwrite, place_with_base};

fn one_file() -> Vec<u8> {
    Tar::default().file("a", b"content of a").finish()
}

#[test]
fn a_blob_that_does_not_match_its_digest() {
    let (place, blobs) = place_with_base("FROM base\nCOPY --from=base /a /b\n", &[one_file()]);
    let whole = fs::read(&blobs[0]).unwrap();
    let changes: [fn(&mut Vec<u8>); 3] =
        [|bytes| bytes[600] ^= 1, |bytes| bytes.truncate(1000), |bytes| bytes.extend_from_slice(&[0; 512])];
    for change in changes {
        overwrite(&blobs[0], change);
        fails(&place, &place.memobuild(&BUILD), 5, &["base", "mismatch"]);
        fs::write(&blobs[0], &whole).unwrap();
    }
    fs::remove_file(&blobs[0]).unwrap();
    fails(&place, &place.memobuild(&BUILD), 5, &["base"]);
    // Nothing of the damaged ones was kept.
    fs::write(&blobs[0], &whole).unwrap();
    built(&place);
}

#[test]
fn documents_that_are_damaged() {
    let (place, layers) = place_with_base("FROM base\nLABEL x=y\n", &[one_file()]);
    let mut documents = support::files_below(&place.path("base/blobs"));
    documents.retain(|path| *path != layers[0]);
    assert_eq!(documents.len(), 2, "config and manifest");
    documents.push(place.path("base/index.json"));
    for document in documents {
        let whole = fs::read(&document).unwrap();
        for change in [&whole[..whole.len() - 3], b"", b"\xff\xfe"] {
            fs::write(&document, change).unwrap();
            fails(&place, &place.memobuild(&BUILD), 5, &["base"]);
        }
        fs::write(&document, &whole).unwrap();
    }
    built(&place);
}

#[test]
fn a_config_that_names_another_layer() {
    let place = crate::common::Place::with(&[("Dockerfile", "FROM base\nCOPY --from=base /a /b\n")]);
    layout_saying(&place.path("base"), &[one_file()], &[Sha256Digest::of(b"another").to_string()]);
    fails(&place, &place.memobuild(&BUILD), 5, &["diff ID mismatch"]);
}

#[test]
fn a_layer_that_is_no_tar_or_is_cut_short() {
    let whole = one_file();
    let mut wrong_sum = whole.clone();
    wrong_sum[3] ^= 1;
    for (layer, word) in [
        (b"no tar at all, and far too short".to_vec(), "base"),
        (whole[..700].to_vec(), "cut short"),
        (wrong_sum, "invalid archive"),
        (vec![7; 4096], "invalid archive"),
        (b"\x1f\x8b\x08\0not gzip".repeat(100), "base"),
    ] {
        let (place, _) = place_with_base("FROM base\nCOPY --from=base /a /b\n", &[layer]);
        fails(&place, &place.memobuild(&BUILD), 5, &["base", word]);
    }
}

/// Names that lead out of the root stay in it, as they do for containerd.
#[test]
fn names_with_dots_and_absolute_names_stay_in_the_image() {
    let layer = Tar::default()
        .file("../../up", b"up")
        .file("/abs", b"abs")
        .file("x/../../../mid", b"mid")
        .symlink("out", "../../../../../../tmp")
        .file("out/in-tmp", b"")
        .symlink("abs-out", "/etc")
        .file("abs-out/../abs-out/in-etc", b"")
        .hard_link("../../link", "../../../up")
        .finish();
    let (place, _) = place_with_base("FROM base\nLABEL x=y\n", std::slice::from_ref(&layer));
    built(&place);
    let names: Vec<_> = listed(&place.path("out.tar")).into_iter().map(|e| e.0).collect();
    assert_eq!(names, ["abs", "abs-out", "etc/", "etc/in-etc", "link", "mid", "out", "tmp/", "tmp/in-tmp", "up"]);
    for escaped in
        ["../up", "../../up", "../mid", "../link", "/up", "/abs", "/mid", "/link", "/tmp/in-tmp", "/etc/in-etc"]
    {
        assert!(!place.path(escaped).exists(), "{escaped}");
    }
    // The same as an archive that ADD unpacks, and laid out in a directory.
    place.write("Dockerfile", "FROM scratch\nADD evil.tar /d/\n");
    fs::write(place.path("evil.tar"), layer).unwrap();
    place.stdout(&["build", "-q", "--output", "out", "."]);
    let all = support::files_below(&place.path("out"));
    assert!(all.iter().all(|path| path.starts_with(place.path("out"))), "{all:?}");
    assert!(place.path("out/d/abs").exists() && place.path("out/d/up").exists());
    assert!(!std::path::Path::new("/tmp/in-tmp").exists() && !place.path("up").exists());
}

/// A link in a lower layer, and in what stands at the destination of a local output, is not followed out either.
#[test]
fn links_below_lead_nowhere_else() {
    let lower = Tar::default().symlink("gate", "/../../../../tmp/memobuild-gate").finish();
    let upper = Tar::default().file("gate/x", b"x").finish();
    let (place, _) = place_with_base("FROM base\nCOPY Dockerfile /gate2/\n", &[lower, upper]);
    place.stdout(&["build", "-q", "--build-context", "base=oci-layout://base", "--output", "out", "."]);
    std::os::unix::fs::symlink(place.path(""), place.path("out/gate2/here")).unwrap();
    fs::remove_file(place.path("out/gate2/Dockerfile")).unwrap();
    std::os::unix::fs::symlink(place.path("base/index.json"), place.path("out/gate2/Dockerfile")).unwrap();
    let before = place.read("base/index.json");
    place.stdout(&["build", "-q", "--build-context", "base=oci-layout://base", "--output", "out", "."]);
    assert_eq!(place.read("base/index.json"), before);
    assert!(!std::path::Path::new("/tmp/memobuild-gate").exists());
}

#[test]
fn very_many_hard_links_are_one_file() {
    let begin = Instant::now();
    let content = vec![b'x'; 1 << 20];
    let mut tar = Tar::default().file("first", &content);
    for n in 0..50_000 {
        tar = tar.hard_link(&format!("d{}/link{n}", n % 10), "first");
    }
    let (place, _) = place_with_base("FROM base\nCOPY Dockerfile /\n", &[tar.finish()]);
    built(&place);
    let entries = listed(&place.path("out.tar"));
    assert_eq!(entries.iter().filter(|e| e.1 == b'1').count(), 50_000);
    assert_eq!(entries.iter().map(|e| e.2).max(), Some(1 << 20));
    assert!(entries.iter().map(|e| e.2).sum::<u64>() < 2 << 20, "its content is there once");
    let cached: u64 = support::files_below(&support::cache(&place)).iter().map(|f| f.metadata().unwrap().len()).sum();
    assert!(cached < 40 << 20, "{cached} bytes of cache");
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}

#[test]
fn loops_of_links_end() {
    let layer = Tar::default().symlink("a", "b").symlink("b", "a").symlink("self", "self/self/self").file("f", b"f");
    let (place, _) = place_with_base("FROM base\nCOPY Dockerfile /d/\n", &[layer.finish()]);
    built(&place);
    assert_eq!(listed(&place.path("out.tar")).len(), 6, "the loops themselves are legal");
    fs::remove_file(place.path("out.tar")).unwrap();
    for copy in ["COPY --from=base /a/x /", "COPY --from=base /self /self", "COPY Dockerfile /a/x/", "WORKDIR /self/x"]
    {
        place.write("Dockerfile", &format!("FROM base\n{copy}\n"));
        let out = place.memobuild(&BUILD);
        fails(&place, &out, 1, &["too many levels of symbolic links"]);
    }
    let through = Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", b"").finish();
    let (place, _) = place_with_base("FROM base\nCOPY --from=base /f /g\n", &[through]);
    fails(&place, &place.memobuild(&BUILD), 5, &["too many levels of symbolic links"]);
}

#[test]
fn hard_links_to_nothing_directories_and_themselves() {
    for (target, word) in [("f", "hard link to itself"), ("d", "hard link to a directory"), ("none", "none")] {
        let layer = Tar::default().dir("d").hard_link("f", target).finish();
        let (place, _) = place_with_base("FROM base\nCOPY --from=base /f /g\n", &[layer]);
        fails(&place, &place.memobuild(&BUILD), 5, &[word]);
    }
}

/// Directories in directories, deeper than any file system allows.
#[test]
fn a_tower_of_directories() {
    let deep = |levels: usize| {
        let mut tar = Tar::default();
        let mut links = 0;
        // Names in an entry have 100 bytes here: links on the way make the rest.
        let mut at = String::new();
        for _ in 0..levels {
            at.push_str("d/");
            if at.len() > 80 {
                let name = format!("l{links}");
                links += 1;
                tar = tar.dir(&at).symlink(&name, &at);
                at = format!("{name}/");
            }
        }
        tar.file(&format!("{at}f"), b"").finish()
    };
    let (place, _) = place_with_base("FROM base\nCOPY Dockerfile /\n", &[deep(2000)]);
    built(&place);
    fs::remove_file(place.path("out.tar")).unwrap();
    let (place, _) = place_with_base("FROM base\nCOPY --from=base /f /\n", &[deep(3000)]);
    fails(&place, &place.memobuild(&BUILD), 5, &["base"]);
}

#[test]
fn devices_are_kept_where_an_image_has_them() {
    let layer = || Tar::default().char_device("dev/mine", 1, 3).file("f", b"f").finish();
    let (place, _) = place_with_base("FROM base\nCOPY Dockerfile /\n", &[layer()]);
    built(&place);
    let kinds: Vec<_> = listed(&place.path("out.tar")).into_iter().map(|e| (e.0, e.1)).collect();
    assert!(kinds.contains(&("dev/mine".into(), b'3')), "{kinds:?}");
    // In an archive that ADD unpacks.
    place.write("Dockerfile", "FROM scratch\nADD dev.tar /x/\n");
    fs::write(place.path("dev.tar"), layer()).unwrap();
    built(&place);
    let kinds: Vec<_> = listed(&place.path("out.tar")).into_iter().map(|e| (e.0, e.1)).collect();
    assert!(kinds.contains(&("x/dev/mine".into(), b'3')), "{kinds:?}");
    // A directory of the user's gets none: it is left out, and said.
    let out = place.memobuild(&["build", "--progress=plain", "--output", "out", "."]);
    let shown = crate::common::text(&out.stderr);
    assert!(out.status.success() && shown.contains("x/dev/mine: devices are left out"), "{shown}");
    assert!(!place.path("out/x/dev/mine").exists() && place.path("out/x/f").exists());
}

/// No step can use a device that an image brings along: the root is mounted without devices.
#[test]
fn devices_of_an_image_can_not_be_used() {
    let Some(layer) = support::busybox_layer() else { return };
    let device = Tar::default().char_device("my-null", 1, 3).finish();
    let (place, _) = place_with_base("FROM base\nRUN test -c /my-null\nRUN ! echo x >/my-null\n", &[layer, device]);
    let shown = built(&place);
    assert!(shown.contains("RUN ! echo x"), "{shown}");
}

#[test]
fn names_that_no_file_can_have() {
    for (name, word) in [("d/\u{1}ok", ""), ("f/x", "parent is not a directory"), (".wh..", "whiteout of no name")] {
        let layer = Tar::default().file("f", b"").file(name, b"").finish();
        let (place, _) = place_with_base("FROM base\nCOPY Dockerfile /g\n", &[layer]);
        if word.is_empty() {
            built(&place);
        } else {
            fails(&place, &place.memobuild(&BUILD), 5, &[word]);
        }
    }
}
