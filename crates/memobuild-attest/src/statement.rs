//! In-toto statements: a predicate, and what it is about (in-toto attestation framework, `spec/v1/statement.md`), written
//! as BuildKit writes them.

use std::collections::BTreeMap;

use memobuild_image::{Platform, json};
use memobuild_tree::Sha256Digest;
use serde::{Deserialize, Serialize};

use crate::purl;

/// The type of a statement. BuildKit wrote `Statement/v0.1` before 0.31; its readers know both.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Subject {
    /// Its name: a package URL, or `_` where it has none.
    pub name: String,
    /// Digests by algorithm, in hexadecimal digits.
    pub digest: BTreeMap<String, String>,
}

impl Subject {
    /// The subjects of an image: its manifest under each of the names that the image is given, or once without a name.
    pub fn of_image(names: &[String], platform: Option<&Platform>, manifest: &Sha256Digest) -> Vec<Self> {
        let subject = |name| Self { name, digest: BTreeMap::from([("sha256".into(), manifest.hex())]) };
        if names.is_empty() {
            return vec![subject("_".into())];
        }
        names.iter().map(|n| subject(purl::image(n, platform))).collect()
    }
}

/// A predicate that is no JSON.
#[derive(Debug, thiserror::Error)]
#[error("the predicate of type {kind} is not JSON")]
pub struct StatementError {
    kind: String,
    #[source]
    source: serde_json::Error,
}

/// A statement as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What kind of predicate it holds.
    pub predicate_type: String,
    /// Its bytes: compact JSON.
    pub bytes: Vec<u8>,
}

impl Statement {
    /// A statement about these subjects. The predicate stays byte for byte what it is.
    ///
    /// # Errors
    /// When the predicate is not JSON.
    pub fn new(predicate_type: &str, subjects: &[Subject], predicate: &[u8]) -> Result<Self, StatementError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Head<'a> {
            #[serde(rename = "_type")]
            kind: &'a str,
            predicate_type: &'a str,
            subject: &'a [Subject],
        }
        let error = |source| StatementError { kind: predicate_type.into(), source };
        serde_json::from_slice::<serde::de::IgnoredAny>(predicate).map_err(error)?;
        let mut bytes =
            json::compact(&Head { kind: STATEMENT_TYPE, predicate_type, subject: subjects }).map_err(error)?;
        // In place of the closing brace.
        bytes.pop();
        bytes.extend_from_slice(b",\"predicate\":");
        bytes.extend_from_slice(predicate);
        bytes.push(b'}');
        Ok(Self { predicate_type: predicate_type.into(), bytes })
    }

    /// What kind of predicate the bytes of a statement hold; `None` if they are no statement.
    pub fn predicate_type_of(bytes: &[u8]) -> Option<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            #[serde(rename = "_type")]
            kind: String,
            predicate_type: String,
        }
        let head: Head = serde_json::from_slice(bytes).ok()?;
        head.kind.starts_with("https://in-toto.io/Statement/").then_some(head.predicate_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_written_in_buildkits_order() {
        let digest = Sha256Digest::of(b"manifest");
        let platform: Platform = "linux/amd64".parse().unwrap();
        let subjects = Subject::of_image(&["example.org/app:1".into()], Some(&platform), &digest);
        let statement = Statement::new("https://spdx.dev/Document", &subjects, br#"{"a":1}"#).unwrap();
        let expected = format!(
            concat!(
                r#"{{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://spdx.dev/Document","#,
                r#""subject":[{{"name":"pkg:docker/example.org/app@1?platform=linux%2Famd64","#,
                r#""digest":{{"sha256":"{}"}}}}],"predicate":{{"a":1}}}}"#
            ),
            digest.hex()
        );
        assert_eq!(String::from_utf8(statement.bytes.clone()).unwrap(), expected);
        assert_eq!(Statement::predicate_type_of(&statement.bytes).as_deref(), Some("https://spdx.dev/Document"));
        assert_eq!(Statement::predicate_type_of(b"{}"), None);
        assert!(Statement::new("x", &[], b"{").is_err());
        assert_eq!(Subject::of_image(&[], None, &digest)[0].name, "_");
    }
}
