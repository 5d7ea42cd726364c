//! Signals: the first SIGINT or SIGTERM asks for an orderly end, the second ends the process at once. Never decides what orderly
//! means: that is for whoever holds the token.

use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::Failed;
use super::terminal::note;

/// Starts to listen for both signals, for the rest of the process' life. The token is canceled by the first one; `word` is then
/// said to whoever waits, if there is anything to say.
///
/// # Errors
/// When the system has no room for signal handlers.
pub fn listen(word: Option<&'static str>) -> Result<CancellationToken, Failed> {
    let refused = |e| Failed::here(format!("signals cannot be listened to: {e}"));
    let interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    let terminate = signal(SignalKind::terminate()).map_err(refused)?;
    let token = CancellationToken::new();
    tokio::spawn(hear(interrupt, terminate, token.clone(), word));
    Ok(token)
}

async fn hear(mut interrupt: Signal, mut terminate: Signal, token: CancellationToken, word: Option<&'static str>) {
    next(&mut interrupt, &mut terminate).await;
    if let Some(word) = word {
        note(word);
    }
    token.cancel();
    // Whoever asks twice does not want to wait: what is on the wire then is uncertain, and is known to be.
    process::exit(next(&mut interrupt, &mut terminate).await);
}

/// Waits for either signal; 128 and its number, the exit code of a process that it ended.
async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> i32 {
    tokio::select! {
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
    }
}
