//! The `coordinator` program: the server and its tools. [`cli`] has the commands.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod cli;

use std::process::ExitCode;

/// Gives back what a crowd took, which the allocator of the C library keeps. See docs/performance.md.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Before all else: these need no settings, and must not fail for a mistake in them.
    if let Some(code) = cli::helper() {
        return code;
    }
    let asked = match cli::read_command_line() {
        Ok(asked) => asked,
        Err(told) => return told,
    };
    match cli::obey(asked) {
        Ok(code) => code,
        Err(failure) => cli::fail(&failure),
    }
}
