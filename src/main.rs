//! The `easel` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    easel::sys::spin_briefly();
    easel::sys::keep_freed_memory();
    easel::cli::run(std::env::args_os())
}
