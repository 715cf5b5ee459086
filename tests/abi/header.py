#!/usr/bin/env python3
"""header.py SOURCE_DIR: what qlora.h promises to programs that are compiled already.

1. The bindings' declarations are those of the header (examples/bindings/generate.py --check).
2. Sizes and places of all fields, computed by the rules of C for 64-bit and 32-bit machines, are what compilers make of them.
3. Against tests/abi/qlora_0_1.h: nothing is gone, numbers and signatures are the same, structs have only grown at their end, and
   those without struct_size not at all.
4. cpp/qlora.hpp calls every function."""
import os
import shutil
import subprocess
import sys
import tempfile

root = os.path.abspath(sys.argv[1])
sys.path.insert(0, os.path.join(root, "examples", "bindings"))
sys.dont_write_bytecode = True
import describe  # noqa: E402

failures = []


def read(path):
    with open(os.path.join(root, path)) as file:
        return describe.describe(file.read())


def without_offsets(field):
    return {key: value for key, value in field.items() if key not in ("offset", "name")}


def compare(old, new):
    for kind in ("constants", "functions"):
        today = {entry["name"]: entry for entry in new[kind]}
        for entry in old[kind]:
            name = entry["name"]
            if name.startswith("QLORA_VERSION_"):
                continue
            if name not in today:
                failures.append("%s is gone" % name)
            elif today[name] != entry:
                failures.append("%s was %s, is %s" % (name, entry, today[name]))
    structs = {struct["name"]: struct for struct in new["structs"]}
    for struct in old["structs"]:
        now = structs.get(struct["name"])
        if not now:
            failures.append("struct %s is gone" % struct["name"])
            continue
        if struct["fields"][0]["name"] != "struct_size" and now["size"] != struct["size"]:
            failures.append("struct %s has no struct_size and may not grow" % struct["name"])
        if len(now["fields"]) < len(struct["fields"]):
            failures.append("struct %s has lost fields" % struct["name"])
        for before, after in zip(struct["fields"], now["fields"]):
            spare = before["name"].startswith("reserved")  # may get a name and another type of its size
            if before["offset"] != after["offset"] or (not spare and (without_offsets(before) != without_offsets(after) or before["name"] != after["name"])):
                failures.append("struct %s: field %s was %s, is %s" % (struct["name"], before["name"], before, after))


def assertions(description, abi):
    lines = ['#include "qlora.h"']
    for struct in description["structs"]:
        lines.append('_Static_assert(sizeof(%s) == %d, "sizeof %s");' % (struct["name"], struct["size"][abi], struct["name"]))
        lines += ['_Static_assert(offsetof(%s, %s) == %d, "%s.%s");' % (struct["name"], field["name"], field["offset"][abi], struct["name"], field["name"]) for field in struct["fields"]]
    return "\n".join(lines) + "\n"


def compile_layouts(description):
    """Freestanding, so that a compiler needs no C library for the machines that this one is not."""
    compilers = [(["gcc", "-m64"], 0), (["gcc", "-m32"], 2)] if os.uname().machine == "x86_64" else [(["gcc"], 0)]
    compilers += [(["clang", "--target=" + target], abi) for target, abi in (("x86_64-linux-gnu", 0), ("aarch64-linux-gnu", 0), ("x86_64-pc-windows-msvc", 0),
                  ("arm64-apple-macos", 0), ("i386-linux-gnu", 2), ("arm-linux-gnueabihf", 1), ("i686-pc-windows-msvc", 1), ("riscv32", 1))]
    checked = []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "layout.c")
        for command, abi in compilers:
            if not shutil.which(command[0]):
                continue
            with open(path, "w") as file:
                file.write(assertions(description, abi))
            result = subprocess.run(command + ["-std=c11", "-ffreestanding", "-fsyntax-only", "-I", root, path], capture_output=True, text=True)
            if result.returncode:
                failures.append("%s lays structs out otherwise:\n%s" % (" ".join(command), result.stderr[:1500]))
            checked.append(" ".join(command))
    if not checked:
        failures.append("no C compiler to ask")
    print("layouts agree with: " + ", ".join(checked))


today = read("qlora.h")
compile_layouts(today)
compare(read("tests/abi/qlora_0_1.h"), today)
with open(os.path.join(root, "cpp", "qlora.hpp")) as file:
    wrapper = file.read()
failures += ["cpp/qlora.hpp does not call %s" % entry["name"] for entry in today["functions"] if entry["name"] + "(" not in wrapper and entry["name"] + "," not in wrapper]
result = subprocess.run([sys.executable, os.path.join(root, "examples", "bindings", "generate.py"), "--check"], capture_output=True, text=True)
if result.returncode:
    failures.append((result.stdout + result.stderr).strip())
for failure in failures:
    print("FAILED  " + failure)
print("%d constants, %d structs, %d functions" % (len(today["constants"]), len(today["structs"]), len(today["functions"])))
sys.exit(1 if failures else 0)
