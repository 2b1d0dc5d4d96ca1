//! Documents as the libraries of their makers read them.

use std::{fs, path::Path};

use memobuild_attest::{
    provenance::{self, Build, Credential, Material, Mode, Step},
    sbom::{self, Document},
    statement::{Statement, Subject},
};
use memobuild_image::Platform;
use memobuild_tree::Sha256Digest;

use crate::{disk::Disk, output, python, python_has};

/// SPDX's own validation of a whole document, and purl-spec's parser on every package URL.
const CHECK_SPDX: &str = r#"
import json, sys
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

def problems(path):
    return [str(m.validation_message) for m in validate_full_spdx_document(parse_file(path))]

path, broken = sys.argv[1:]
found = problems(path)
assert not found, "\n".join(found[:20])
raw = json.load(open(path))
raw["documentNamespace"] = "not a URI"
raw["packages"][1]["SPDXID"] = "SPDXRef-a b"
json.dump(raw, open(broken, "w"))
assert len(problems(broken)) >= 2, "the validator finds nothing"
print(len(raw["packages"]))
"#;

/// The JSON schema of the specification, which lib4sbom carries.
const CHECK_SCHEMA: &str = r#"
import json, sys
from importlib.resources import files
from jsonschema import Draft7Validator

schema = json.loads((files("lib4sbom") / "schemas/spdx/2.3-schema.json").read_text())
assert schema["$id"] == "http://spdx.org/rdf/terms/2.3"
validator = Draft7Validator(schema)
raw = json.load(open(sys.argv[1]))
validator.validate(raw)
for name in ["name", "SPDXID", "downloadLocation"]:
    broken = json.loads(json.dumps(raw))
    del broken["packages"][0][name]
    assert not validator.is_valid(broken), f"a package without {name} is not found"
raw["packages"][0]["unknown"] = 1
assert not validator.is_valid(raw)
print("valid")
"#;

/// In-toto's and SLSA's protocol buffers, which are their schemas. Fields that start with a vendor's name are allowed
/// (SLSA provenance v1, "Extension fields"), and only those.
const CHECK_STATEMENT: &str = r#"
import json, sys
from google.protobuf import json_format
from in_toto_attestation.v1.statement_pb2 import Statement
from in_toto_attestation.v1.statement import Statement as Validator
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance

def check(raw):
    statement = json_format.ParseDict(raw, Statement())
    Validator.copy_from_pb(statement).validate()
    predicate = json.loads(json.dumps(raw["predicate"]))
    metadata = predicate["runDetails"]["metadata"]
    for key in [k for k in metadata if k.startswith("buildkit_")]:
        del metadata[key]
    provenance = json_format.ParseDict(predicate, Provenance())
    assert provenance.build_definition.build_type and provenance.run_details.builder.id
    assert provenance.run_details.metadata.started_on.seconds == 1700000000
    assert all(d.uri and d.digest for d in provenance.build_definition.resolved_dependencies)

raw = json.load(open(sys.argv[1]))
check(raw)
for path, key in [([], "subject"), (["predicate", "runDetails", "metadata"], "startedOn")]:
    broken = json.loads(json.dumps(raw))
    at = broken
    for step in path:
        at = at[step]
    at[key] = "wrong"
    try:
        check(broken)
    except Exception:
        continue
    raise SystemExit(f"a wrong {key} is not found: the validator is of no use")
"#;

#[test]
fn the_document_of_this_machine_is_valid_spdx() {
    let dir = tempfile::tempdir().unwrap();
    let shown = [
        "/var/lib/dpkg/status",
        "/usr/lib/os-release",
        "/usr/lib/python3",
        "/usr/lib/node_modules",
        "/usr/share/nodejs",
    ];
    let scan = sbom::scan(&Disk::new(Path::new("/")).only(&shown)).unwrap();
    let image = Sha256Digest::of(b"image");
    let document = Document { name: "example.org/app", image, created: 1_700_000_000, tool_version: "0.0.0" };
    let path = dir.path().join("sbom.spdx.json");
    fs::write(&path, document.to_json(&scan).unwrap()).unwrap();
    if python_has("lib4sbom") {
        assert_eq!(output(python().args(["-c", CHECK_SCHEMA]).arg(&path)).unwrap().trim(), "valid");
    }
    if !python_has("spdx_tools") {
        return;
    }
    let broken = dir.path().join("broken.spdx.json");
    let count = output(python().args(["-c", CHECK_SPDX]).args([&path, &broken])).unwrap();
    assert_eq!(count.trim(), (scan.packages.len() + 1).to_string());
    println!("{} packages are valid", count.trim());
}

#[test]
fn provenance_is_what_its_schema_says() {
    if !python_has("in_toto_attestation") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let platform: Platform = "linux/arm64".parse().unwrap();
    let digest = Sha256Digest::of(b"x");
    let build = Build {
        builder_id: "https://ci.example.org/run/7".into(),
        version: "0.0.0".into(),
        invocation_id: "abc".into(),
        started: (1_700_000_000, 5),
        finished: (1_700_000_001, 0),
        args: [("build-arg:A".to_owned(), "b".to_owned())].into(),
        secrets: vec![Credential { id: "s".into(), optional: false }],
        materials: vec![
            Material::Image { reference: "alpine:3".into(), platform: Some(platform.clone()), digest, local: false },
            Material::Git { url: "https://example.org/r.git".into(), commit: "0".repeat(40) },
            Material::Http { url: "https://example.org/x".into(), digest },
        ],
        steps: vec![Step { name: "FROM alpine".into(), lines: Some((1, 1)), ..Step::default() }],
        reproducible: true,
        ..Build::default()
    };
    let subjects = Subject::of_image(&["example.org/app:1".into()], Some(&platform), &digest);
    for mode in [Mode::Min, Mode::Max] {
        let predicate = build.to_json(mode).unwrap();
        let statement = Statement::new(provenance::PREDICATE_TYPE, &subjects, &predicate).unwrap();
        let path = dir.path().join("statement.json");
        fs::write(&path, statement.bytes).unwrap();
        output(python().args(["-c", CHECK_STATEMENT]).arg(&path)).unwrap();
    }
}
