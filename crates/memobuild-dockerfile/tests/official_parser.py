"""Prints, as JSON, what the official parser makes of the Dockerfiles named on standard input.

Needs PyPI's `dockerfile` module, which wraps the parser of moby. One path a line; the answer
is an object from path to a list of instructions, or to {"error": text}.
"""

import json
import sys

try:
    import dockerfile
except ImportError:
    sys.exit(77)


def instructions(path):
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        text = file.read()
    try:
        text.encode("utf-8")
        commands = dockerfile.parse_string(text)
    except (UnicodeEncodeError, ValueError, dockerfile.GoParseError) as error:
        return {"error": str(error)}
    return [
        {
            "cmd": c.cmd.lower(),
            "sub_cmd": c.sub_cmd.lower() if c.sub_cmd else None,
            "json": c.json,
            "original": c.original,
            "start_line": c.start_line,
            "end_line": c.end_line,
            "flags": list(c.flags),
            "value": list(c.value),
            "heredocs": [[h.name, h.file_descriptor, h.content] for h in c.heredocs],
        }
        for c in commands
    ]


paths = sys.stdin.read().splitlines()
json.dump({path: instructions(path) for path in paths}, sys.stdout)
