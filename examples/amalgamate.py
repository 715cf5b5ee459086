#!/usr/bin/env python3
"""The library's CPU build (backends ref and cpu) as two files: qlora.h, and qlora_amalgamated.cpp, which needs nothing else.

    python3 examples/amalgamate.py DIRECTORY
    g++ -O2 -std=c++17 -c DIRECTORY/qlora_amalgamated.cpp

The sources are written to be compiled one by one. In one translation unit their private names, those of unnamed namespaces, would
meet; one that occurs elsewhere too is therefore given its file's name as suffix. The target regions of isa_*_cpu.cpp stay as
they are, with every system header before them."""
import glob
import os
import re
import sys

LICENSE = "// qlora, backends ref and cpu, in one file, made by examples/amalgamate.py. SPDX-License-Identifier: MIT\n"

# Decoding must round where the formats say. A build system says so by -ffp-contract=off; here the file does. What an instruction
# set has and does not use goes unnoticed in a file of its own.
NO_CONTRACTION = """#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#pragma clang diagnostic ignored "-Wunused-function"
#pragma clang diagnostic ignored "-Wunused-const-variable"
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#pragma GCC diagnostic ignored "-Wsubobject-linkage" // of files that include this one
#elif defined(_MSC_VER)
#pragma fp_contract(off)
#endif
"""

CONDITIONAL = {"<immintrin.h>", "<windows.h>", "<pthread.h>", "<unistd.h>"}  # stay where they are, under their conditions

X86 = """#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#include <immintrin.h> // before any target region
#endif
"""


def read(root, path):
    with open(os.path.join(root, path)) as file:
        return file.read()


def sources(root):
    paths = [os.path.join(root, "qlora.cpp")]
    for folder in ("ref", "cpu", "interchange"):
        paths += sorted(glob.glob(os.path.join(root, "backends", folder, "*.cpp")))
    return [os.path.relpath(path, root).replace(os.sep, "/") for path in paths]


def included(text):
    return re.findall(r'^ *# *include "([^"]+)"', text, flags=re.M)


def is_header(root, path):
    return path == "qlora.h" or "#pragma once" in read(root, path)


def headers(root, paths):
    """Every header with a guard that the files reach, each after those that it includes."""
    found = []

    def visit(path):
        for other in included(read(root, path)):
            if os.path.exists(os.path.join(root, other)):
                visit(other)
        if is_header(root, path) and path not in found:
            found.append(path)

    for path in paths:
        visit(path)
    return found


def inlined(root, text):
    """The text with shared headers left out and every other file of ours put in its place, again and again."""
    def place(match):
        path = match.group(1)
        if not os.path.exists(os.path.join(root, path)):
            return match.group(0)  # of a backend that is not in this build
        if is_header(root, path):
            return ""
        return inlined(root, read(root, path)).rstrip("\n")
    return re.sub(r'^ *# *include "([^"]+)"[^\n]*', place, text, flags=re.M)


def names_of(text):
    """What a text declares: (private, public, members). Private are names of unnamed namespaces and static ones, members those of its
    classes."""
    code = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.S)
    code = re.sub(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', "0", code)
    code = re.sub(r"^ *#(?:[^\n]*\\\n)*[^\n]*$", "", code, flags=re.M)
    private, public, members, scopes, statement = set(), set(), set(), [], ""

    def keep(head):
        (private if "unnamed" in scopes or re.match(r"static\s", head) else public).update(declared(head))

    for piece in re.findall(r"[{};]|[^{};]+", code):
        if piece not in "{};":
            statement += piece
            continue
        outside = all(scope in ("namespace", "unnamed") for scope in scopes)
        head = statement.strip()
        if scopes and scopes[-1] == "class" and piece != "}":
            members |= declared(re.sub(r"^(?:(?:public|private|protected)\s*:\s*)+", "", head))
        if piece == "}":
            if scopes:
                scopes.pop()
            statement = ""
        elif piece == ";":
            if outside:
                keep(head)
            statement = ""
        elif outside and re.search(r"(^|\s)namespace(\s+\w+)?$", head):
            scopes.append("unnamed" if head.endswith("namespace") else "namespace")
            statement = ""
        elif outside and re.fullmatch(r"extern\s+0", head):
            scopes.append("namespace")
            statement = ""
        else:
            if outside:
                keep(head)
            scopes.append("class" if re.search(r"(^|\s)(struct|class|union)\s+[^()]*$", head) else "other")
            statement = ""
    return private, public, members


def split_outside(text, opening="(<[{", closing=")>]}"):
    """Splits at the commas that stand in no brackets."""
    parts, depth, begin = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in opening) - (letter in closing and text[place - 1:place] != "-")
        if letter == "," and depth == 0:
            parts.append(text[begin:place])
            begin = place + 1
    return parts + [text[begin:]]


def declared(head):
    """The names of one declaration, given up to its body or semicolon."""
    if not head or re.match(r"(template\s*<\s*>|using namespace|static_assert|return)", head):
        return set()
    while head.startswith("template"):
        depth = 0
        for place in range(head.index("<"), len(head)):
            depth += {"<": 1, ">": -1}.get(head[place], 0)
            if depth == 0:
                break
        head = head[place + 1:].strip()
    head = re.sub(r"__attribute__\s*\(\(.*?\)\)+|alignas\s*\(\w+\)", " ", head)
    match = re.match(r"(?:struct|class|enum|union)\s+(?:class\s+)?(\w+)\s*(?:<|:[^:]|$)", head) or re.match(r"using\s+(\w+)\s*=", head) or re.match(r"typedef\b.*?\b(\w+)$", head, flags=re.S)
    if match:
        return {match.group(1)}
    names = set()
    for part in split_outside(head):
        words = re.findall(r"\w+", re.split(r"[(=\[]", part, maxsplit=1)[0])
        if words:
            names.add(words[-1])
        if "(" in part.split("=")[0]:
            break  # a function
    return names - {"true", "false"}


def renamed(text, names, suffix, members):
    """The text with every token among names given a suffix, but for members of others' classes (Scale::F32, and x.name unless name is
    among members), the first words of rows of tables, which are pasted, and words in strings."""
    if not names:
        return text
    pattern = r'"(?:\\.|[^"\\\n])*"|//[^\n]*|(?:(?:\b(?!qlora::|cpu::|ref::)\w+|>)::|QLORA_\w+_ROW\(|\.|->)?\b(?:%s)\b' % "|".join(sorted(names))

    def replaced(match):
        name = re.sub(r"^(?:\.|->)", "", match.group(0))
        return match.group(0) + suffix if name in names and (name == match.group(0) or name in members) else match.group(0)
    return re.sub(pattern, replaced, text)


def macros(text):
    """Macros that a text defines, and in the end has not undefined."""
    defined = []
    for kind, name in re.findall(r"^ *# *(define|undef) +(\w+)", text, flags=re.M):
        if name in defined:
            defined.remove(name)
        if kind == "define":
            defined.append(name)
    return defined


def undefined(names):
    return "".join("#undef %s\n" % name for name in names)


def amalgamation(root):
    paths = sources(root)
    shared = headers(root, paths)
    header_texts = {path: re.sub(r"^#pragma once\n", "", inlined(root, read(root, path)), flags=re.M) for path in shared}
    texts = {path: inlined(root, read(root, path)) for path in paths}
    counts, own, members = {}, {}, {}
    for path, text in list(texts.items()) + list(header_texts.items()):
        private, public, members[path] = names_of(text)
        own[path] = private
        for name in private | public:
            counts[name] = counts.get(name, 0) + 1
    system = sorted({name for text in list(header_texts.values()) + list(texts.values()) for name in re.findall(r"^#include (<c?\w+>)", text, flags=re.M)} - CONDITIONAL)
    result = LICENSE + NO_CONTRACTION + "".join("#include %s\n" % name for name in system) + X86
    for path in shared:
        if path == "qlora.h":
            result += '#include "qlora.h"\n'
            continue
        result += "\n// ---- %s\n%s\n" % (path, header_texts[path].strip("\n"))
        result += undefined(name for name in macros(header_texts[path]) if name not in macros(read(root, path)))  # of files between
    for path in paths:
        suffix = "_" + re.sub(r"\W", "_", os.path.splitext(os.path.basename(path))[0])
        body = renamed(texts[path], {name for name in own[path] if counts[name] > 1}, suffix, members[path])
        result += "\n// ---- %s\n%s\n" % (path, body.strip("\n"))
        result += undefined(macros(texts[path]))
    return result


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    os.makedirs(sys.argv[1], exist_ok=True)
    for name, text in (("qlora.h", read(root, "qlora.h")), ("qlora_amalgamated.cpp", amalgamation(root))):
        with open(os.path.join(sys.argv[1], name), "w") as file:
            file.write(text)


if __name__ == "__main__":
    main()
