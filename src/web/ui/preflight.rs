//! A look ahead before the button is pressed: the mail of every recipient is rendered, and thrown away. Where there are many it
//! goes on beside the page, which follows it. Never a promise: contacts change, and who unsubscribes gets nothing.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use askama::Template;
use askama_web::WebTemplate;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use tokio::sync::Notify;

use super::error::UiError;
use super::form::Fields;
use super::{format, send};
use crate::domain::campaign::Draft;
use crate::domain::content::{Content, SharedData};
use crate::domain::id::{BroadcastId, TemplateId};
use crate::domain::time::Timestamp;
use crate::pipeline::accept::{Feed, Rendering, Trial, render_all};
use crate::web::WebState;
use crate::web::session::SignedIn;

/// How long one look ahead may take: about ten million recipients on one core.
const TIME_MAX: Duration = Duration::from_secs(600);
/// How long the page waits for it before it is shown without its end: nobody minds that much.
const PATIENCE: Duration = Duration::from_millis(800);
/// Looks ahead that are kept, running or done. Each that runs keeps a thread busy, so more than a few people's are too many.
const KEPT_MAX: usize = 8;

/// What a look ahead has found, and whether it goes on.
#[derive(Debug, Clone, Default)]
pub struct Preflight {
    pub found: Rendering,
    pub is_running: bool,
    /// There was no room for it: others are being looked ahead.
    pub is_busy: bool,
    pub template_id: Option<TemplateId>,
}

impl Preflight {
    /// Whether nothing wrong was found.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.found.failed == 0
    }
}

/// The looks ahead of this process.
#[derive(Default)]
pub struct Preflights(Mutex<HashMap<String, Arc<Running>>>);

#[derive(Default)]
struct Running {
    found: Mutex<Rendering>,
    is_over: Mutex<bool>,
    over: Notify,
}

impl Preflights {
    /// The look ahead that belongs to this key: begun when there is none, else as far as it is.
    pub async fn look(&self, state: &WebState, key: &str, draft: &Draft, content: Content) -> Preflight {
        // What is shown must be of this very draft and this very wording.
        let mut hasher = DefaultHasher::new();
        serde_json::to_string(&(draft, &content))
            .unwrap_or_default()
            .hash(&mut hasher);
        let name = format!("{key} {}", hasher.finish());
        let template_id = Some(draft.template_id.clone());
        let Some(running) = self.find_or_begin(name, state, draft, content) else {
            return Preflight {
                is_busy: true,
                template_id,
                ..Preflight::default()
            };
        };
        let over = running.over.notified();
        if !running.is_over() {
            // When it does not end in time, the page follows it.
            let _ = tokio::time::timeout(PATIENCE, over).await;
        }
        Preflight {
            found: running.found.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            is_running: !running.is_over(),
            is_busy: false,
            template_id,
        }
    }

    fn find_or_begin(&self, name: String, state: &WebState, draft: &Draft, content: Content) -> Option<Arc<Running>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = kept.get(&name) {
            return Some(Arc::clone(running));
        }
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, running| !running.is_over());
        }
        if kept.len() >= KEPT_MAX {
            return None;
        }
        let running = Arc::new(Running::default());
        kept.insert(name, Arc::clone(&running));
        let (store, this) = (Arc::clone(&state.store), Arc::clone(&running));
        let trial = Trial {
            broadcast: BroadcastId::new(Timestamp(0), 0),
            content,
            data: SharedData::default(),
            feeds: Feed::of(&draft.audience),
        };
        tokio::spawn(async move {
            if let Err(error) = render_all(&*store, trial, TIME_MAX, &this.found).await {
                tracing::warn!(%error, "A look ahead ended early");
            }
            this.end();
        });
        Some(running)
    }
}

impl Running {
    fn is_over(&self) -> bool {
        *self.is_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        *self.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.over.notify_waiters();
    }
}

#[derive(Template, WebTemplate)]
#[template(path = "preflight.html")]
struct Fragment {
    preflight: Preflight,
}

/// What the page refreshes by itself.
pub async fn fragment(
    _: SignedIn,
    State(state): State<WebState>,
    Extension(preflights): Extension<Arc<Preflights>>,
    Query(typed): Query<Fields>,
) -> Result<Response, UiError> {
    let (draft, content) = send::chosen(&state, &typed).await?;
    answer(&state, &preflights, typed.text("key"), &draft, content).await
}

/// The look ahead of a draft, by itself.
pub async fn answer(
    state: &WebState,
    preflights: &Preflights,
    key: &str,
    draft: &Draft,
    content: Content,
) -> Result<Response, UiError> {
    let preflight = preflights.look(state, key, draft, content).await;
    Ok(Fragment { preflight }.into_response())
}
