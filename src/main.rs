//! Easel
fn main() {}
