//! Watching a broadcast over the API until it ends, with a progress bar. Patient with a server that is away for a while; never
//! changes anything.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{Api, ApiError};
use super::terminal::{Progress, is_lively, note, number, span};
use super::view::{Speed, View, pace_in_words};

/// Between two looks: a bar shall move, and one small indexed read costs the server nothing.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two looks when no bar is drawn: only the lines and the end matter.
const LOOK_EVERY_PLAIN: Duration = Duration::from_millis(500);
/// How long a server may be away before watching it is given up: a restart takes seconds.
const AWAY_MAX: Duration = Duration::from_secs(120);

/// How watching came to an end.
pub enum Watched {
    /// The broadcast has ended; this is its last state.
    Ended(Box<View>),
    /// We were asked to stop; the broadcast goes on.
    Stopped,
}

/// Follows a broadcast until it ends, or until `stop`.
///
/// # Errors
/// When the server has been away for [`AWAY_MAX`], or refuses to tell.
pub async fn watch(api: &Api, id: &str, expected: i64, stop: &CancellationToken) -> Result<Watched, ApiError> {
    let mut progress = Progress::start("Sending", expected.max(0) as u64);
    let mut speed = Speed::default();
    let mut away_since: Option<Instant> = None;
    let every = if is_lively() { LOOK_EVERY } else { LOOK_EVERY_PLAIN };
    loop {
        match api.get::<View>(&format!("v1/broadcasts/{id}")).await {
            Ok(view) => {
                away_since = None;
                show(&mut progress, &mut speed, &view, expected);
                if view.is_final() {
                    progress.finish(view.counts.settled() as u64, &view.status_in_words());
                    return Ok(Watched::Ended(Box::new(view)));
                }
            }
            Err(e @ (ApiError::Unreachable(_) | ApiError::Broken(_) | ApiError::Unavailable(_))) => {
                let since = *away_since.get_or_insert_with(|| {
                    note(format_args!(
                        "the server does not answer; waiting for up to {}",
                        span(AWAY_MAX.as_secs_f64())
                    ));
                    Instant::now()
                });
                if since.elapsed() > AWAY_MAX {
                    return Err(e);
                }
            }
            Err(e) => return Err(e),
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.cancelled() => return Ok(Watched::Stopped),
        }
    }
}

fn show(progress: &mut Progress, speed: &mut Speed, view: &View, expected: i64) {
    let settled = view.counts.settled();
    // While the fan-out runs, the server does not know how many there will be; afterwards it knows who stood there twice.
    let is_counted = !matches!(view.status.as_str(), "scheduled" | "accepted" | "fanning_out");
    let total = if is_counted {
        view.expected()
    } else {
        expected.max(view.expected())
    };
    let rate = speed.note(settled);
    let word = match view.status.as_str() {
        "sending" if view.counts.deferred > 0 && view.counts.queued == 0 => {
            format!("{} deferred, to be tried again", number(view.counts.deferred))
        }
        "sending" => pace_in_words(rate, total - settled),
        _ if settled > 0 => pace_in_words(rate, total - settled),
        _ => view.status_in_words(),
    };
    progress.show(settled.max(0) as u64, total.max(0) as u64, &word);
}
