//! The three formats against each other: what can be said in all of them means the same, and what is wrong
//! is pointed at in the same way.

use serde_json::json;
use tokio::sync::mpsc;

use super::collect::BatchLimit;
use super::head::Head;
use super::problem::AcceptError;
use super::read::{Format, Parsed, Reading, Shape, read};
use super::table::Options;
use crate::domain::recipient::{self, Recipient};

const SHAPE: Shape = Shape {
    array: "recipients",
    has_head_line: true,
    limit: BatchLimit {
        recipients: 100_000,
        bytes: 1 << 30,
    },
};

fn parse(format: Format, body: &str) -> Result<Parsed<String>, AcceptError> {
    parse_with(format, body, Head::new(), false)
}

fn parse_with(format: Format, body: &str, head: Head, hash_only: bool) -> Result<Parsed<String>, AcceptError> {
    let reading = Reading {
        format,
        is_gzip: false,
        table: Options::default(),
        bytes_max: 10 << 20,
        head,
        hash_only,
    };
    let (out, _got) = mpsc::channel(1);
    let show = |batch: Vec<Recipient>| String::from_utf8(recipient::encode(&batch)).unwrap();
    read(body.as_bytes(), reading, SHAPE, show, out)
}

/// Pointer, code and line of each problem.
fn problems<T: std::fmt::Debug>(result: Result<T, AcceptError>) -> Vec<(String, &'static str, Option<u64>)> {
    match result.unwrap_err() {
        AcceptError::Malformed(p) => vec![(p.pointer, p.code, p.line)],
        AcceptError::Invalid { problems, .. } => problems.into_iter().map(|p| (p.pointer, p.code, p.line)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_same_recipients_in_three_formats_are_the_same() {
    let expected = r#"[{"e":"anna@example.org","n":"Anna","d":{"city":"Kyoto"}},{"e":"bob@example.org","n":"Bob, Jr.","d":{"city":""}}]"#;
    let json = parse(
        Format::Json,
        r#"{"subject":"Hi","recipients":[{"email":"anna@example.org","name":"Anna","data":{"city":"Kyoto"}},
            {"data":{"city":""},"email":"bob@example.org","name":"Bob, Jr."}],"text":"x"}"#,
    )
    .unwrap();
    let lines = parse(
        Format::Ndjson,
        "{\"subject\":\"Hi\",\"text\":\"x\"}\r\n\n{\"email\":\"anna@example.org\",\"name\":\"Anna\",\"data\":{\"city\":\"Kyoto\"}}\n{\"data\":{\"city\":\"\"},\"email\":\"bob@example.org\",\"name\":\"Bob, Jr.\"}",
    )
    .unwrap();
    let table = parse(
        Format::Csv,
        "\u{feff}Email,name,city\nanna@example.org,Anna,Kyoto\r\nbob@example.org,\"Bob, Jr.\",\n",
    )
    .unwrap();
    for parsed in [&json, &lines, &table] {
        assert_eq!(parsed.last_batch.as_deref(), Some(expected));
        assert_eq!((parsed.tally.received, parsed.tally.rejected), (2, 0));
    }
    assert_eq!(json.head, lines.head);
    assert_eq!(json.head.get("subject"), Some(&json!("Hi")));
    assert!(json.has_array && table.head.is_empty());
}

#[test]
fn recipients_may_stand_before_the_other_fields() {
    let parsed = parse(Format::Json, r#"{"recipients":["a@example.org"],"subject":"Hi"}"#).unwrap();
    assert_eq!((parsed.tally.received, parsed.head.len()), (1, 1));
    assert!(
        !parse(Format::Json, r#"{"recipients":null,"all":true}"#)
            .unwrap()
            .has_array
    );
}

#[test]
fn a_bad_recipient_has_one_pointer_in_every_format() {
    let of = |parsed: Parsed<String>| {
        let p = parsed.tally.problems();
        assert_eq!((parsed.tally.received, parsed.tally.rejected, p.len()), (2, 1, 1));
        (p[0].pointer.clone(), p[0].code, p[0].line)
    };
    let pointer = "#/recipients/1/email".to_owned();
    let json = parse(Format::Json, r#"{"recipients":["a@example.org","bob"]}"#).unwrap();
    assert_eq!(of(json), (pointer.clone(), "invalid_address", None));
    let lines = parse(Format::Ndjson, "{}\n\"a@example.org\"\n\n\"bob\"\n").unwrap();
    assert_eq!(of(lines), (pointer.clone(), "invalid_address", Some(4)));
    let table = parse(Format::Csv, "email\na@example.org\nbob\n").unwrap();
    assert_eq!(of(table), (pointer, "invalid_address", Some(3)));
}

#[test]
fn a_line_that_is_no_json_is_one_bad_recipient() {
    let parsed = parse(Format::Ndjson, "{}\n{\"email\":\n\"a@example.org\"\n").unwrap();
    assert_eq!((parsed.tally.received, parsed.tally.rejected), (2, 1));
    assert_eq!(parsed.tally.problems()[0].code, "invalid_json");
}

#[test]
fn a_body_that_is_not_of_its_format_is_pointed_at() {
    let at = |pointer: &str, code, line| vec![(pointer.to_owned(), code, line)];
    assert_eq!(problems(parse(Format::Json, "")), at("#", "invalid_json", None));
    assert_eq!(problems(parse(Format::Json, "{\"a\":1")), at("#", "invalid_json", None));
    assert_eq!(problems(parse(Format::Json, "{\"a\":1}x")), at("#", "invalid_json", None));
    assert_eq!(problems(parse(Format::Json, "[]")), at("#", "wrong_type", None));
    assert_eq!(problems(parse(Format::Json, "{\"recipients\":\"all\"}")), at("#/recipients", "wrong_type", None));
    assert_eq!(problems(parse(Format::Json, "{\"recipients\":{}}")), at("#/recipients", "wrong_type", None));
    assert_eq!(problems(parse(Format::Json, "{\"a\":1,\"a\":2}")), at("#/a", "duplicate_field", None));
    assert_eq!(
        problems(parse(Format::Json, "{\"recipients\":[],\"recipients\":[]}")),
        at("#/recipients", "duplicate_field", None)
    );
    assert_eq!(problems(parse(Format::Ndjson, "\n\n")), at("#", "invalid_json", None));
    assert_eq!(problems(parse(Format::Ndjson, "[]\n")), at("#", "invalid_json", Some(1)));
    assert_eq!(problems(parse(Format::Ndjson, "{\"recipients\":[]}\n")), at("#/recipients", "conflict", Some(1)));
    assert_eq!(problems(parse(Format::Csv, "")), at("#", "invalid_csv", None));
    assert_eq!(problems(parse(Format::Csv, "name,phone\n")), at("#/columns", "required", Some(1)));
    assert_eq!(problems(parse(Format::Csv, "email,,x\n")), at("#/columns", "required", Some(1)));
    assert_eq!(problems(parse(Format::Csv, "email,x,X\n")), at("#/columns", "duplicate_field", Some(1)));
}

#[test]
fn values_of_any_length_do_not_fill_the_memory() {
    let long = "x".repeat(5 << 20);
    let one = format!("{{\"recipients\":[{{\"email\":\"{long}\"}}]}}");
    assert_eq!(problems(parse(Format::Json, &one)), [("#".to_owned(), "too_long", None)]);
    let head = format!("{{\"html\":\"{long}\"}}");
    assert_eq!(problems(parse(Format::Json, &head)), [("#".to_owned(), "too_long", None)]);
    let many: Vec<String> = (0..100_000)
        .map(|n| format!("\"field_{n}_{}\":0", "y".repeat(40)))
        .collect();
    let heads = format!("{{{}}}", many.join(","));
    assert_eq!(problems(parse(Format::Json, &heads)), [("#".to_owned(), "too_long", None)]);
    assert_eq!(
        problems(parse(Format::Csv, &format!("email\n\"{long}"))),
        [("#/recipients/0".to_owned(), "too_long", Some(2))]
    );
    let line = format!("{{}}\n\"{long}\"\n");
    assert_eq!(problems(parse(Format::Ndjson, &line)), [("#".to_owned(), "too_long", Some(2))]);
}

#[test]
fn many_small_recipients_are_not_one_long_value() {
    let all: Vec<String> = (0..60_000).map(|n| format!("\"recipient-{n}@example.org\"")).collect();
    let parsed = parse(Format::Json, &format!("{{\"recipients\":[{}]}}", all.join(","))).unwrap();
    assert_eq!(parsed.tally.received, 60_000);
}

/// What a table becomes: the batch, or the pointer, the code and the line of its first problem.
fn table(body: &str) -> Result<String, (String, &'static str, Option<u64>)> {
    let parsed = parse(Format::Csv, body).map_err(|e| problems(Err::<(), _>(e)).swap_remove(0))?;
    match parsed.tally.problems().into_iter().next() {
        Some(p) => Err((p.pointer, p.code, p.line)),
        None => Ok(parsed.last_batch.unwrap_or_default()),
    }
}

#[test]
fn tables_as_spreadsheets_write_them_are_the_same() {
    let expected = r#"[{"e":"anna@example.org","n":"Anna","d":{"city":"Ulm; Bern"}}]"#;
    for body in [
        "email,name,city\nanna@example.org,Anna,Ulm; Bern\n",
        "email;name;city\r\nanna@example.org;Anna;\"Ulm; Bern\"\r\n",
        "email\tname\tcity\nanna@example.org\tAnna\tUlm; Bern\n",
        "sep=;\r\nemail;name;city\r\nanna@example.org;Anna;\"Ulm; Bern\"\r\n",
        "\u{feff}\"sep=\t\"\nemail\tname\tcity\nanna@example.org\tAnna\tUlm; Bern\n",
        "\n\nE-Mail;Name;city;;\r;;;;\ranna@example.org;Anna;\"Ulm; Bern\";;\r;;;;\r\u{1a}",
        "city;\"Adresse e-mail\";NAME\n\"Ulm; Bern\";anna@example.org;Anna",
    ] {
        assert_eq!(table(body).as_deref(), Ok(expected), "{body:?}");
    }
}

#[test]
fn what_is_no_table_is_refused_by_the_line_of_its_quote() {
    let at = |pointer: &str, code, line| Err((pointer.to_owned(), code, Some(line)));
    let rest: String = (0..300).map(|n| format!("r{n}@example.org,R,x\n")).collect();
    let head = "email,name,city\nanna@example.org,Anna,Ulm\nbob@example.org,\"Bob,Ulm\n";
    assert_eq!(table(&format!("{head}{rest}")), at("#/recipients/1", "invalid_csv", 3));
    assert_eq!(table(&format!("{head}{rest}z@example.org,\"Zoe\",x\n")), at("#/recipients/1", "invalid_csv", 3));
    assert_eq!(table("email,name\na@example.org\n"), at("#/recipients/0", "invalid_csv", 2));
    assert_eq!(table("email,name\na@example.org,A,B\n"), at("#/recipients/0", "invalid_csv", 2));
    assert_eq!(table("\"email,name\na@example.org,A\n"), at("#/recipients/0", "invalid_csv", 1));
}

#[test]
fn columns_are_told_by_the_name_that_templates_have_for_them() {
    let told = |header: &str| {
        let parsed = parse(Format::Csv, &format!("{header}\n")).unwrap();
        let told = parsed.columns.into_iter().map(|c| c.variable);
        told.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(told("E-Mail,First Name,LAST-NAME,City"), "email first_name last_name City");
    assert_eq!(told("email,zip code,zip_code"), r#"email recipient.data["zip code"] zip_code"#);
    assert_eq!(
        told("email,Straße,1st,broadcast"),
        r#"email recipient.data["Straße"] recipient.data["1st"] recipient.data["broadcast"]"#
    );
    assert_eq!(told("メールアドレス,氏名,E-Mail 2"), "email name e_mail_2");
    assert_eq!(told("email,E-Mail"), r#"email recipient.data["E-Mail"]"#);
    let two = problems(parse(Format::Csv, "Mail,Courriel\n"));
    assert_eq!(two, [("#/columns".to_owned(), "duplicate_field", Some(1))]);
}

#[test]
fn the_hash_covers_what_is_said_outside_the_body() {
    let head = |subject: &str| Head::from_iter([("subject".to_owned(), json!(subject))]);
    let body = "email\na@example.org\n";
    let hash = |subject, hash_only| parse_with(Format::Csv, body, head(subject), hash_only).unwrap().hash;
    assert_eq!(hash("Hi", false), hash("Hi", true));
    assert_ne!(hash("Hi", false), hash("Ho", false));
}
