"""Reads qlora.h: its constants, structs and functions as plain data, with the layout of every struct on three kinds of machines.

The header keeps to a small part of C99 (fixed-width types, no unions, bit-fields, enums or inline functions), so that this
reader can be short; what it does not understand it refuses."""
import re

# Size and alignment of scalars: 64-bit machines; 32-bit ones that align 64-bit numbers to 8 (ARM, Windows); i386 elsewhere.
ABIS = ("64", "32", "i386")
POINTER = (8, 4, 4)
SCALARS = {"char": 1, "int8_t": 1, "uint8_t": 1, "int16_t": 2, "uint16_t": 2, "int32_t": 4, "uint32_t": 4, "float": 4, "int64_t": 8, "uint64_t": 8, "double": 8}


class HeaderError(Exception):
    pass


def split_parameters(text):
    """Splits at the commas that stand in no parentheses."""
    parts, depth, begin = [], 0, 0
    for place, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(text[begin:place])
            begin = place + 1
    parts.append(text[begin:])
    return [part.strip() for part in parts if part.strip()]


def declarators(text):
    """The names that one declaration gives, each as {name, type} with count for arrays, returns and parameters for pointers
    to functions."""
    text = " ".join(text.split())
    function = re.fullmatch(r"(.+?)\(\*(\w+)\)\((.*)\)", text)
    if function:
        returns, name, parameters = function.groups()
        return [{"name": name, "type": "callback", "returns": spelled(returns), "parameters": parameters_of(parameters)}]
    first = re.fullmatch(r"((?:const )?\w+)(\W.*)", text)
    if not first:
        raise HeaderError("no declaration: " + text)
    base, found = first.group(1), []
    for part in split_parameters(first.group(2)):
        match = re.fullmatch(r"([* ]*)(\w+)(?:\[(\w+)\])?", part)
        if not match:
            raise HeaderError("no declaration: " + text)
        entry = {"name": match.group(2), "type": spelled(base + " " + match.group(1))}
        if match.group(3):
            entry["count"] = match.group(3)
        found.append(entry)
    return found


def spelled(text):
    """A type with single spaces: "const qlora_weight *"."""
    stars = text.count("*")
    return " ".join(text.replace("*", " ").split()) + (" " + "*" * stars if stars else "")


def parameters_of(text):
    return [] if text.strip() == "void" else [one for part in split_parameters(text) for one in declarators(part)]


def constants_of(code):
    found = []
    for name, value, unsigned in re.findall(r"#define +(QLORA_[A-Z0-9_]+) +(-?(?:0x[0-9a-f]+|\d+))(u?)\s", code):
        found.append({"name": name, "value": int(value, 0), "unsigned": bool(unsigned)})
    return found


def lay_out(structs):
    """Gives every field its offsets and every struct its sizes and alignments, one per machine of ABIS."""
    known = {}

    def measure(field):
        kind = field["type"]
        if kind == "callback" or kind.endswith("*"):
            return POINTER, POINTER
        if kind == "size_t":
            return POINTER, POINTER
        if kind in SCALARS:
            size = SCALARS[kind]
            return (size,) * 3, (size, size, min(size, 4))
        if kind not in known:
            raise HeaderError("unknown type %s of field %s" % (kind, field["name"]))
        return known[kind]["size"], known[kind]["alignment"]

    for struct in structs:
        place, alignment = [0, 0, 0], [1, 1, 1]
        for field in struct["fields"]:
            sizes, alignments = measure(field)
            field["offset"] = []
            for abi in range(3):
                place[abi] = -(-place[abi] // alignments[abi]) * alignments[abi]
                field["offset"].append(place[abi])
                place[abi] += sizes[abi] * field.get("count", 1)
                alignment[abi] = max(alignment[abi], alignments[abi])
        struct["size"] = [-(-place[abi] // alignment[abi]) * alignment[abi] for abi in range(3)]
        struct["alignment"] = alignment
        known[struct["name"]] = struct


def describe(header):
    """The whole header as {version, constants, opaque, structs, functions}."""
    code = re.sub(r"/\*.*?\*/", " ", header, flags=re.S)
    constants = constants_of(code)
    values = {constant["name"]: constant["value"] for constant in constants}
    for name in re.findall(r"# *define +(\w+)", code):
        if name not in values and name not in ("QLORA_H", "QLORA_API"):
            raise HeaderError("macro %s is no plain integer" % name)
    code = re.sub(r"^ *#(?:[^\n]*\\\n)*[^\n]*$", "", code, flags=re.M)  # directives are done
    opaque = re.findall(r"typedef struct (\w+) \1;", code)
    structs, functions = [], []
    for name, body, again in re.findall(r"typedef struct (\w+) \{(.*?)\} (\w+);", code, flags=re.S):
        if name != again:
            raise HeaderError("struct %s is called %s" % (name, again))
        fields = [field for declaration in body.split(";") if declaration.strip() for field in declarators(declaration)]
        for field in fields:
            if "count" in field:
                count = field["count"]
                field["count"] = values[count] if count in values else int(count)
        structs.append({"name": name, "fields": fields})
    lay_out(structs)
    for returns, name, parameters in re.findall(r"QLORA_API\s+([\w ]+?[ *]+)(qlora_\w+)\(([^;]*)\);", code, flags=re.S):
        functions.append({"name": name, "returns": spelled(returns), "parameters": parameters_of(" ".join(parameters.split()))})
    if len(functions) != code.count("QLORA_API") or len(structs) + len(opaque) != code.count("typedef"):
        raise HeaderError("a declaration of the header is not understood")
    version = ".".join(str(values["QLORA_VERSION_" + part]) for part in ("MAJOR", "MINOR", "PATCH"))
    return {"version": version, "abis": list(ABIS), "constants": constants, "opaque": opaque, "structs": structs, "functions": functions}
