//! What the pages say about where mail goes, held against the relays that are stored: never one, one, one that is paused, the last one
//! removed. The process has a capture relay all the while, as `serve` has.

use std::sync::Arc;

use hikyaku::clock::Clock as _;
use hikyaku::domain::relay::RelaySpec;
use hikyaku::sink::{Sink, SinkOptions};

use super::app::App;
use crate::support::database::{fresh_postgres, fresh_sqlite};

const NOTHING_LEAVES: &str = "nothing leaves this machine";

/// The pages that speak of it.
const PAGES: [&str; 2] = ["/mailbox", "/broadcasts"];

async fn each_says(app: &App, state: &str, sentence: &str) {
    for path in PAGES {
        let page = app.page(path).await;
        assert!(page.contains(sentence), "{state}, {path}: {page}");
        assert_eq!(page.contains(NOTHING_LEAVES), sentence.contains(NOTHING_LEAVES), "{state}, {path}: {page}");
    }
}

#[tokio::test]
async fn what_the_pages_say_about_where_mail_goes_is_so() {
    for database in [fresh_sqlite(), fresh_postgres().await] {
        let sink = Sink::start(SinkOptions::default()).await.unwrap();
        let app = App::start_with(database, Some(Arc::new(sink))).await;
        app.sign_in().await;
        each_says(&app, "never a relay", NOTHING_LEAVES).await;
        assert!(app.page("/relays").await.contains(NOTHING_LEAVES));

        let now = app.clock.now();
        let spec = RelaySpec::of("smtp://127.0.0.1:2525");
        app.store.put_relay("primary", &spec, now).await.unwrap();
        each_says(&app, "one relay", "Mail goes out through the relay primary.").await;

        app.store
            .pause_relay("primary", Some("moving house"), now)
            .await
            .unwrap();
        each_says(&app, "paused", "The relay primary is paused, so mail waits").await;
        app.store.put_relay("second", &spec, now).await.unwrap();
        each_says(&app, "one of two paused", "Mail goes out through the relay second.").await;

        for name in ["primary", "second"] {
            app.store.delete_relay(name, now).await.unwrap();
        }
        each_says(&app, "the last one removed", "The last relay was removed, so mail waits").await;
        let page = app.page("/relays").await;
        assert!(page.contains("The last relay was removed") && !page.contains(NOTHING_LEAVES), "{page}");
    }
}
