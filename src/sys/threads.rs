//! Tells libtorch's threads how long to spin for work.

use std::{env, os::unix::process::CommandExt, process::Command};

/// libgomp's name for how often a thread looks for work before it sleeps.
const SPIN_COUNT: &str = "GOMP_SPINCOUNT";
/// Long enough for the gap between two operations of one step. libgomp's own default spins for milliseconds, which makes a picture on
/// shared cores several times slower.
const SPINS: &str = "1000";

/// Starts this program again with `GOMP_SPINCOUNT` set, unless the user has said how threads should wait. libgomp reads its settings when it is
/// loaded, before `main`, so there is no other way. Does nothing where a program cannot find itself.
pub fn spin_briefly() {
    if env::var_os(SPIN_COUNT).is_some() || env::var_os("OMP_WAIT_POLICY").is_some() {
        return;
    }
    let mut arguments = env::args_os();
    let (name, Ok(program)) = (arguments.next().unwrap_or_default(), env::current_exe()) else { return };
    // Returns only when it fails; the server then runs as it is.
    let _ = Command::new(program).arg0(name).args(arguments).env(SPIN_COUNT, SPINS).exec();
}
