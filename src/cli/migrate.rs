//! `easel migrate`: the job store's tables, without the server.

use super::{CliError, answer::answer, runtime};
use crate::{config::Config, store};

pub(super) fn migrate(config: &Config) -> Result<(), CliError> {
    let versions = runtime()?.block_on(store::migrate(&config.store.url)).map_err(CliError::failed)?;
    for version in &versions {
        let state = if version.is_new { "applied now" } else { "applied before" };
        answer(format_args!("{:04} {}: {state}\n", version.version, version.description))?;
    }
    answer("the job store is up to date\n")
}
