//! Templates that want to eat the machine: each ends soon, with a sentence for its author.

use std::process::Command;
use std::time::{Duration, Instant};

use hikyaku::template::{OUTPUT_BYTES_MAX, Problem};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{content, render, render_html, render_text};

/// A bomb takes a few milliseconds; this is for a debug build on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(1);

fn data() -> Value {
    json!({"s": "x".repeat(1000), "many": (0..1000).collect::<Vec<_>>(), "tree": {"c": [{"c": [{"c": []}]}]}})
}

#[test]
fn bombs_end_soon_and_say_why() {
    let times = |n: usize, make: &dyn Fn(usize) -> String| (0..n).map(make).collect::<String>();
    for (what, source) in [
        ("nested loops", "{% for a in many %}".repeat(6) + "x" + &"{% endfor %}".repeat(6)),
        ("an endless output", "{% for i in many %}{{ s }}{% endfor %}".repeat(2)),
        ("a text that grows", format!("{{{{ {}s }}}}", "s ~ ".repeat(50_000))),
        (
            "a text that grows in one loop",
            format!("{{% for i in many %}}{{% if {}s %}}{{% endif %}}{{% endfor %}}", "s ~ ".repeat(99)),
        ),
        ("deep brackets", format!("{{{{ {}1{} }}}}", "(".repeat(10_000), ")".repeat(10_000))),
        ("a chain that is never closed", format!("{{{{ {}", "s ~ ".repeat(50_000))),
        ("a chain of filters", format!("{{{{ s{} }}}}", "|trim".repeat(40_000))),
        ("a chain of members", format!("{{{{ s{} }}}}", ".a".repeat(80_000))),
        (
            "a chain of conditions",
            "{% if a %}".to_owned() + &"{% elif a %}".repeat(20_000) + "{% endif %}{{ x }}",
        ),
        ("deep blocks", "{% if 1 %}".repeat(5_000) + &"{% endif %}".repeat(5_000)),
        ("many signs", format!("{{{{ {}1 }}}}", "-".repeat(100_000))),
        (
            "escapes that grow",
            "{% for i in many %}{{ s|urlencode|urlencode|urlencode|urlencode }}{% endfor %}".to_owned(),
        ),
        ("repetition", "{{ 'x' * 1000000000 }}".to_owned()),
        ("repetition of a variable", "{{ s * 100000000 }}".to_owned()),
        ("a great power", "{{ 9 ** 999999999 }}".to_owned()),
        ("doublings", "{% set x = s %}".to_owned() + &"{% set x = x ~ x %}".repeat(40)),
        (
            "captured doublings",
            times(30, &|i| format!("{{% set a{} %}}{{{{ a{i} }}}}{{{{ a{i} }}}}{{% endset %}}", i + 1)),
        ),
        ("lists added to themselves", "{% set x = many %}".to_owned() + &"{% set x = x + x %}".repeat(60)),
        (
            "lists of themselves",
            "{% set x = many %}".to_owned() + &"{% set x = [x, x] %}".repeat(60) + "{{ x ~ '' }}",
        ),
        (
            "lists of themselves by loops",
            times(40, &|i| format!("{{% for a{} in [[a{i}, a{i}]] %}}", i + 1)) + &"{% endfor %}".repeat(40),
        ),
        ("a sum of lists", format!("{{{{ ({}many) ~ '' }}}}", "many + ".repeat(50_000))),
        ("a long list", format!("{{{{ [{}] ~ '' }}}}", "many, ".repeat(30_000))),
        (
            "a loop that calls itself",
            "{% for i in [tree] recursive %}{{ loop([tree]) }}{% endfor %}".to_owned(),
        ),
        ("replace", "{{ s|replace('', s)|replace('', s) }}".to_owned()),
        ("indent", "{{ s|indent(100000000) }}".to_owned()),
        ("format", "{{ '%1000000000d'|format(1) }}".to_owned()),
        ("join", "{{ many|join(s) }}".to_owned()),
        ("a range", "{% for i in range(1000000000) %}x{% endfor %}".to_owned()),
        ("a macro that calls itself", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned()),
        ("a template that includes itself", "{% include 'text' %}".to_owned()),
    ] {
        let began = Instant::now();
        let error = render_text(&source, &data()).expect_err(what);
        let took = began.elapsed();
        assert!(took < TIME_MAX, "{what} took {took:?}");
        assert!(!error.to_string().is_empty() && error.to_string().len() < 600, "{what}: {error}");
    }
}

/// The same bombs once more, in a process that gets no more address space than this.
#[test]
fn bombs_need_little_memory() {
    const KIB_MAX: &str = "400000";
    let script = format!("ulimit -v {KIB_MAX}; exec \"$0\" --exact compose::bombs::bombs_end_soon_and_say_why");
    let this = std::env::current_exe().expect("a test knows its own program");
    let output = Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg(this)
        .output()
        .expect("there is a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn too_long_an_output_is_cut_off_at_the_limit() {
    let source = "{% for i in many %}{{ s }}{% endfor %}";
    let error = render_html(source, &data()).unwrap_err();
    assert!(matches!(error.problem, Problem::TooLong(_)), "{error}");
    assert_eq!(error.to_string(), format!("html: the rendered html is longer than {OUTPUT_BYTES_MAX} bytes"));
}

#[test]
fn hostile_html_becomes_text_soon() {
    for html in [
        "<a".repeat(30_000),
        "<a \"".repeat(30_000),
        "</".repeat(30_000),
        "<style>".repeat(20_000),
        "<!--".repeat(30_000),
        "<div>".repeat(20_000),
        "<a href=x>".repeat(20_000),
        "<p ".repeat(30_000) + ">",
    ] {
        let began = Instant::now();
        let source = content("s", Some("{{ x|safe }}"), None);
        let rendered = render(&source, &json!({"x": html}));
        let derived = render(&content("s", Some(&html), None), &json!({}));
        assert!(rendered.is_ok() && derived.is_ok());
        assert!(began.elapsed() < TIME_MAX * 5, "{} took {:?}", &html[..8], began.elapsed());
    }
}

proptest! {
    #[test]
    fn no_template_makes_a_panic(pieces in proptest::collection::vec(piece(), 0..12)) {
        let source = pieces.concat();
        let both = content(&source, Some(&source), None);
        let _ = render(&both, &json!({"a": "<x>", "b": [1, null, {"c": 2}], "d": {"e": "é"}}));
    }
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("{{ a }}".to_owned()),
        Just("{{ b[2].c|default('x') }}".to_owned()),
        Just("{% for i in b %}{{ i }}".to_owned()),
        Just("{% endfor %}".to_owned()),
        Just("{% if d.e %}".to_owned()),
        Just("{% endif %}".to_owned()),
        Just("{{ a ~ d.e }}".to_owned()),
        Just("<table><tr><td>".to_owned()),
        Just("</td></tr></table>".to_owned()),
        Just("<a href=\"{{ a }}\">".to_owned()),
        Just("</a>".to_owned()),
        Just("<!-- ".to_owned()),
        Just("-->".to_owned()),
        "[ -~äß]{0,12}",
        "[{}%#<>\"'|&;=/!-]{0,8}",
    ]
}
