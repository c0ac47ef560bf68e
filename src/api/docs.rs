//! `/docs`: the contract as a page to read and to try. All of it is part of the binary, and nothing that it shows comes from elsewhere.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use axum::{
    extract::{Path, rejection::PathRejection},
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use utoipa_swagger_ui::{Config, serve};

use super::error::ApiError;

const PAGE: &str = include_str!("docs.html");
/// What the page loads; the rest of Swagger UI is not needed, so it has no address.
const FILES: [&str; 4] = ["swagger-initializer.js", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js", "swagger-ui.css"];
/// A new version of the server brings new files at the same addresses.
const CACHE_CONTROL: &str = "public, max-age=3600";
/// Scripts and requests only from and to this server. Swagger UI draws with `style` attributes and `data:` icons, and shows a picture
/// that an answer brings from a `blob:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How the page shows the document; its addresses are relative to the page's own, so that it works under a proxy's prefix.
static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::from("openapi.yaml").use_base_layout().validator_url("none").try_it_out_enabled(true);
    Arc::new(config.display_request_duration(true).default_models_expand_depth(0))
});

/// `GET /docs`: the page.
pub(super) async fn page() -> Response {
    respond(HeaderValue::from_static("text/html; charset=utf-8"), Cow::Borrowed(PAGE.as_bytes()))
}

/// `GET /docs/{file}`: what the page loads.
pub(super) async fn file(path: Result<Path<String>, PathRejection>) -> Result<Response, ApiError> {
    let name = path.ok().filter(|Path(name)| FILES.contains(&name.as_str())).ok_or(ApiError::NoSuchRoute)?.0;
    let found = serve(&name, Arc::clone(&CONFIG)).map_err(|error| ApiError::Internal(error.to_string()))?;
    let file = found.ok_or_else(|| ApiError::Internal(format!("Swagger UI has no {name}")))?;
    let content_type = HeaderValue::try_from(file.content_type).map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(respond(content_type, file.bytes))
}

fn respond(content_type: HeaderValue, bytes: Cow<'static, [u8]>) -> Response {
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, HeaderValue::from_static(CACHE_CONTROL)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, bytes.into_owned()).into_response()
}
