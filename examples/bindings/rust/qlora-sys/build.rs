//! Where libqlora is: in the folder QLORA_LIB_DIR, or where pkg-config says.
use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=QLORA_LIB_DIR");
    if let Ok(folder) = env::var("QLORA_LIB_DIR") {
        println!("cargo:rustc-link-search=native={folder}");
        println!("cargo:rustc-link-lib=dylib=qlora");
        return;
    }
    let answer = Command::new("pkg-config").args(["--libs", "qlora"]).output();
    let flags = match answer {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        _ => panic!("libqlora was not found; install it so that pkg-config knows it, or set QLORA_LIB_DIR to its folder"),
    };
    for flag in flags.split_whitespace() {
        if let Some(folder) = flag.strip_prefix("-L") {
            println!("cargo:rustc-link-search=native={folder}");
        } else if let Some(name) = flag.strip_prefix("-l") {
            println!("cargo:rustc-link-lib={name}");
        }
    }
}
