#!/usr/bin/env python3
"""check-schemas.py SCHEMAS LAYOUT: validates an OCI layout's JSON against the image specification's schemas."""
import json, sys
from pathlib import Path

from jsonschema import Draft4Validator, RefResolver

BASE = "https://schemas.invalid/"


def plain(schema):
    """Without ids: those of the specification are names, and would make references relative to themselves."""
    if isinstance(schema, dict):
        return {k: plain(v) for k, v in schema.items() if not (k == "id" and isinstance(v, str))}
    return [plain(v) for v in schema] if isinstance(schema, list) else schema


def main(schemas, layout):
    store = {BASE + p.name: plain(json.loads(p.read_text())) for p in schemas.glob("*.json")}

    def validate(data, name):
        schema = store[BASE + name]
        resolver = RefResolver(base_uri=BASE + name, referrer=schema, store=store)
        Draft4Validator(schema, resolver=resolver).validate(data)
        print("  valid:", name)

    def blob(descriptor):
        return json.loads((layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes())

    validate(json.loads((layout / "oci-layout").read_text()), "image-layout-schema.json")
    index = json.loads((layout / "index.json").read_text())
    validate(index, "image-index-schema.json")
    manifests = [blob(d) for d in index["manifests"]]
    assert manifests, "the layout holds no image"
    for manifest in manifests:
        validate(manifest, "image-manifest-schema.json")
        validate(blob(manifest["config"]), "config-schema.json")


main(Path(sys.argv[1]), Path(sys.argv[2]))
