//! The bootstrap image is linked by its own script: flat, at the address where the kernel maps it.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/link.ld");
    println!("cargo::rerun-if-changed={script}");
    for argument in ["-T", script] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
