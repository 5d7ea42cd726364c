//! "Send to all", and campaigns.

use hikyaku::clock::Clock as _;
use hikyaku::domain::relay::RelaySpec;
use hikyaku::domain::safety::AutoPause;
use reqwest::StatusCode;

use super::app::{App, location};
use crate::support::database::fresh_sqlite;

fn form<'a>(template: &'a str, extra: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut form = vec![
        ("template", template),
        ("from_name", "The Post"),
        ("from_email", "news@example.org"),
        ("audience", "all"),
        ("when", "now"),
    ];
    form.extend(extra);
    form
}

fn query(form: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish()
}

#[tokio::test]
async fn pressing_send_twice_makes_one_broadcast() {
    for app in App::both().await {
        app.sign_in().await;
        assert!(app.page("/send").await.contains("There is no template yet"));
        app.contacts(1_234).await;
        let template = app
            .template("October", "Hello {{ name|default('you') }}")
            .await
            .to_string();
        assert!(app.page("/send").await.contains("1,234"));

        let confirm = format!("/send/confirm?{}", query(&form(&template, &[])));
        let with_key = app.get(&confirm).await;
        assert_eq!(with_key.status(), StatusCode::SEE_OTHER);
        let path = location(&with_key).to_owned();
        let page = app.page(&path).await;
        assert!(page.contains("<strong>1,234</strong> people"), "{page}");
        assert!(page.contains("Hello {{ name|default(&#39;you&#39;) }}") && page.contains("/preview\""), "{page}");
        let key = path.split_once("&key=").unwrap().1;
        assert!(page.contains(key), "a reload keeps the key");

        let fields = form(&template, &[("key", key)]);
        let press = || app.post("/send", &fields);
        let (one, other) = tokio::join!(press(), press());
        assert_eq!(location(&one), location(&other));
        assert_eq!(location(&press().await), location(&one));
        assert!(app.page(location(&one)).await.contains("Accepted and durable"));
        assert_eq!(app.store.broadcasts(None, 10).await.unwrap().rows.len(), 1);
        assert!(app.page("/send").await.contains("news@example.org"), "the sender is remembered");
    }
}

#[tokio::test]
async fn what_is_wrong_stands_beside_its_field_and_nothing_is_sent() {
    for app in App::both().await {
        app.sign_in().await;
        let template = app.template("October", "Hello").await.to_string();
        let wrong = [
            (vec![], "Nobody is subscribed"),
            (vec![("from_email", "nobody")], "No @ in"),
            (vec![("audience", "lists")], "Tick at least one list"),
            (vec![("when", "later"), ("send_at", "2020-01-01T00:00")], "This time has passed"),
        ];
        for (extra, sentence) in wrong {
            let names: Vec<&str> = extra.iter().map(|(n, _)| *n).collect();
            let mut fields = form(&template, &[]);
            fields.retain(|(n, _)| !names.contains(n));
            fields.extend(extra);
            let answer = app.get(&format!("/send/confirm?{}", query(&fields))).await;
            assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{sentence}");
            assert!(answer.text().await.unwrap().contains(sentence), "{sentence}");
        }
        let without_key = app.post("/send", &form(&template, &[])).await;
        assert_eq!(without_key.status(), StatusCode::CONFLICT);
        assert!(app.store.broadcasts(None, 10).await.unwrap().rows.is_empty());
    }
}

#[tokio::test]
async fn a_template_that_fits_nobody_is_noticed_before_it_is_sent() {
    for app in App::both().await {
        app.sign_in().await;
        app.contacts(120).await;
        let template = app.template("October", "News from {{ city }}").await.to_string();
        let confirm = format!("/send/confirm?key=k1&{}", query(&form(&template, &[])));
        let page = app.page(&confirm).await;
        assert!(page.contains("Nobody would get this mail") && page.contains("Send now all the same"), "{page}");
        assert!(page.contains("subject, line 1: `city` has no value"), "{page}");
    }
}

#[tokio::test]
async fn everybody_is_looked_at_before_it_is_sent() {
    for app in App::both().await {
        app.sign_in().await;
        // Of three people one has a name.
        app.contacts(3_000).await;
        for (key, subject, sentence) in [
            ("k1", "News for {{ name|default('you') }}", "each of the 3,000 recipients can be made"),
            ("k2", "News for {{ name }}", "Of 3,000 recipients, 2,000 would fail"),
        ] {
            let template = app.template("October", subject).await.to_string();
            let form = format!("key={key}&{}", query(&form(&template, &[])));
            app.page(&format!("/send/confirm?{form}")).await;
            assert!(looked_at(&app, &form).await.contains(sentence), "{subject}");
            // The page that is loaded anew knows what was found.
            assert!(app.page(&format!("/send/confirm?{form}")).await.contains(sentence), "{subject}");
        }
    }
}

/// What the page shows when the look ahead has come to its end.
async fn looked_at(app: &App, form: &str) -> String {
    for _ in 0..600 {
        let seen = app.page(&format!("/send/preflight?{form}")).await;
        if seen.contains("data-done") {
            return seen;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the look ahead does not end")
}

#[tokio::test]
async fn a_campaign_shows_its_next_runs_and_runs_now() {
    for app in App::both().await {
        app.sign_in().await;
        app.contacts(3).await;
        let template = app.template("October", "Hello").await.to_string();
        let weekly = [
            ("schedule", "recurring"),
            ("cron", "0 9 * * MON"),
            ("time_zone", "Europe/Berlin"),
            ("name", "Weekly"),
        ];
        let page = app
            .page(&format!("/campaigns/new?{}", query(&form(&template, &weekly))))
            .await;
        assert!(page.contains("The next runs") && page.matches("<li><time").count() == 3, "{page}");

        let bad = [weekly[0], ("cron", "every day"), weekly[2], weekly[3]];
        let answer = app.post("/campaigns", &form(&template, &bad)).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer.text().await.unwrap().contains("does not have the five fields"));

        let answer = app.post("/campaigns", &form(&template, &weekly)).await;
        let path = location(&answer).split_once('?').unwrap().0.to_owned();
        let page = app.page(&path).await;
        assert!(page.contains("Run now") && page.matches("<li><time").count() == 3);
        assert!(app.page("/campaigns").await.contains("Weekly"));

        let run = format!("{path}/run");
        assert!(!page.contains(&format!("action=\"{run}\"")), "one press alone runs nothing: {page}");
        let asked = location(&app.get(&run).await).to_owned();
        let page = app.page(&asked).await;
        for shown in [
            "<strong>3</strong> people",
            "all contacts",
            "There never was a relay",
            "each of the 3 recipients can be made",
            &format!("action=\"{run}\""),
        ] {
            assert!(page.contains(shown), "{shown}: {page}");
        }
        assert!(app.store.broadcasts(None, 10).await.unwrap().rows.is_empty(), "nothing is sent yet");
        let key = asked.split_once("key=").unwrap().1;
        assert!(page.contains(&format!("value=\"{key}\"")), "a reload keeps the key");
        let (one, other) = (app.post(&run, &[("key", key)]).await, app.post(&run, &[("key", key)]).await);
        assert_eq!(location(&one), location(&other), "one press, one broadcast");
        assert_eq!(app.store.broadcasts(None, 10).await.unwrap().rows.len(), 1);

        app.post(&format!("{path}/pause"), &[]).await;
        assert!(app.page(&path).await.contains("None while it is paused"));
        app.post(&format!("{path}/resume"), &[]).await;
        assert_eq!(app.page(&path).await.matches("<li><time").count(), 3);
        app.post(&format!("{path}/delete"), &[]).await;
        assert_eq!(app.get(&path).await.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_relay_is_chosen_among_those_that_are_there() {
    for app in App::both().await {
        app.sign_in().await;
        app.contacts(3).await;
        let template = app.template("October", "Hello").await.to_string();
        let now = app.clock.now();
        let put = async |name: &str| {
            let spec = RelaySpec::of("smtp://127.0.0.1:2525");
            app.store.put_relay(name, &spec, now).await.unwrap();
        };
        put("primary").await;
        assert!(!app.page("/send").await.contains("name=\"relay\""), "with one there is nothing to choose");
        put("slow").await;
        app.store
            .pause_relay("slow", Some("moving <house>"), now)
            .await
            .unwrap();
        for path in ["/send", "/campaigns/new"] {
            let page = app.page(path).await;
            let list = page
                .split_once("name=\"relay\"")
                .unwrap()
                .1
                .split_once("</select>")
                .unwrap()
                .0;
            assert!(
                list.contains("<option value=\"\">any relay, by weight</option>"),
                "the first, and so the default: {list}"
            );
            assert!(list.contains("primary only<") && list.contains("slow only (paused: it waits)"), "{list}");
            assert!(!list.contains(" selected"), "{list}");
        }

        let confirm = |relay| format!("/send/confirm?key=k-{relay}&{}", query(&form(&template, &[("relay", relay)])));
        let page = app.page(&confirm("slow")).await;
        assert!(page.contains("slow only") && page.contains("It is paused (moving &#60;house&#62;)"), "{page}");
        for (relay, words) in [
            ("gone", "There is no relay gone any more"),
            ("a b", "is no name for a relay"),
        ] {
            let answer = app.get(&confirm(relay)).await;
            assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
            let page = answer.text().await.unwrap();
            assert!(page.contains(words) && page.contains("id=\"relay-problem\""), "{page}");
            let key = format!("k-{relay}");
            let answer = app
                .post("/send", &form(&template, &[("relay", relay), ("key", &key)]))
                .await;
            assert!(answer.status().is_client_error());
        }
        assert!(app.store.broadcasts(None, 10).await.unwrap().rows.is_empty());
        let campaign = [
            ("relay", "gone"),
            ("name", "Weekly"),
            ("schedule", "recurring"),
            ("cron", "0 9 * * MON"),
            ("time_zone", "UTC"),
        ];
        let answer = app.post("/campaigns", &form(&template, &campaign)).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);

        let answer = app
            .post("/send", &form(&template, &[("relay", "primary"), ("key", "k1")]))
            .await;
        let id = location(&answer)
            .split_once("/broadcasts/")
            .unwrap()
            .1
            .split_once('?')
            .unwrap()
            .0
            .to_owned();
        let stored = app.store.broadcast(&id.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(stored.relay.as_deref(), Some("primary"));
    }
}

#[tokio::test]
async fn a_broadcast_has_its_own_word_on_the_automatic_pause() {
    let app = App::start(fresh_sqlite()).await;
    app.sign_in().await;
    app.contacts(3).await;
    let template = app.template("October", "Hello").await.to_string();
    let confirm = |above| format!("/send/confirm?key=k1&{}", query(&form(&template, &[("pause_above", above)])));
    for wrong in ["0", "101", "many"] {
        let answer = app.get(&confirm(wrong)).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
        assert!(answer.text().await.unwrap().contains("id=\"pause_above-problem\""), "{wrong}");
    }
    assert!(app.page(&confirm("3")).await.contains("when more than 3 % fail"));
    assert!(app.page(&confirm("off")).await.contains("never, however many fail"));
    assert!(!app.page(&confirm("")).await.contains("Pauses itself"));
    for (above, rule) in [
        ("3 %", Some(AutoPause::AbovePercent(3))),
        ("off", Some(AutoPause::Off)),
        ("", None),
    ] {
        let key = format!("key of {above:?}");
        let answer = app
            .post("/send", &form(&template, &[("pause_above", above), ("key", &key)]))
            .await;
        let id = location(&answer)
            .split_once("/broadcasts/")
            .unwrap()
            .1
            .split_once('?')
            .unwrap()
            .0
            .to_owned();
        let stored = app.store.broadcast(&id.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(stored.safety.auto_pause, rule, "{above}");
    }
}
