//! Requests to a hub. Redirects are followed here and not by the client: the token is for the hub alone, and HTTPS stays HTTPS.

use std::{env, io::Read, time::Duration};

use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, header},
};
use url::{Host, Url};

use super::trouble::Trouble;
use crate::cli::CliError;

/// The hub that is asked unless HF_ENDPOINT names another.
const HUGGING_FACE: &str = "https://huggingface.co";
/// How many redirects one request may take: the hub itself needs two.
const MAX_REDIRECTS: usize = 5;
/// How long a connection may take, and how long one that is open may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// A hub, and who asks it.
pub(super) struct Client {
    agent: Agent,
    endpoint: Url,
    token: Option<String>,
}

/// What the last address answered, and what all on the way said.
pub(super) struct Answer {
    response: Response<Body>,
    passed: Vec<HeaderMap>,
}

impl Client {
    /// # Errors
    /// When HF_ENDPOINT is no address, or the token could not be sent.
    pub(super) fn from_env(token: Option<String>) -> Result<Self, CliError> {
        let endpoint = env::var("HF_ENDPOINT").ok().filter(|text| !text.trim().is_empty());
        let endpoint = web_address(endpoint.as_deref().unwrap_or(HUGGING_FACE).trim())
            .ok_or_else(|| CliError::Usage("HF_ENDPOINT: must be an http or https address".to_owned()))?;
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(CliError::Usage("HF_TOKEN: holds characters that are in no token".to_owned()));
        }
        let config = Agent::config_builder().max_redirects(0).http_status_as_error(false);
        let config = config.user_agent(concat!("easel/", env!("CARGO_PKG_VERSION")));
        let config = config.timeout_connect(Some(PATIENCE)).timeout_recv_response(Some(PATIENCE)).timeout_per_read(Some(PATIENCE));
        Ok(Self { agent: config.build().into(), endpoint, token })
    }

    /// An address of the hub. Each segment is escaped, so that none can add another or a query.
    pub(super) fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Result<Url, CliError> {
        let mut url = self.endpoint.clone();
        url.path_segments_mut().map_err(|()| CliError::failed("HF_ENDPOINT has no path"))?.pop_if_empty().extend(segments);
        Ok(url)
    }

    /// Asks for `bytes` (`0-0`, `1024-`) of what is at a hub's address, or for the whole.
    pub(super) fn get(&self, mut url: Url, bytes: Option<&str>) -> Result<Answer, Trouble> {
        let mut passed = Vec::new();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.ask(&url, bytes)?;
            match response.status().as_u16() {
                200..=299 => return Ok(Answer { response, passed }),
                301 | 302 | 303 | 307 | 308 => {
                    url = redirected(&url, response.headers(), self.is_here()).map_err(Trouble::Lasting)?
                }
                status => return Err(Trouble::Status(status)),
            }
            passed.push(response.into_parts().0.headers);
        }
        Err(Trouble::Lasting(format!("the hub redirects more than {MAX_REDIRECTS} times")))
    }

    fn ask(&self, url: &Url, bytes: Option<&str>) -> Result<Response<Body>, Trouble> {
        // Lengths and checksums are those of the file and not of a compressed one.
        let mut request = self.agent.get(url.as_str()).header(header::ACCEPT_ENCODING, "identity");
        if let Some(bytes) = bytes {
            request = request.header(header::RANGE, format!("bytes={bytes}"));
        }
        // Large files lie with others, whom the token is none of the business of.
        if let Some(token) = self.token.as_ref().filter(|_| url.origin() == self.endpoint.origin()) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.call().map_err(|error| Trouble::Passing(format!("{}: {error}", url.host_str().unwrap_or_default())))
    }

    /// Whether the hub is on this machine, where nobody listens in.
    fn is_here(&self) -> bool {
        match self.endpoint.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        }
    }
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// A header of the last answer.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        text_of(self.response.headers(), name)
    }

    /// A header of the first answer that had it. Where the hub redirects, it alone knows what it is about.
    pub(super) fn first_header(&self, name: &str) -> Option<&str> {
        self.passed.iter().chain([self.response.headers()]).find_map(|headers| text_of(headers, name))
    }

    /// Its body, however long it is: who reads it must know how much is enough.
    pub(super) fn into_reader(self) -> impl Read {
        self.response.into_body().into_reader()
    }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn web_address(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// Where an answer leads that was given at `from`.
fn redirected(from: &Url, headers: &HeaderMap, plain_is_fine: bool) -> Result<Url, String> {
    let to = text_of(headers, "location").and_then(|to| from.join(to).ok()).and_then(|to| web_address(to.as_str()));
    let to = to.ok_or("the hub redirects, and not to an address")?;
    if from.scheme() == "https" && to.scheme() == "http" && !plain_is_fine {
        return Err("the hub redirects from https to http".to_owned());
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lead(from: &str, to: &str, plain_is_fine: bool) -> Result<String, String> {
        let headers = HeaderMap::from_iter([(header::LOCATION, to.parse().unwrap())]);
        redirected(&Url::parse(from).unwrap(), &headers, plain_is_fine).map(String::from)
    }

    #[test]
    fn a_redirect_leads_to_an_address_of_the_web_and_https_stays_https() {
        assert_eq!(lead("https://hub/a/b", "/c?d", false).unwrap(), "https://hub/c?d");
        assert_eq!(lead("https://hub/a", "https://store/x", false).unwrap(), "https://store/x");
        assert_eq!(lead("http://hub/a", "http://store/x", false).unwrap(), "http://store/x");
        assert!(lead("https://hub/a", "http://hub/a", false).unwrap_err().contains("https to http"));
        assert_eq!(lead("https://localhost/a", "http://localhost/a", true).unwrap(), "http://localhost/a");
        for nowhere in ["file:///etc/passwd", "ftp://hub/a", "data:,a", "http://", "https://[::"] {
            assert!(lead("https://hub/a", nowhere, true).unwrap_err().contains("not to an address"), "{nowhere}");
        }
        assert!(redirected(&Url::parse("https://hub").unwrap(), &HeaderMap::new(), true).is_err());
    }
}
