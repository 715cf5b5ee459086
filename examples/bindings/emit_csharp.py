"""Declarations for C#: csharp/Declarations.cs. Structs hold numbers and addresses only, so that they need no marshalling; an
array of structs becomes as many fields, a callback an IntPtr beside the delegate type that goes there."""
SCALARS = {"char": "byte", "void": "void", "int8_t": "sbyte", "uint8_t": "byte", "int16_t": "short", "uint16_t": "ushort", "int32_t": "int", "uint32_t": "uint",
           "int64_t": "long", "uint64_t": "ulong", "float": "float", "double": "double", "size_t": "UIntPtr"}
KEYWORDS = {"in", "ref", "out", "params", "lock", "object", "string", "operator"}


def name_of(name):
    return "@" + name if name in KEYWORDS else name


def type_of(kind, opaque):
    if kind == "callback":
        return "IntPtr"
    stars = kind.count("*")
    base = kind.rstrip("*").strip()
    base = base[6:] if base.startswith("const ") else base
    if base in opaque or (base == "void" and stars):
        return "IntPtr" + "*" * (stars - 1)
    return SCALARS.get(base, base) + "*" * stars


def parameters(entry, opaque):
    return ", ".join("%s %s" % (type_of(one["type"], opaque), name_of(one["name"])) for one in entry["parameters"])


def field_lines(field, opaque):
    kind, name = type_of(field["type"], opaque), name_of(field["name"])
    if "count" not in field:
        return ["        public %s %s;" % (kind, name)]
    if kind in SCALARS.values() and kind != "UIntPtr":
        return ["        public fixed %s %s[%d];" % (kind, name, field["count"])]
    return ["        public %s %s;" % (kind, ", ".join("%s%d" % (name, i) for i in range(field["count"])))]


def emit(description):
    opaque = description["opaque"]
    lines = ["// Made from qlora.h by examples/bindings/generate.py; do not edit. qlora.h is the manual.", "using System;", "using System.Runtime.InteropServices;", "",
             "namespace Qlora.Native", "{"]
    delegates = []
    for struct in description["structs"]:
        sized = struct["fields"][0]["name"] == "struct_size"
        lines += ["    [StructLayout(LayoutKind.Sequential)]", "    public unsafe struct %s" % struct["name"], "    {"]
        for field in struct["fields"]:
            lines += field_lines(field, opaque)
            if field["type"] == "callback":
                delegates.append(("%s_%s" % (struct["name"], field["name"]), field))
        if sized:
            lines += ["        /// All zero, but for struct_size.", "        public static %s Create() { return new %s { struct_size = (uint)sizeof(%s) }; }" % ((struct["name"],) * 3)]
        lines += ["    }", ""]
    for name, field in delegates:
        lines += ["    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]",
                  "    public unsafe delegate %s %s(%s);" % (type_of(field["returns"], opaque), name, parameters(field, opaque)), ""]
    lines += ["    public static unsafe class Api", "    {", '        const string Library = "qlora";', ""]
    for one in description["constants"]:
        kind = "uint" if one["unsigned"] or one["name"].startswith("QLORA_OP_") else "int"
        lines.append("        public const %s %s = %d;" % (kind, one["name"], one["value"]))
    for one in description["functions"]:
        lines += ["", "        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]",
                  "        public static extern %s %s(%s);" % (type_of(one["returns"], opaque), one["name"], parameters(one, opaque))]
    return "\n".join(lines + ["    }", "}"]) + "\n"
