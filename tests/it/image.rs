//! The container's image is built from what the Dockerfile copies, and from nothing else.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::files_under;

#[test]
fn what_the_sources_include_is_copied_before_the_image_compiles_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = fs::read_to_string(root.join("Dockerfile")).unwrap();
    let (until_compiled, _) = dockerfile.rsplit_once("cargo build").unwrap();
    let copies = until_compiled.lines().filter_map(|line| line.strip_prefix("COPY "));
    let copied: Vec<PathBuf> = copies.flat_map(str::split_whitespace).map(|path| root.join(path)).collect();
    let included: Vec<PathBuf> = files_under(&root.join("src")).iter().flat_map(|source| included_by(source)).collect();
    assert!(included.contains(&root.join("openapi.yaml")), "{included:?}");
    for file in included {
        assert!(copied.iter().any(|copied| *copied != root && file.starts_with(copied)), "the image lacks {}", file.display());
    }
}

/// The files that a source has in it when it is compiled, but for its tests.
fn included_by(source: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(source).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let literals = text.split("include_str!(\"").skip(1).filter_map(|rest| rest.split('"').next());
    literals.map(|path| source.parent().unwrap().join(path).canonicalize().unwrap()).collect()
}
