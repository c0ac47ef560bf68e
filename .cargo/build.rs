//! Writes the place of libtorch into the binaries (rpath), so that `cargo run` and `cargo test` find it with no variable set.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=.cargo/build.rs");
    if let Ok(libtorch) = std::env::var("LIBTORCH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{libtorch}/lib");
    }
    // A container or an archive carries its libraries beside the binary.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
}
