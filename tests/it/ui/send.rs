//! "Send to all", and campaigns.

use reqwest::StatusCode;

use super::app::{App, location};

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
        assert!(page.contains("Run now: 3 people") && page.matches("<li><time").count() == 3);
        assert!(app.page("/campaigns").await.contains("Weekly"));

        let key = page
            .split_once("name=\"key\" value=\"")
            .unwrap()
            .1
            .split_once('"')
            .unwrap()
            .0;
        let run = format!("{path}/run");
        let (one, other) = (app.post(&run, &[("key", key)]).await, app.post(&run, &[("key", key)]).await);
        assert_eq!(location(&one), location(&other), "one press, one broadcast");

        app.post(&format!("{path}/pause"), &[]).await;
        assert!(app.page(&path).await.contains("None while it is paused"));
        app.post(&format!("{path}/resume"), &[]).await;
        assert_eq!(app.page(&path).await.matches("<li><time").count(), 3);
        app.post(&format!("{path}/delete"), &[]).await;
        assert_eq!(app.get(&path).await.status(), StatusCode::NOT_FOUND);
    }
}
