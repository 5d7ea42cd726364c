//! The JSON API. Its whole table of routes stands here: method and path stand with each handler, the scope stands
//! in the table, and the OpenAPI document is made of both. Never answers before what it says is durable.

mod audience;
mod broadcasts;
mod campaigns;
mod contacts;
mod control;
mod dkim;
mod export;
mod health;
mod intake;
mod keys;
mod machines;
mod messages;
mod relays;
mod safety;
mod shapes;
mod suppressions;
mod templates;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRef, OriginalUri};
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router, middleware, routing};
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

pub(super) use self::export::file as messages_file;

use super::auth::{Keys, Scope, require};
use super::error::{Kind, Problem};
use super::{WebState, if_not_set};
use crate::clock::Clock;
use crate::pipeline::accept::Acceptor;
use crate::store::Store;

/// The name of the security scheme in the OpenAPI document.
const SCHEME: &str = "api_key";

fn table(keys: Option<&Keys>) -> OpenApiRouter<ApiState> {
    let open = OpenApiRouter::with_openapi(About::openapi())
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::problem));
    let send = [
        routes!(intake::create),
        routes!(control::pause),
        routes!(control::resume),
        routes!(control::cancel),
        routes!(control::retry),
        routes!(campaigns::create),
        routes!(campaigns::pause),
        routes!(campaigns::resume),
        routes!(campaigns::run),
    ];
    let read = [
        routes!(broadcasts::list),
        routes!(broadcasts::show),
        routes!(messages::of_broadcast),
        routes!(export::messages_csv),
        routes!(messages::show),
        routes!(messages::by_address),
        routes!(templates::list),
        routes!(templates::show),
        routes!(templates::preview),
        routes!(audience::list),
        routes!(audience::show),
        routes!(contacts::list),
        routes!(contacts::show),
        routes!(suppressions::list),
        routes!(suppressions::show),
        routes!(campaigns::list),
        routes!(campaigns::show),
        routes!(machines::workers),
        routes!(machines::jobs),
    ];
    let manage = [
        routes!(templates::create),
        routes!(templates::replace),
        routes!(templates::remove),
        routes!(audience::create),
        routes!(audience::remove),
        routes!(contacts::import),
        routes!(contacts::remove),
        routes!(suppressions::add),
        routes!(suppressions::remove),
        routes!(campaigns::remove),
        routes!(machines::release),
    ];
    let admin = [
        routes!(keys::create),
        routes!(keys::list),
        routes!(keys::revoke),
        routes!(dkim::list),
        routes!(dkim::show),
        routes!(dkim::create),
        routes!(dkim::check),
        routes!(dkim::enable),
        routes!(dkim::disable),
        routes!(dkim::remove),
        routes!(relays::list),
        routes!(relays::show),
        routes!(relays::create),
        routes!(relays::put),
        routes!(relays::remove),
        routes!(relays::pause),
        routes!(relays::resume),
        routes!(relays::forget),
        routes!(relays::test::test),
    ];
    open.merge(guarded(keys, Scope::Send, send))
        .merge(guarded(keys, Scope::Read, read))
        .merge(guarded(keys, Scope::Manage, manage))
        .merge(guarded(keys, Scope::Admin, admin))
}

/// Routes behind a scope; the scope is told in the OpenAPI document too. Without `keys` only the document is made.
fn guarded<const N: usize>(
    keys: Option<&Keys>,
    scope: Scope,
    routes: [UtoipaMethodRouter<ApiState>; N],
) -> OpenApiRouter<ApiState> {
    let mut router = routes.into_iter().fold(OpenApiRouter::new(), OpenApiRouter::routes);
    for item in router.get_openapi_mut().paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            operation.security = Some(vec![SecurityRequirement::new(SCHEME, [scope.as_str()])]);
        }
    }
    match keys {
        Some(keys) => router.route_layer(middleware::from_fn_with_state((keys.clone(), scope), require)),
        None => router,
    }
}

/// What the handlers of the API share.
#[derive(Clone)]
struct ApiState {
    web: WebState,
    acceptor: Arc<Acceptor>,
    keys: Keys,
}

impl FromRef<ApiState> for WebState {
    fn from_ref(state: &ApiState) -> Self {
        state.web.clone()
    }
}

impl ApiState {
    fn store(&self) -> &dyn Store {
        &*self.web.store
    }

    fn now(&self) -> crate::domain::time::Timestamp {
        self.web.clock.now()
    }
}

/// The API's router, ready to be merged.
pub fn router(web: &WebState) -> Router {
    let (store, clock): (Arc<dyn Store>, Arc<dyn Clock>) = (Arc::clone(&web.store), Arc::clone(&web.clock));
    let keys = Keys::new(Arc::clone(&store), Arc::clone(&clock), web.bootstrap_key_hash.clone());
    let state = ApiState {
        web: web.clone(),
        acceptor: Arc::new(Acceptor::new(store, clock, web.limits.stream_bytes_max)),
        keys: keys.clone(),
    };
    let (router, document) = table(Some(&keys)).split_for_parts();
    let document = Arc::new(document);
    router
        .route("/openapi.json", routing::get(async move || Json(Arc::clone(&document))))
        .route("/v1/{*rest}", routing::any(nothing_here))
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(web.limits.json_bytes_max))
        .layer(Extension(web.limits))
        // Answers hold people's addresses, and one holds a key.
        .layer(if_not_set(header::CACHE_CONTROL, "no-store"))
        .with_state(state)
}

/// The OpenAPI document, as JSON text.
#[must_use]
pub fn openapi() -> String {
    table(None)
        .into_openapi()
        .to_pretty_json()
        .expect("the document is made of strings and maps")
}

async fn nothing_here(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::not_found(format!("there is nothing at {}; GET /openapi.json lists every address", uri.path()))
}

async fn wrong_method(method: Method) -> Response {
    Problem::new(&Kind::METHOD_NOT_ALLOWED, format!("{method} is not for this address")).into_response()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hikyaku",
        description = "Mail to very many people. `POST /v1/broadcasts` makes a send request durable and answers at once; \
                       everything else tells the truth about it. Lists are `{data, has_more, next}` with `limit` and \
                       `after`; errors are problem documents (RFC 9457)."
    ),
    modifiers(&Security),
)]
struct About;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document
            .components
            .get_or_insert_default()
            .add_security_scheme(SCHEME, scheme);
    }
}
