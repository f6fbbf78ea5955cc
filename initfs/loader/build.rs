//! The loader is linked by its own script, at a fixed address and without libc.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/link.ld");
    println!("cargo::rerun-if-changed={script}");
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-T",
        script,
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
