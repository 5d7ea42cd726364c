//! What a newsletter's author can count on.

use hikyaku::template::{FILTERS, Newsletter, Part, Problem, STARTERS, TESTS, TextPart};
use serde_json::json;

use super::{content, object, recipient, render, render_html, render_over, render_text};

#[test]
fn values_are_escaped_in_html_and_nowhere_else() {
    let data = json!({"x": "<b>\"Tom\" & 'Jerry'</b> a/b"});
    let source = "{{ x }}";
    let rendered = render(&content(source, Some(source), Some(source)), &data).unwrap();
    assert_eq!(rendered.html.as_deref(), Some("&lt;b&gt;&quot;Tom&quot; &amp; &#39;Jerry&#39;&lt;/b&gt; a/b"));
    assert_eq!(rendered.text, "<b>\"Tom\" & 'Jerry'</b> a/b");
    assert_eq!(rendered.subject, "<b>\"Tom\" & 'Jerry'</b> a/b");
}

#[test]
fn a_list_or_an_object_is_nothing_to_print() {
    for source in ["{{ a }}", "{{ b }}"] {
        let error = render_html(source, &json!({"a": ["<i>"], "b": {"<k>": 1}})).unwrap_err();
        assert!(error.to_string().contains("loop over it"), "{error}");
    }
}

#[test]
fn an_author_may_say_that_a_value_is_html() {
    assert_eq!(render_html("{{ x|safe }}", &json!({"x": "<b>1</b>"})).unwrap(), "<b>1</b>");
}

#[test]
fn a_url_in_an_attribute_stays_readable() {
    let html =
        render_html("<a href=\"{{ unsubscribe_url }}?a=1&amp;b={{ q|urlencode }}\">", &json!({"q": "x y&z"})).unwrap();
    assert_eq!(html, "<a href=\"https://mail.example.org/u/TOKEN?a=1&amp;b=x%20y%26z\">");
}

#[test]
fn a_recipients_data_win_over_the_broadcasts() {
    let source = content("s", None, Some("{{ a }} {{ b }} {{ c.d }}"));
    let rendered = render_over(&source, json!({"a": 1, "b": 2, "c": {"d": 3}}), &json!({"b": "two"})).unwrap();
    assert_eq!(rendered.text, "1 two 3");
}

#[test]
fn null_is_the_same_as_not_given() {
    let source = content("s", None, Some("{{ a }} {{ b|default('-') }} {{ c.d|default('-') }}"));
    let rendered = render_over(&source, json!({"a": 1, "b": null}), &json!({"a": null, "c": {"d": null}})).unwrap();
    assert_eq!(rendered.text, "1 - -");
    let error = render_text("{{ c.d }}", &json!({"c": {"d": null}})).unwrap_err();
    assert_eq!(
        error.problem,
        Problem::Missing {
            name: "c.d".into(),
            nearest: None
        }
    );
}

#[test]
fn an_empty_value_has_its_default() {
    assert_eq!(render_text("Hello {{ x|default('friend') }}", &json!({"x": " "})).unwrap(), "Hello friend");
    assert_eq!(render_text("Hello {{ x|default('friend', true) }}", &json!({"x": "Bo"})).unwrap(), "Hello Bo");
}

#[test]
fn the_reserved_names_cannot_be_overridden_by_data() {
    let lie =
        json!({"unsubscribe_url": "https://evil.example", "email": "x", "recipient": 1, "broadcast": 2, "name": "Zoe"});
    let source = "{{ unsubscribe_url }} {{ email }} {{ recipient.email }} {{ recipient.name }} {{ name }} {{ recipient.data.name }}";
    assert_eq!(
        render_text(source, &lie).unwrap(),
        "https://mail.example.org/u/TOKEN anna@example.org anna@example.org Anna Anna Zoe"
    );
    assert!(render_text("{{ broadcast.id }}", &lie).unwrap().starts_with("brd_"));
}

#[test]
fn a_missing_variable_is_named_with_its_place_and_the_fix() {
    let source = content("Hi", Some("<p>\n<b>{{ order.total }}</b>"), Some("t"));
    let error = render(&source, &json!({"order": {}})).unwrap_err();
    assert_eq!(error.part, Part::Html);
    assert_eq!(
        error.to_string(),
        "html, line 2: `order.total` has no value for this recipient; give it in the recipient's data or in the \
         broadcast's data, or write {{ order.total|default('…') }}"
    );
    let error = render(&content("Hi {{ first_name|upper }}", None, Some("t")), &json!({})).unwrap_err();
    assert_eq!(
        error.problem,
        Problem::Missing {
            name: "first_name".into(),
            nearest: None
        },
        "{error}"
    );
    assert_eq!((error.part, error.line), (Part::Subject, Some(1)));
}

#[test]
fn a_condition_may_ask_for_what_is_missing() {
    assert_eq!(render_text("{% if vip %}a{% else %}b{% endif %}", &json!({})).unwrap(), "b");
}

#[test]
fn errors_hold_no_values_of_the_data() {
    for source in [
        "{{ x + 1 }}",
        "{{ x|round }}",
        "{% for a in x.y %}{% endfor %}",
        "{{ x|items }}",
        "{{ x|abs }}",
    ] {
        let error = render_text(source, &json!({"x": "geheim@example.org"})).unwrap_err();
        assert!(!error.to_string().contains("geheim"), "{error}");
    }
}

#[test]
fn data_that_are_no_object_are_refused() {
    let error = render_text("x", &json!([1])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "data: the recipient's data are not a JSON object that can be read; give the recipient, or the contact, anew with its data"
    );
}

#[test]
fn data_are_never_template_source() {
    let data = json!({"x": "{{ email }}{% include 'a' %}"});
    assert_eq!(render_text("{{ x }}", &data).unwrap(), "{{ email }}{% include 'a' %}");
}

#[test]
fn a_subject_is_one_line_of_bounded_length() {
    let subject = |s: &str| {
        render(&content("{{ s }}", None, Some("t")), &json!({"s": s}))
            .unwrap()
            .subject
    };
    assert_eq!(subject("  a\r\n\tb\u{2028}c \u{85}  d\0 "), "a b c d");
    let long = subject(&"ä".repeat(10_000));
    assert_eq!(long.chars().count(), 250);
    assert!(long.ends_with('…'));
}

#[test]
fn sources_that_cannot_be_read_are_refused_with_part_and_line() {
    for (html, line) in [
        ("<p>\n{{ open", 2),
        ("{% if a %}", 1),
        ("\n\n{{ a b }}", 3),
        ("{% endif %}", 1),
    ] {
        let error = Newsletter::compile(&content("s", Some(html), None)).expect_err(html);
        assert_eq!((error.part, error.line), (Part::Html, Some(line)), "{error}");
        assert!(matches!(error.problem, Problem::Syntax(_)), "{error}");
    }
}

#[test]
fn a_newsletter_has_html_or_text_and_no_endless_source() {
    let error = Newsletter::compile(&content("s", None, None)).unwrap_err();
    assert!(error.to_string().contains("give at least one"), "{error}");
    let long = "x".repeat(256 * 1024 + 1);
    let error = Newsletter::compile(&content("s", None, Some(&long))).unwrap_err();
    assert_eq!(error.to_string(), "text: the source has 262145 bytes; 262144 is the most");
}

#[test]
fn every_listed_filter_and_test_exists() {
    let data = json!({"x": {"a": 1}});
    let is_unknown = |source: &str| {
        let error = render_text(source, &data).err();
        error.is_some_and(|e| matches!(e.problem, Problem::NotAllowed(_)))
    };
    for filter in FILTERS {
        assert!(!is_unknown(&format!("{{{{ x|{filter} }}}}")), "{filter}");
    }
    for test in TESTS {
        assert!(!is_unknown(&format!("{{% if x is {test} %}}{{% endif %}}")), "{test}");
    }
}

#[test]
fn the_variables_a_newsletter_needs_are_listed() {
    let source = content(
        "{{ title }}",
        Some("{% for i in items %}{{ i.name }}{{ loop.index }}{% endfor %}{{ order.total }}{{ email }}"),
        Some("{{ unsubscribe_url }} {{ recipient.name }}"),
    );
    let newsletter = Newsletter::compile(&source).unwrap();
    assert_eq!(newsletter.variables(), ["items", "order.total", "title"]);
    assert_eq!(
        serde_json::Value::from(newsletter.sample_data()),
        json!({"items": "[items]", "order": {"total": "[order.total]"}, "title": "[title]"})
    );
}

#[test]
fn text_is_made_from_html_once_per_broadcast() {
    let html = "<html><head><title>T</title><style>p { color: red }</style></head><body>\n\
        <!-- {{ hidden }} --><h1>News for {{ name }}</h1><p>Two &amp; <b>three</b>, see\n <a href=\"{{ url }}\">the page</a>.</p>\
        <table>{% for i in items %}<tr><td>{{ i.a }}</td><td>{{ i.b }}</td></tr>{% endfor %}</table>\
        <ul><li>one</li><li {% if x %}class=\"y\"{% endif %}>two<br>lines</li></ul><hr>\
        <img src=\"x.png\" alt=\"A harbour\"><p><a href=\"{{ unsubscribe_url }}\">Unsubscribe</a></p></body></html>";
    let source = content("s", Some(html), None);
    assert_eq!(Newsletter::compile(&source).unwrap().text_part(), TextPart::Derived);
    let data = json!({"hidden": 1, "x": 1, "url": "https://a.example/?b=1&c=2", "items": [{"a": 1, "b": "x<y"}, {"a": 2, "b": "z"}]});
    insta::assert_snapshot!("text_from_html", render(&source, &data).unwrap().text);
}

#[test]
fn text_is_made_per_message_where_the_source_does_not_tell() {
    let data = json!({"x": "<p>one</p><p>two &lt;</p>", "y": true});
    for (html, expected) in [
        ("{{ x|safe }}", "one\n\ntwo <\n"),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}\n"),
        ("a &#123;{ x }} b", "a {{ x }} b\n"),
        ("{% if y %}<a href='1'>{% else %}<a href='2'>{% endif %}z</a>", "z (1)\n"),
        ("a<pre>\n  one\n\n\n    t&#119;o &lt;\t</pre>b", "a\n\n  one\n\n\n    two <\t\n\nb\n"),
        ("<a href='?&copy{{ y }}'>z</a>", "z (?&copyTrue)\n"),
        ("<p>\u{E000}1\u{E001} {{ y }}</p>", "\u{E000}1\u{E001} True\n"),
    ] {
        let source = content("s", Some(html), None);
        assert_eq!(Newsletter::compile(&source).unwrap().text_part(), TextPart::PerMessage, "{html}");
        assert_eq!(render(&source, &data).unwrap().text, expected, "{html}");
    }
}

#[test]
fn the_starter_mails_render_with_their_samples() {
    for starter in STARTERS {
        let newsletter = Newsletter::compile(&starter.content()).unwrap();
        assert_eq!(newsletter.text_part(), TextPart::Written);
        let sample = serde_json::Value::from(starter.sample_data());
        let rendered = render(&starter.content(), &sample).unwrap_or_else(|e| panic!("{}: {e}", starter.name));
        insta::assert_snapshot!(
            format!("starter_{}", starter.name),
            format!("{}\n\n{}", rendered.subject, rendered.text)
        );
        let html = rendered.html.unwrap();
        assert!(html.contains("https://mail.example.org/u/TOKEN"), "{}", starter.name);
        assert!(!html.contains("{{") && !html.contains("{%"), "{html}");
    }
}

#[test]
fn the_starter_mails_would_also_do_without_their_text() {
    for starter in STARTERS {
        let mut source = starter.content();
        source.text = None;
        let newsletter = Newsletter::compile(&source).unwrap();
        assert_eq!(newsletter.text_part(), TextPart::Derived, "{}", starter.name);
        let sample = serde_json::Value::from(starter.sample_data());
        let text = render(&source, &sample).unwrap().text;
        insta::assert_snapshot!(format!("derived_{}", starter.name), text);
    }
}

#[test]
fn a_recipient_without_data_is_fine() {
    let shared = hikyaku::template::Shared::new(&super::broadcast(), &object(json!({"a": 1})).into());
    let mut bob = recipient("bob@example.org", None, &json!({}));
    bob.data = None;
    let context = hikyaku::template::Context::new(&shared, &bob, "https://x.example").unwrap();
    let newsletter = Newsletter::compile(&content("{{ a }} {{ name|default('you') }}", None, Some("t"))).unwrap();
    assert_eq!(newsletter.render(&context).unwrap().subject, "1 you");
}
