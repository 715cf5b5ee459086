"""Declarations for Rust: qlora-sys/src/declarations.rs."""
SCALARS = {"char": "c_char", "void": "c_void", "int8_t": "i8", "uint8_t": "u8", "int16_t": "i16", "uint16_t": "u16", "int32_t": "i32",
           "uint32_t": "u32", "int64_t": "i64", "uint64_t": "u64", "float": "f32", "double": "f64", "size_t": "usize"}
KEYWORDS = {"type", "in", "ref", "move", "use", "where"}


def name_of(name):
    return "r#" + name if name in KEYWORDS else name


def type_of(entry):
    if entry["type"] == "callback":
        return "Option<%s>" % function_type(entry)
    kind, stars = entry["type"].rstrip("*").strip(), entry["type"].count("*")
    constant = kind.startswith("const ")
    base = kind[6:] if constant else kind
    text = SCALARS.get(base, base)
    for level in range(stars):
        text = ("*const " if constant and level == 0 else "*mut ") + text
    return "[%s; %d]" % (text, entry["count"]) if "count" in entry else text


def returns(kind):
    return "" if kind == "void" else " -> " + type_of({"type": kind})


def parameters(entry):
    return ", ".join("%s: %s" % (name_of(one["name"]), type_of(one)) for one in entry["parameters"])


def function_type(entry):
    return 'unsafe extern "C" fn(%s)%s' % (parameters(entry), returns(entry["returns"]))


def emit(description):
    lines = ["// Made from qlora.h by examples/bindings/generate.py; do not edit. qlora.h is the manual.", "use std::os::raw::{c_char, c_void};", ""]
    for one in description["constants"]:
        kind = "u32" if one["unsigned"] or one["name"].startswith("QLORA_OP_") else "usize" if one["name"].endswith("_COUNT") else "i32"
        lines.append("pub const %s: %s = %d;" % (one["name"], kind, one["value"]))
    for name in description["opaque"]:
        lines += ["", "#[repr(C)]", "pub struct %s {" % name, "    _private: [u8; 0],", "}"]
    for struct in description["structs"]:
        sized = struct["fields"][0]["name"] == "struct_size"
        lines += ["", "#[repr(C)]", "#[derive(Clone, Copy)]", "pub struct %s {" % struct["name"]]
        lines += ["    pub %s: %s," % (name_of(field["name"]), type_of(field)) for field in struct["fields"]]
        lines += ["}", "", "/// All zero%s." % (", but for struct_size" if sized else ""), "impl Default for %s {" % struct["name"], "    fn default() -> Self {",
                  "        // Numbers, pointers and optional functions: zero is a value of each."]
        if sized:
            lines += ["        let mut made: Self = unsafe { std::mem::zeroed() };", "        made.struct_size = std::mem::size_of::<Self>() as u32;", "        made"]
        else:
            lines.append("        unsafe { std::mem::zeroed() }")
        lines += ["    }", "}"]
    lines += ["", 'extern "C" {']
    lines += ["    pub fn %s(%s)%s;" % (one["name"], parameters(one), returns(one["returns"])) for one in description["functions"]]
    lines += ["}", "", "#[cfg(test)]", "mod tests {", "    use super::*;", "", "    #[test]", "    fn layouts_are_those_of_c() {",
              '        let machine = if cfg!(target_pointer_width = "64") { 0 } else if cfg!(target_arch = "x86") && !cfg!(windows) { 2 } else { 1 };']
    for struct in description["structs"]:
        lines.append("        assert_eq!(std::mem::size_of::<%s>(), %s[machine]);" % (struct["name"], struct["size"]))
        lines.append("        let made = %s::default();" % struct["name"])
        lines.append("        let base = &made as *const _ as usize;")
        lines += ["        assert_eq!(&made.%s as *const _ as usize - base, %s[machine]);" % (name_of(field["name"]), field["offset"]) for field in struct["fields"]]
    lines += ["    }", "}"]
    return "\n".join(lines) + "\n"
