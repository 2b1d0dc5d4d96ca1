#!/usr/bin/env python3
"""check-schemas.py SCHEMAS LAYOUT: validates an OCI layout's JSON against the image specification's schemas."""
import json, sys
from pathlib import Path

import jsonschema
from jsonschema import Draft4Validator, RefResolver

schemas, layout = Path(sys.argv[1]), Path(sys.argv[2])
store = {p.name: json.loads(p.read_text()) for p in schemas.glob("*.json")}
by_id = {}
for name, schema in store.items():
    by_id[schema.get("id", name)] = schema


def validate(data, name):
    schema = store[name]
    base = schema.get("id", (schemas / name).resolve().as_uri())
    # References are by file name, beside the schema.
    near = {base.rsplit("/", 1)[0] + "/" + other: s for other, s in store.items()}
    resolver = RefResolver(base_uri=base, referrer=schema, store={**by_id, **near})
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
