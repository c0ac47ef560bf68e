//! The `easel` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    easel::sys::spin_briefly();
    easel::cli::run(std::env::args_os())
}
