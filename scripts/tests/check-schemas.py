#!/usr/bin/env python3
"""check-schemas.py SCHEMAS LAYOUT...: validates the JSON of OCI layouts (directories or tars) against the schemas of the
image specification, and every descriptor against the bytes that it names."""
import copy, hashlib, json, sys, tarfile
from pathlib import Path

from jsonschema import Draft4Validator, Draft7Validator, RefResolver
from jsonschema.exceptions import ValidationError

BASE = "https://schemas.invalid/"
EMPTY = "application/vnd.oci.empty.v1+json"
INDEX, MANIFEST = "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"


def plain(schema):
    """Without ids: those of the specification are names, and would make references relative to themselves."""
    if isinstance(schema, dict):
        return {k: plain(v) for k, v in schema.items() if not (k == "id" and isinstance(v, str))}
    return [plain(v) for v in schema] if isinstance(schema, list) else schema


class Schemas:
    def __init__(self, directory):
        self.store = {BASE + p.name: plain(json.loads(p.read_text())) for p in directory.glob("*.json")}

    def validate(self, data, name):
        schema = self.store[BASE + name]
        resolver = RefResolver(base_uri=BASE + name, referrer=schema, store=self.store)
        Draft4Validator(schema, resolver=resolver).validate(data)

    def can_fail(self, data, name):
        """Each field that the schema demands is missed when it lacks, and a field of another type is refused."""
        for field in self.store[BASE + name]["required"]:
            for wrong in ({k: v for k, v in data.items() if k != field}, {**copy.deepcopy(data), field: 17.5}):
                try:
                    self.validate(wrong, name)
                except ValidationError:
                    continue
                raise SystemExit(f"{name}: a wrong {field} is not found: the validator is of no use")


def check_statement(statement, layer):
    """An in-toto statement against the schema of what it says; without the packages that carry those, its form alone."""
    assert layer["mediaType"] == "application/vnd.in-toto+json", layer
    assert layer["annotations"]["in-toto.io/predicate-type"] == statement["predicateType"]
    assert statement["_type"] == "https://in-toto.io/Statement/v1" and statement["subject"][0]["digest"]["sha256"]
    kind, predicate = statement["predicateType"], statement["predicate"]
    if kind == "https://spdx.dev/Document":
        try:
            from importlib.resources import files
            import lib4sbom
        except ImportError:
            print("skipped: PyPI's lib4sbom, which carries the schema of SPDX 2.3")
            return
        schema = json.loads((files("lib4sbom") / "schemas/spdx/2.3-schema.json").read_text())
        Draft7Validator(schema).validate(predicate)
        assert list(Draft7Validator(schema).iter_errors({**predicate, "packages": 7})), "the validator is of no use"
    elif kind == "https://slsa.dev/provenance/v1":
        try:
            from google.protobuf import json_format
            from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
        except ImportError:
            print("skipped: PyPI's in-toto-attestation, which knows SLSA provenance v1")
            return
        plain = copy.deepcopy(predicate)
        metadata = plain["runDetails"]["metadata"]
        for extension in [name for name in metadata if name.startswith("buildkit_")]:
            del metadata[extension]
        json_format.ParseDict(plain, Provenance())
        try:
            json_format.ParseDict({**plain, "unheardOf": 1}, Provenance())
        except json_format.ParseError:
            return
        raise SystemExit("the validator is of no use")
    else:
        raise SystemExit(f"an unknown predicate: {kind}")


class Layout:
    def __init__(self, path):
        self.path, self.tar = path, None if path.is_dir() else tarfile.open(path)

    def read(self, name):
        return (self.path / name).read_bytes() if self.tar is None else self.tar.extractfile(name).read()

    def blob(self, descriptor):
        data = self.read("blobs/" + descriptor["digest"].replace(":", "/"))
        assert len(data) == descriptor["size"], f"{descriptor}: {len(data)} bytes"
        algorithm, digest = descriptor["digest"].split(":")
        assert hashlib.new(algorithm, data).hexdigest() == digest, f"{descriptor}: other bytes"
        return data


def check(schemas, layout):
    marker = json.loads(layout.read("oci-layout"))
    schemas.validate(marker, "image-layout-schema.json")
    schemas.can_fail(marker, "image-layout-schema.json")
    seen = {"layers": 0, "images": 0, "indexes": 1}
    todo = [(json.loads(layout.read("index.json")), "image-index-schema.json")]
    while todo:
        document, name = todo.pop()
        schemas.validate(document, name)
        schemas.can_fail(document, name)
        for descriptor in document.get("manifests", []) + document.get("layers", []):
            schemas.validate(descriptor, "content-descriptor.json")
        for descriptor in document.get("manifests", []):
            kind = {INDEX: "index", MANIFEST: "manifest"}[descriptor["mediaType"]]
            seen["indexes"] += kind == "index"
            todo.append((json.loads(layout.blob(descriptor)), f"image-{kind}-schema.json"))
        if "config" not in document:
            continue
        if document.get("artifactType") or document["config"]["mediaType"] == EMPTY:
            for layer in document["layers"]:
                check_statement(json.loads(layout.blob(layer)), layer)
                seen["statements"] = seen.get("statements", 0) + 1
            continue
        assert document["mediaType"] == MANIFEST and document["config"]["mediaType"].startswith("application/vnd.oci.")
        config = json.loads(layout.blob(document["config"]))
        schemas.validate(config, "config-schema.json")
        schemas.can_fail(config, "config-schema.json")
        assert len(config["rootfs"]["diff_ids"]) == len(document["layers"])
        assert len(document["layers"]) == sum(not h.get("empty_layer", False) for h in config["history"])
        for layer in document["layers"]:
            layout.blob(layer)
        seen["images"] += 1
        seen["layers"] += len(document["layers"])
    assert seen["images"], "the layout holds no image"
    return ", ".join(f"{count} {what}" for what, count in seen.items())


def main(directory, *layouts):
    schemas = Schemas(Path(directory))
    for layout in layouts:
        print(f"ok   {Path(layout).name}: {check(schemas, Layout(Path(layout)))}")
    print(f"{len(layouts)} passed, 0 failed")


main(*sys.argv[1:])
