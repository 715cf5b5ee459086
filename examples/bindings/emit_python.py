"""Declarations for Python's ctypes: python/qlora/declarations.py."""
SCALARS = {"char": "c_char", "int8_t": "c_int8", "uint8_t": "c_uint8", "int16_t": "c_int16", "uint16_t": "c_uint16", "int32_t": "c_int32",
           "uint32_t": "c_uint32", "int64_t": "c_int64", "uint64_t": "c_uint64", "float": "c_float", "double": "c_double", "size_t": "c_size_t"}


def type_of(entry, opaque, returned=False):
    if entry["type"] == "callback":
        return function_type(entry, opaque)
    kind, stars = entry["type"].rstrip("*").strip(), entry["type"].count("*")
    base = kind[6:] if kind.startswith("const ") else kind
    if base == "char" and stars == 1:  # text; where the library writes into it, a plain address
        text = "c_char_p" if kind.startswith("const ") else "c_void_p"
    elif base == "void" or base in opaque:
        text = "None" if stars == 0 else "c_void_p"
        text = "POINTER(c_void_p)" if stars == 2 else text
    else:
        text = SCALARS.get(base, base)
        for _ in range(stars):
            text = "POINTER(%s)" % text
    return "%s * %d" % (text, entry["count"]) if "count" in entry else text


def function_type(entry, opaque):
    kinds = [type_of({"type": entry["returns"]}, opaque)] + [type_of(one, opaque) for one in entry["parameters"]]
    return "CFUNCTYPE(%s)" % ", ".join(kinds)


def emit(description):
    opaque = description["opaque"]
    used = sorted(set(SCALARS.values()) | {"c_char_p", "c_void_p", "CFUNCTYPE", "POINTER", "Structure", "sizeof"})
    lines = ['"""Made from qlora.h by examples/bindings/generate.py; do not edit. qlora.h is the manual."""', "from ctypes import (%s)" % ", ".join(used), ""]
    lines += ["%s = %d" % (one["name"], one["value"]) for one in description["constants"]]
    lines += ["", "", "class Sized(Structure):", '    """A struct that knows its size; what is not named is zero."""', "",
              "    def __init__(self, **fields):", "        super().__init__(struct_size=sizeof(self), **fields)"]
    for struct in description["structs"]:
        sized = struct["fields"][0]["name"] == "struct_size"
        lines += ["", "", "class %s(%s):" % (struct["name"], "Sized" if sized else "Structure")]
        callbacks = [field for field in struct["fields"] if field["type"] == "callback"]
        lines += ["    %s_type = %s" % (field["name"], type_of(field, opaque)) for field in callbacks]
        lines.append("    _fields_ = [")
        lines += ['        ("%s", %s),' % (field["name"], field["name"] + "_type" if field in callbacks else type_of(field, opaque)) for field in struct["fields"]]
        lines.append("    ]")
    lines += ["", "", "FUNCTIONS = {"]
    for one in description["functions"]:
        kinds = "".join(type_of(parameter, opaque) + ", " for parameter in one["parameters"])
        lines.append('    "%s": (%s, (%s)),' % (one["name"], type_of({"type": one["returns"]}, opaque), kinds.rstrip() if kinds else ""))
    lines += ["}", "", "", "def declare(library):", '    """Gives the functions of a loaded library their types."""', "    for name, (result, parameters) in FUNCTIONS.items():",
              "        function = getattr(library, name)", "        function.restype, function.argtypes = result, parameters", "    return library"]
    return "\n".join(lines) + "\n"
