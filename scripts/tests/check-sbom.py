#!/usr/bin/env python3
"""check-sbom.py FILE: an SBOM is valid by SPDX's own library (PyPI's spdx-tools), which finds what is broken in a copy."""
import json, sys, tempfile
from pathlib import Path

from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document


def problems(path):
    return [str(each.validation_message) for each in validate_full_spdx_document(parse_file(str(path)))]


def main(path):
    found = problems(path)
    if found:
        raise SystemExit("\n".join(found[:20]))
    document = json.loads(Path(path).read_text())
    count = len(document["packages"])
    document["documentNamespace"] = "not a URI"
    document["packages"][-1]["licenseDeclared"] = "no such licence"
    document["relationships"][-1]["relatedSpdxElement"] = "SPDXRef-nobody"
    with tempfile.TemporaryDirectory() as work:
        broken = Path(work, "broken.spdx.json")
        broken.write_text(json.dumps(document))
        if len(problems(broken)) < 3:
            raise SystemExit("the validator finds nothing in a document that is broken")
    print(f"valid SPDX 2.3: {count} packages")


main(*sys.argv[1:])
