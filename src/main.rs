//! The `hikyaku` binary: see `hikyaku --help`.

fn main() {}
