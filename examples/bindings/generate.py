#!/usr/bin/env python3
"""Writes what the bindings need to know of qlora.h. One command after every change of the header:

    python3 examples/bindings/generate.py            writes qlora.json and the declarations of Rust, Python and C#
    python3 examples/bindings/generate.py --check    writes nothing; names what is out of date, and fails if anything is

Go needs no declarations: cgo reads the header."""
import json
import os
import sys

import describe
import emit_csharp
import emit_python
import emit_rust

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def description_text(description):
    """JSON with one line per constant, field and function, so that differences read well."""
    lines = ["{", '  "version": %s,' % json.dumps(description["version"]), '  "abis": %s,' % json.dumps(description["abis"]),
             '  "opaque": %s,' % json.dumps(description["opaque"]), '  "constants": [']
    lines += ["    " + json.dumps(entry) + "," for entry in description["constants"]]
    lines[-1] = lines[-1][:-1]
    lines += ["  ],", '  "structs": [']
    for struct in description["structs"]:
        lines.append('    {"name": "%s", "size": %s, "alignment": %s, "fields": [' % (struct["name"], json.dumps(struct["size"]), json.dumps(struct["alignment"])))
        lines += ["      " + json.dumps(field) + "," for field in struct["fields"]]
        lines[-1] = lines[-1][:-1]
        lines.append("    ]},")
    lines[-1] = lines[-1][:-1]
    lines += ["  ],", '  "functions": [']
    lines += ["    " + json.dumps(entry) + "," for entry in description["functions"]]
    lines[-1] = lines[-1][:-1]
    return "\n".join(lines + ["  ]", "}"]) + "\n"


def outputs():
    with open(os.path.join(ROOT, "qlora.h")) as file:
        description = describe.describe(file.read())
    return {
        "qlora.json": description_text(description),
        "rust/qlora-sys/src/declarations.rs": emit_rust.emit(description),
        "python/qlora/declarations.py": emit_python.emit(description),
        "csharp/Declarations.cs": emit_csharp.emit(description),
    }


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    stale = []
    for name, text in outputs().items():
        path = os.path.join(HERE, name)
        old = open(path).read() if os.path.exists(path) else None
        if old == text:
            continue
        stale.append(name)
        if not check:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(text)
    for name in stale:
        print(("out of date: " if check else "written: ") + "examples/bindings/" + name)
    if check and stale:
        sys.exit("run examples/bindings/generate.py")


main()
