//! The `hikyaku` binary: see `hikyaku --help`. Everything is in the library's `cli`; here is only what a program must choose once.

use std::process::ExitCode;

/// Rendering and composing allocate much and from many threads, which is what this allocator is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hikyaku::cli::run()
}
