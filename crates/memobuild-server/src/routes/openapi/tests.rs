//! That the description and the code are one thing.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::{collections::BTreeSet, fs, path::Path};

use super::*;

const METHODS: [&str; 7] = ["get", "head", "put", "post", "delete", "patch", "options"];

/// Protocols of other tools, which have specifications of their own (docs/api.md, "Standard protocols").
const OTHERS: [&str; 3] = ["routes/bazel.rs", "routes/ccache.rs", "src/rexec"];

/// Paths and methods of the document.
fn described() -> BTreeSet<(String, String)> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let each =
        paths.iter().flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |m| (path.clone(), m.clone())));
    each.filter(|(_, method)| METHODS.contains(&method.as_str())).collect()
}

/// Paths and methods that the sources give to routers: `.route("PATH", routing::METHOD(..).METHOD(..))`.
fn routed(dir: &Path, found: &mut BTreeSet<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if OTHERS.iter().any(|other| path.ends_with(other)) {
            continue;
        }
        if path.is_dir() {
            routed(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("openapi/tests.rs") {
            let text: String = fs::read_to_string(&path).unwrap().split_whitespace().collect();
            for part in text.split(".route(\"").skip(1) {
                let (path, rest) = part.split_once('"').unwrap();
                let call = rest.split(".route(").next().unwrap();
                // Up to the parenthesis that closes the call.
                let mut depth = 1;
                let end = call.find(|c| {
                    depth += i32::from(c == '(') - i32::from(c == ')');
                    depth == 0
                });
                let call = &call[..end.unwrap()];
                let methods =
                    METHODS.iter().filter(|m| call.contains(&format!("::{m}(")) || call.contains(&format!(").{m}(")));
                let before = found.len();
                found.extend(methods.map(|m| (path.to_owned(), (*m).to_owned())));
                assert!(found.len() > before, "no method is recognized in .route(\"{path}\"{call})");
            }
        }
    }
}

#[test]
fn every_route_is_described_and_no_other() {
    let mut routed_here = BTreeSet::new();
    routed(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut routed_here);
    assert!(routed_here.len() >= 16, "{routed_here:?}");
    let described = described();
    let lacking: Vec<_> = routed_here.difference(&described).collect();
    let gone: Vec<_> = described.difference(&routed_here).collect();
    assert!(lacking.is_empty() && gone.is_empty(), "not described: {lacking:?}; not routed: {gone:?}");
}

#[test]
fn references_lead_somewhere_and_names_are_unique() {
    let mut stack = vec![&*DOCUMENT];
    let mut references = 0;
    while let Some(value) = stack.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                    references += 1;
                    assert!(DOCUMENT.pointer(target.strip_prefix('#').unwrap()).is_some(), "{target}");
                }
                stack.extend(fields.values());
            }
            Value::Array(items) => stack.extend(items),
            _ => {}
        }
    }
    assert!(references > 20);
    let ids: Vec<&Value> = DOCUMENT["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .map(|o| &o["operationId"])
        .collect();
    let unique: BTreeSet<&str> = ids.iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
}

#[test]
fn all_answers_have_a_version_and_errors_a_schema() {
    assert!(DOCUMENT["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(DOCUMENT["info"]["version"], API_VERSION);
    for (path, method) in described() {
        let responses = DOCUMENT["paths"][&path][&method]["responses"].as_object().unwrap();
        assert_eq!(responses["default"]["content"]["application/json"]["schema"]["$ref"], "#/components/schemas/Error");
        for (status, response) in responses {
            assert!(response["headers"]["X-MemoBuild-API-Version"].is_object(), "{method} {path} {status}");
        }
    }
}
