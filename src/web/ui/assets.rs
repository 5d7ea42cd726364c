//! Style sheet, script and logo, compiled in. Their addresses carry a hash of their content, so that a
//! browser keeps them for a year and still has the new ones after an update.

use std::sync::LazyLock;

use aws_lc_rs::digest;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::error::UiError;

struct Asset {
    name: &'static str,
    kind: &'static str,
    body: &'static str,
    tag: String,
}

impl Asset {
    fn new(name: &'static str, kind: &'static str, body: &'static str) -> Self {
        let hash = digest::digest(&digest::SHA256, body.as_bytes());
        let tag = hash.as_ref()[..8].iter().map(|b| format!("{b:02x}")).collect();
        Self { name, kind, body, tag }
    }
}

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        Asset::new("style.css", "text/css; charset=utf-8", include_str!("../static/style.css")),
        Asset::new("live.js", "text/javascript; charset=utf-8", include_str!("../static/live.js")),
        Asset::new("logo.svg", "image/svg+xml", include_str!("../static/logo.svg")),
    ]
});

/// The address of an asset, for templates.
///
/// # Panics
/// When there is no asset of this name: a page could not be tested without meeting it.
#[must_use]
pub fn url(name: &str) -> String {
    let asset = ASSETS
        .iter()
        .find(|a| a.name == name)
        .expect("templates name assets that exist");
    format!("/static/{}?v={}", asset.name, asset.tag)
}

/// `GET /static/{name}`: for anybody, also who is not signed in.
pub async fn serve(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, UiError> {
    let asset = ASSETS.iter().find(|a| a.name == name).ok_or(UiError::NotFound)?;
    let tag = format!("\"{}\"", asset.tag);
    let fresh = [
        (CACHE_CONTROL, "public, max-age=31536000, immutable".to_owned()),
        (ETAG, tag.clone()),
    ];
    if headers
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes())
    {
        return Ok((StatusCode::NOT_MODIFIED, fresh).into_response());
    }
    Ok((fresh, [(CONTENT_TYPE, asset.kind)], asset.body).into_response())
}
