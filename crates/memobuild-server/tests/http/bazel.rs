//! Bazel's HTTP cache and ccache's layouts, request by request.

use bazel_remote_apis::build::bazel::remote::execution::v2 as rex;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::client::{Running, noise};

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn cas_is_the_same_blobs_as_layers() {
    let server = Running::new();
    let bytes = noise(1, 300_000);
    let hex = sha256(&bytes);
    assert_eq!(server.get(&format!("/cas/{hex}")).status, 404);
    assert_eq!(server.put(&format!("/cas/{hex}"), &bytes).status, 201);
    for path in ["/cas", "/main/cas", "/a/b/cas", "/cache/layer"] {
        assert!(server.get(&format!("{path}/{hex}")).body == bytes, "{path}");
        let head = server.send("HEAD", &format!("{path}/{hex}"), &[], b"");
        assert_eq!((head.status, head.header("content-length")), (200, Some("300000")));
    }
    let wrong = server.put(&format!("/main/cas/{}", sha256(b"other")), &bytes);
    assert_eq!((wrong.status, wrong.error()), (400, "cas_integrity_failure".into()));
    assert_eq!(server.get(&format!("/cas/{}", sha256(b"other"))).status, 404);
    let empty = server.get(&format!("/cas/{}", sha256(b"")));
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    for bad in ["/cas/xyz", "/cas/..", "/ac/xyz", "/main/ac/x"] {
        assert_eq!(server.get(bad).error(), "invalid_digest", "{bad}");
    }
}

#[test]
fn values_are_overwritten_whatever_they_are() {
    let server = Running::new();
    let hex = sha256(b"an action");
    let path = format!("/ac/{hex}");
    assert_eq!(server.get(&path).status, 404);
    for value in [b"not an ActionResult".to_vec(), noise(1, 10), noise(2, 1 << 20), Vec::new()] {
        assert_eq!(server.put(&path, &value).status, 200);
        let reply = server.get(&path);
        assert!(reply.status == 200 && reply.body == value);
        let head = server.send("HEAD", &path, &[], b"");
        assert_eq!((head.status, head.header("content-length")), (200, Some(value.len().to_string().as_str())));
    }
    assert_eq!(server.get(&format!("/main/ac/{hex}")).status, 404, "another instance");
    assert_eq!(server.send("DELETE", &path, &[], b"").status, 204);
    assert_eq!(server.send("DELETE", &path, &[], b"").status, 404);
    assert_eq!(server.get(&path).status, 404);
    let big = vec![0; (32 << 20) + 1];
    assert_eq!(server.put(&path, &big).error(), "too_large");
}

#[test]
fn a_result_is_there_while_its_outputs_are() {
    let server = Running::new();
    let output = noise(1, 1000);
    let digest = rex::Digest { hash: sha256(&output), size_bytes: 1000 };
    let file = rex::OutputFile { path: "out".into(), digest: Some(digest), ..Default::default() };
    let result = rex::ActionResult { output_files: vec![file], ..Default::default() }.encode_to_vec();
    let path = format!("/ac/{}", sha256(b"an action"));
    let refused = server.put(&path, &result);
    assert_eq!((refused.status, refused.error()), (409, "missing_blobs".into()));
    assert_eq!(refused.json()["missing"][0], format!("sha256:{}", sha256(&output)));
    server.put(&format!("/cas/{}", sha256(&output)), &output);
    assert_eq!(server.put(&path, &result).status, 200);
    assert_eq!(server.get(&path).body, result);
    std::fs::metadata(server.dir.path()).unwrap();
    // Last uses are kept in seconds.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(server.send("POST", "/gc?days=0", &[], b"").json()["removed_blobs"], 1);
    assert_eq!(server.get(&path).status, 404);
}

#[test]
fn layouts_of_ccache() {
    let server = Running::new();
    let key = "0123456789abcdefghijklmnopqrstuv0123abcd";
    let flat = format!("/ccache/{key}");
    let subdirs = format!("/ccache/{}/{}", &key[..2], &key[2..]);
    assert_eq!(server.put(&subdirs, b"an object file").status, 200);
    assert_eq!(server.get(&flat).body, b"an object file");
    assert_eq!(server.send("DELETE", &flat, &[], b"").status, 204);
    assert_eq!(server.get(&subdirs).status, 404);
    assert_eq!(server.put("/ccache/short", b"").error(), "invalid_key");
}

#[test]
fn calls_are_counted_by_route() {
    let server = Running::new();
    server.get(&format!("/ac/{}", sha256(b"1")));
    server.get(&format!("/main/ac/{}", sha256(b"1")));
    let text = String::from_utf8(server.get("/metrics").body).unwrap();
    for line in [
        "memobuild_http_requests_total{method=\"GET\",route=\"/ac/{sha256}\",status=\"404\"} 1",
        "memobuild_http_requests_total{method=\"GET\",route=\"/{instance}/ac/{sha256}\",status=\"404\"} 1",
        "memobuild_lookups_total{kind=\"record\",result=\"miss\"} 2",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
}
