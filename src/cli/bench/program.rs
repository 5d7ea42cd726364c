//! The whole program: a request over HTTP, an SQLite database in a fresh directory, a worker, every message rendered, and every outcome
//! on disk before the next message of its connection. Never a short cut: what `hikyaku serve` runs is what runs here.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::super::client::{Api, ServerArgs};
use super::super::demo::{Home, config, new_key};
use super::super::exit::Failed;
use super::super::view::View;
use super::Smtp;
use super::field::{Field, Slice};
use crate::app::{App, Roles};

/// Between two looks at the counts, which cost the server a little.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Sends one broadcast to `n` recipients.
pub(super) async fn turn(args: &Smtp, n: u64, in_flight: u32) -> Result<Slice, Failed> {
    let field = Field::lay(args.latency).await?;
    let chunking = if in_flight == 0 {
        "off".to_owned()
    } else {
        in_flight.to_string()
    };
    let relay = format!("smtp://{}?connections={}&chunking={chunking}", field.addr(), args.connections);
    let home = Home::make(None)?;
    let key = new_key()?;
    let config = config(home.path(), "127.0.0.1:0", &key, &relay)?;
    let roles = Roles {
        web: true,
        worker: true,
    };
    let app = App::start(&config, roles).await?;
    let api = Api::new(&ServerArgs {
        server: app.web_addr().map(|addr| format!("http://{addr}/")),
        key: Some(key),
    })?;
    let timed = field.time(n, broadcast(&api, args, n)).await;
    app.shut_down().await?;
    home.leave(true);
    let (slice, n_sent) = timed?;
    match n_sent == n as i64 {
        true => Ok(slice),
        false => Err(Failed::here(format!("{n_sent} of {n} messages are recorded as sent"))),
    }
}

/// How many were recorded as sent.
async fn broadcast(api: &Api, args: &Smtp, n: u64) -> Result<i64, Failed> {
    let letter = json!({
        "from": { "email": "news@sender.example", "name": "News" },
        "subject": "Number {{ name }}",
        "text": format!("Dear {{{{ name }}}},\n\n{}\n", text(args)),
    });
    let mut body = format!("{letter}\n");
    for i in 0..n {
        body.push_str(&format!("{{\"email\":\"reader{i}@d{}.example\",\"name\":\"Reader {i}\"}}\n", i % 997));
    }
    let key = format!("bench-{:016x}", fastrand::u64(..));
    let (_, receipt) = api
        .post_broadcast::<serde_json::Value>(body.into(), "application/x-ndjson", &key)
        .await
        .map_err(|e| e.into_failed(api.base()))?;
    let id = receipt["id"].as_str().unwrap_or_default();
    loop {
        let seen: View = api
            .get(&format!("v1/broadcasts/{id}"))
            .await
            .map_err(|e| e.into_failed(api.base()))?;
        if seen.is_final() {
            return Ok(seen.counts.sent);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Words in lines, as long as the other parties' texts.
fn text(args: &Smtp) -> String {
    let mut random = fastrand::Rng::with_seed(args.seed);
    let letter = |i: u32| match i % 72 {
        71 => '\n',
        _ if i % 7 == 6 => ' ',
        _ => random.lowercase(),
    };
    (0..args.size).map(letter).collect()
}
