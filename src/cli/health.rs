//! `easel health`: whether the server of these settings, on this machine, can take jobs. A container's health check runs it.

use std::{net::SocketAddr, time::Duration};

use ureq::Agent;

use super::{CliError, answer::answer};
use crate::config::Config;

/// Shorter than the five seconds that the container's health check waits, so that the reason is still said.
const PATIENCE: Duration = Duration::from_secs(4);
/// Bytes of an answer that are shown.
const SHOWN: u64 = 4096;

/// Asks `/readyz`, not `/healthz`. Who looks at a container's health (`depends_on`, a proxy) wants to know whether it can be sent jobs;
/// Docker restarts a server that has ended, and none that is only unhealthy.
pub(super) fn health(config: &Config) -> Result<(), CliError> {
    let url = format!("http://{}/readyz", address(&config.server.bind)?);
    let mut response = agent().get(&url).call().map_err(|error| CliError::failed(format!("no answer from {url}: {error}")))?;
    let status = response.status();
    let parts = response.body_mut().with_config().limit(SHOWN).read_to_string().map_err(CliError::failed)?;
    if status != 200 {
        return Err(CliError::failed(format!("not ready: {url} answers {status}: {parts}")));
    }
    answer(format_args!("ready: {parts}\n"))
}

/// No proxy: the server is on this machine, whatever the variables of the environment say.
fn agent() -> Agent {
    Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .new_agent()
}

/// Where a server that listens on `bind` can be reached from here: one that listens on all addresses also listens on loopback.
fn address(bind: &str) -> Result<String, CliError> {
    if bind.ends_with(":0") {
        return Err(CliError::Usage(format!(
            "server.bind: {bind} leaves the port to the system; health needs the port in the settings"
        )));
    }
    Ok(match bind.parse::<SocketAddr>() {
        Ok(SocketAddr::V4(all)) if all.ip().is_unspecified() => format!("127.0.0.1:{}", all.port()),
        Ok(SocketAddr::V6(all)) if all.ip().is_unspecified() => format!("[::1]:{}", all.port()),
        _ => bind.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_asked_on_loopback() {
        for (bind, asked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("localhost:8080", "localhost:8080"),
        ] {
            assert_eq!(address(bind).unwrap(), asked);
        }
    }
}
