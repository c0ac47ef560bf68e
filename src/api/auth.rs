//! Who a client is: keys, what they may do, and how often.
//!
//! Only `/v1` needs a key. What operators' tools ask (health, metrics) and the contract stay open.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tracing::Span;

use super::{body, error::ApiError, rate::Rate};
use crate::domain::{Owner, sha256_hex};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Longer than any key, so that hashing what came costs nothing.
const MAX_KEY_BYTES: usize = 512;

/// Who may come in.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// The keys; without any, whoever comes without one is trusted like an admin.
    pub keys: Vec<KeySettings>,
    /// Whether clients without a key may come in although there are keys.
    pub allow_anonymous: bool,
    /// Requests a second of all clients without a key together; 0 is no limit.
    pub anonymous_requests_per_second: u32,
}

/// One key.
#[derive(Debug, Clone)]
pub struct KeySettings {
    /// Whose jobs it brings and sees.
    pub owner: Owner,
    /// SHA-256 of the key in hexadecimal.
    pub sha256: String,
    /// Whether it may pause the queue.
    pub is_admin: bool,
    /// Requests a second; 0 is no limit.
    pub requests_per_second: u32,
}

/// Who has sent a request of `/v1`.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// Whose jobs it may see.
    pub(super) owner: Owner,
    is_admin: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let client = parts.extensions.get().cloned();
        client.ok_or_else(|| ApiError::Internal("nobody has asked who sent this".to_owned()))
    }
}

/// The right of a route for admins, which no other client gets past.
#[derive(Debug)]
pub(super) struct Admin;

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let client = Client::from_request_parts(parts, state).await?;
        if client.is_admin { Ok(Self) } else { Err(ApiError::Forbidden) }
    }
}

/// Everybody who may come in. Made once: no request makes it grow.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    keys: Vec<(String, Visitor)>,
    anonymous: Option<Visitor>,
    /// Whoever is on this machine is trusted, and nobody else.
    trusts_machine: bool,
}

#[derive(Debug)]
struct Visitor {
    client: Client,
    rate: Rate,
}

impl Visitor {
    fn new(owner: Owner, is_admin: bool, requests_per_second: u32) -> Self {
        Self { client: Client { owner, is_admin }, rate: Rate::new(requests_per_second) }
    }
}

impl Doorkeeper {
    /// One that lets in whom the settings name.
    pub(super) fn new(settings: AuthSettings) -> Self {
        let AuthSettings { keys, allow_anonymous, anonymous_requests_per_second } = settings;
        let anonymous = || Visitor::new(Owner::anonymous(), keys.is_empty(), anonymous_requests_per_second);
        let anonymous = (allow_anonymous || keys.is_empty()).then(anonymous);
        let trusts_machine = keys.is_empty() && !allow_anonymous;
        let visitor =
            |key: KeySettings| (key.sha256.to_ascii_lowercase(), Visitor::new(key.owner, key.is_admin, key.requests_per_second));
        Self { keys: keys.into_iter().map(visitor).collect(), anonymous, trusts_machine }
    }

    fn admit(&self, request: &Request) -> Result<&Client, ApiError> {
        let headers = request.headers();
        let is_keyless = self.keys.is_empty() || !headers.contains_key(header::AUTHORIZATION);
        let visitor = match &self.anonymous {
            Some(anonymous) if is_keyless => anonymous,
            _ => self.keyholder(bearer(headers)?).ok_or(ApiError::Unauthorized("this key is not known here"))?,
        };
        if is_keyless && !request.method().is_safe() && is_cross_site(headers) {
            return Err(ApiError::CrossSite);
        }
        if self.trusts_machine && !names_machine(headers) {
            return Err(ApiError::Misdirected);
        }
        visitor.rate.take().map_err(|wait| ApiError::RateLimited { wait })?;
        Ok(&visitor.client)
    }

    /// The key's holder. Looks at every hash to its end, so that the time that it takes says nothing about any of them.
    fn keyholder(&self, key: &[u8]) -> Option<&Visitor> {
        let hash = sha256_hex(key);
        let mut found = (Choice::from(0), 0);
        for (place, (sha256, _)) in (0_u64..).zip(&self.keys) {
            let same = sha256.as_bytes().ct_eq(hash.as_bytes());
            found.0 |= same;
            found.1.conditional_assign(&place, same);
        }
        let place = bool::from(found.0).then_some(found.1)?;
        self.keys.get(usize::try_from(place).ok()?).map(|(_, visitor)| visitor)
    }
}

/// The one key of a request. Several could be meant for several readers, so they are none.
fn bearer(headers: &HeaderMap) -> Result<&[u8], ApiError> {
    const HOW: ApiError = ApiError::Unauthorized("this address needs a key, sent once as Authorization: Bearer KEY");
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Err(HOW) };
    let Some((scheme, rest)) = line.as_bytes().split_at_checked("Bearer ".len()) else { return Err(HOW) };
    let key = rest.trim_ascii();
    let is_good = scheme.eq_ignore_ascii_case(b"Bearer ") && (1..=MAX_KEY_BYTES).contains(&key.len());
    if is_good { Ok(key) } else { Err(HOW) }
}

/// Whether a browser sends this for a page of another site, or of another origin of this one: another port of this machine, say. A page
/// has no key of ours, so keys keep it out; without them this does.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let is_other =
        |site: &HeaderValue| [&b"cross-site"[..], b"same-site"].iter().any(|other| site.as_bytes().eq_ignore_ascii_case(other));
    headers.get(SEC_FETCH_SITE).is_some_and(is_other)
}

/// Whether a request names this machine as only those who mean it do: by an address or as localhost. A page whose own name leads to this
/// machine (DNS rebinding) is of this site for its browser, but cannot hide that name.
fn names_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    address.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

fn needs_client(path: &str) -> bool {
    path.strip_prefix("/v1").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Finds out who asks, before anything else is looked at and before the body is read; known and unknown addresses of `/v1` alike.
pub(super) async fn identify(State(doorkeeper): State<Arc<Doorkeeper>>, mut request: Request, next: Next) -> Response {
    if !needs_client(request.uri().path()) {
        return next.run(request).await;
    }
    match doorkeeper.admit(&request) {
        Ok(client) => {
            Span::current().record("client", tracing::field::display(&client.owner));
            request.extensions_mut().insert(client.clone());
            next.run(request).await
        }
        Err(error) => {
            let (parts, unread) = request.into_parts();
            body::decline(&parts.headers, unread.into_data_stream());
            error.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_called_by_an_address_or_localhost() {
        let is_here = |host: &'static str| names_machine(&HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]));
        for here in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080", "192.168.1.7"] {
            assert!(is_here(here), "{here}");
        }
        for elsewhere in ["evil.example", "localhost.evil.example:8080", "127.0.0.1.evil.example", "", "a b"] {
            assert!(!is_here(elsewhere), "{elsewhere}");
        }
    }

    fn doorkeeper(names: &[&str]) -> Doorkeeper {
        let key = |name: &&str| KeySettings {
            owner: Owner::named(name),
            sha256: sha256_hex(name.as_bytes()).to_uppercase(),
            is_admin: false,
            requests_per_second: 0,
        };
        let keys = names.iter().map(key).collect();
        Doorkeeper::new(AuthSettings { keys, allow_anonymous: false, anonymous_requests_per_second: 0 })
    }

    #[test]
    fn every_key_finds_its_own_holder_wherever_it_stands() {
        let names = ["first", "second", "third"];
        let doorkeeper = doorkeeper(&names);
        for name in names {
            assert_eq!(doorkeeper.keyholder(name.as_bytes()).unwrap().client.owner, Owner::named(name));
        }
        for wrong in ["", "fourth", "First", "first "] {
            assert!(doorkeeper.keyholder(wrong.as_bytes()).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn the_scheme_may_be_written_in_any_case_and_only_one_key_is_taken() {
        let key = |lines: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(line).unwrap());
            }
            bearer(&headers).ok().map(<[u8]>::to_vec)
        };
        for good in ["Bearer abc", "bearer abc", "BEARER   abc"] {
            assert_eq!(key(&[good.as_bytes()]), Some(b"abc".to_vec()), "{good}");
        }
        for bad in ["", "abc", "Bearer", "Bearer ", "Bearerabc", "Basic abc", "Token abc"] {
            assert_eq!(key(&[bad.as_bytes()]), None, "{bad}");
        }
        assert_eq!(key(&[b"Bearer abc", b"Bearer abc"]), None);
        assert_eq!(key(&[&[b"Bearer ".as_slice(), &[b'a'; MAX_KEY_BYTES + 1]].concat()]), None);
        assert_eq!(key(&[b"Bearer caf\xe9"]), Some(b"caf\xe9".to_vec()));
    }

    #[test]
    fn all_of_v1_needs_a_client_and_nothing_else_does() {
        for path in ["/v1", "/v1/", "/v1/generate", "/v1/nothing", "/v1//jobs"] {
            assert!(needs_client(path), "{path}");
        }
        for path in ["/", "/healthz", "/readyz", "/metrics", "/openapi.yaml", "/docs", "/v10", "/v2/jobs"] {
            assert!(!needs_client(path), "{path}");
        }
    }
}
