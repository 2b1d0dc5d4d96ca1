//! Records: the first stays, none names what is not there.

use serde_json::{Value, json};

use crate::client::{Reply, Running};

const KEY: &str = "result:00000000000000000000000000000000000000000000000000000000000000ab";

fn put(server: &Running, value: &str, blobs: &[&str]) -> Reply {
    server.put(&format!("/record/{KEY}"), json!({ "value": value, "blobs": blobs }).to_string().as_bytes())
}

#[test]
fn the_first_stays_and_the_second_is_told() {
    let server = Running::new();
    let blob = server.blob(b"output");
    let path = format!("/record/{KEY}");
    assert_eq!(server.get(&path).error(), "not_found");
    let reply = put(&server, "Zmlyc3Q=", &[&blob]);
    assert_eq!((reply.status, reply.json()["stored"].as_bool()), (201, Some(true)));
    let reply = put(&server, "c2Vjb25k", &[]);
    assert_eq!((reply.status, reply.json()), (200, json!({ "value": "Zmlyc3Q=", "blobs": [blob], "stored": false })));
    let reply = server.get(&path);
    assert_eq!((reply.status, reply.json()), (200, json!({ "value": "Zmlyc3Q=", "blobs": [blob] })));
}

#[test]
fn of_many_at_once_one_is_first() {
    let server = Running::new();
    let replies: Vec<(u16, Value)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..12)
            .map(|n| {
                let server = &server;
                scope.spawn(move || {
                    let reply = put(server, &format!("{n:04}"), &[]);
                    (reply.status, reply.json()["value"].clone())
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let first: Vec<_> = replies.iter().filter(|(status, _)| *status == 201).collect();
    assert_eq!(first.len(), 1, "{replies:?}");
    assert!(replies.iter().all(|(_, value)| *value == first[0].1), "{replies:?}");
}

#[test]
fn records_of_blobs_that_are_not_there_are_refused() {
    let server = Running::new();
    let (here, absent) = (server.blob(b"here"), "3".repeat(64));
    let layer = format!("sha256:{absent}");
    let reply = put(&server, "", &[&here, &absent, &layer]);
    assert_eq!((reply.status, reply.error()), (409, "missing_blobs".into()));
    assert_eq!(reply.json()["missing"], json!([absent, layer]));
    assert_eq!(server.get(&format!("/record/{KEY}")).status, 404);
    let path = format!("/record/{KEY}/list");
    let body = json!({ "value": "", "blobs": [absent] }).to_string();
    assert_eq!(server.send("POST", &path, &[], body.as_bytes()).status, 409);
}

#[test]
fn lists_keep_the_newest() {
    let server = Running::new();
    let path = format!("/record/{KEY}/list");
    assert_eq!(server.get(&path).json(), json!({ "items": [] }));
    for n in 0..40 {
        let body = json!({ "value": format!("{n:04}") }).to_string();
        assert_eq!(server.send("POST", &path, &[], body.as_bytes()).status, 200);
    }
    let items = server.get(&path).json()["items"].as_array().unwrap().clone();
    assert_eq!(items.len(), 32);
    assert_eq!(items[0]["value"], "0039");
    assert_eq!(server.get(&format!("/record/{KEY}")).status, 404);
}

#[test]
fn what_is_no_record_is_refused() {
    let server = Running::new();
    let path = format!("/record/{KEY}");
    for (body, code) in [
        ("", "invalid_json"),
        ("[]", "invalid_json"),
        (r#"{"value": 1}"#, "invalid_json"),
        (r#"{"value": "", "blob": []}"#, "invalid_json"),
        (r#"{"value": "*"}"#, "invalid_value"),
        (r#"{"value": "", "blobs": ["x"]}"#, "invalid_digest"),
    ] {
        let reply = server.put(&path, body.as_bytes());
        assert_eq!((reply.status, reply.error()), (400, code.into()), "{body}");
    }
    let long = json!({ "value": "AAAA".repeat(100_000) }).to_string();
    assert_eq!(server.put(&path, long.as_bytes()).error(), "too_large");
    let many = json!({ "value": "", "blobs": vec!["0".repeat(64); 4097] }).to_string();
    assert_eq!(server.put(&path, many.as_bytes()).error(), "too_many");
    assert_eq!(server.get(&path).status, 404);
}
