//! The API's description: that it is valid, and true.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use memobuild_server::{Scope, add_token};
use serde_json::{Value, json};

use crate::client::Running;

/// Whether a value is what a schema says, as far as the document's schemas go. Fields that it does not name are errors.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(target) = schema["$ref"].as_str() {
        let schema = document.pointer(target.strip_prefix('#').unwrap()).unwrap();
        return check(document, schema, value, at);
    }
    match schema["type"].as_str().unwrap_or_else(|| panic!("{at}: {schema}")) {
        "object" => {
            let fields = value.as_object().unwrap_or_else(|| panic!("{at}: {value}"));
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(fields.contains_key(name.as_str().unwrap()), "{at}: {name} lacks in {value}");
            }
            for (name, value) in fields {
                let schema = &schema["properties"][name];
                assert!(schema.is_object(), "{at}.{name} is not described");
                check(document, schema, value, &format!("{at}.{name}"));
            }
        }
        "array" => value.as_array().unwrap().iter().for_each(|item| check(document, &schema["items"], item, at)),
        "string" => assert!(value.is_string(), "{at}: {value}"),
        "integer" => assert!(value.is_u64(), "{at}: {value}"),
        "boolean" => assert!(value.is_boolean(), "{at}: {value}"),
        other => panic!("{at}: {other}"),
    }
}

#[test]
fn answers_are_what_it_says() {
    let server = Running::with(|config| config.max_blob = 1000);
    let document = server.get("/openapi.json").json();
    let hex = blake3::hash(b"x").to_hex().to_string();
    let (zeros, key) = ("0".repeat(64), format!("result:{}", "1".repeat(64)));
    let record = |blob: &str| json!({ "value": "AA==", "blobs": [blob] }).to_string();
    let list = format!("/record/{key}/list");
    for (method, path, route, body, status) in [
        ("PUT", format!("/cache/{hex}"), "/cache/{digest}", "x".to_owned(), 201),
        ("PUT", format!("/cache/{hex}"), "/cache/{digest}", "x".to_owned(), 200),
        ("PUT", format!("/cache/{zeros}"), "/cache/{digest}", "x".to_owned(), 400),
        ("PUT", format!("/cache/{zeros}"), "/cache/{digest}", "x".repeat(2000), 413),
        ("PUT", format!("/cache/layer/{zeros}"), "/cache/layer/{digest}", "x".to_owned(), 400),
        ("GET", format!("/cache/{zeros}"), "/cache/{digest}", String::new(), 404),
        ("POST", "/cache/missing".into(), "/cache/missing", json!([zeros, hex]).to_string(), 200),
        ("POST", "/cache/missing".into(), "/cache/missing", "{}".into(), 400),
        ("PUT", format!("/record/{key}"), "/record/{key}", record(&zeros), 409),
        ("PUT", format!("/record/{key}"), "/record/{key}", record(&hex), 201),
        ("PUT", format!("/record/{key}"), "/record/{key}", record(&hex), 200),
        ("GET", format!("/record/{key}"), "/record/{key}", String::new(), 200),
        ("GET", format!("/record/x:{zeros}"), "/record/{key}", String::new(), 404),
        ("POST", list.clone(), "/record/{key}/list", record(&hex), 200),
        ("GET", list, "/record/{key}/list", String::new(), 200),
        ("POST", "/gc".into(), "/gc", String::new(), 200),
        ("POST", "/gc?days=x".into(), "/gc", String::new(), 400),
        ("GET", "/healthz".into(), "/healthz", String::new(), 200),
        ("GET", "/readyz".into(), "/readyz", String::new(), 200),
    ] {
        let reply = server.send(method, &path, &[], body.as_bytes());
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
        let responses = &document["paths"][route][method.to_ascii_lowercase()]["responses"];
        let response = responses.get(status.to_string()).unwrap_or_else(|| panic!("{method} {route}: no {status}"));
        let schema = &response["content"]["application/json"]["schema"];
        check(&document, schema, &reply.json(), &format!("{method} {route} {status}"));
    }
    let reply = server.send("GET", &format!("/cache/{hex}"), &["Range: bytes=9-"], b"");
    check(&document, &json!({ "$ref": "#/components/schemas/Error" }), &reply.json(), "416");
}

#[test]
fn what_it_describes_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    let admin = format!("Authorization: Bearer {}", add_token(&file, "admin", Scope::Admin).unwrap());
    let server = Running::with(|config| config.tokens = Some(file));
    // It is for everybody: it says no more than the program's pages.
    let document = server.get("/openapi.json").json();
    let mut seen = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let real = path.replace("{digest}", &"0".repeat(64)).replace("{key}", &format!("a:{}", "0".repeat(64)));
        let real = real.replace(['{', '}'], "");
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_ascii_uppercase();
            let reply = server.send(&method, &real, &[&admin], b"");
            assert_ne!(reply.status, 405, "{method} {path}");
            if reply.status == 404 && method != "HEAD" {
                assert!(!reply.json()["message"].as_str().unwrap().contains("route"), "{method} {path}");
            }
            // Which routes are open is not told wrongly either.
            let open = operation["security"] == json!([{}]);
            assert_eq!(server.send(&method, &real, &[], b"").status != 401, open, "{method} {path}");
            seen += 1;
        }
    }
    assert!(seen >= 16, "{seen}");
}

#[test]
fn a_validator_agrees() {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let script = "import json, sys\nfrom openapi_spec_validator import validate\nvalidate(json.load(sys.stdin))\n";
    let there = Command::new(&python).args(["-c", "import openapi_spec_validator"]).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        eprintln!("skipped: PyPI's openapi-spec-validator is not there");
        return;
    }
    let document = Running::new().get("/openapi.json").body;
    let validate = |document: &[u8]| {
        let mut child =
            Command::new(&python).args(["-c", script]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(document).unwrap();
        child.wait_with_output().unwrap()
    };
    let out = validate(&document);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    // That it would have noticed.
    assert!(!validate(b"{\"openapi\": \"3.1.0\", \"info\": {}, \"paths\": {}}").status.success());
}
