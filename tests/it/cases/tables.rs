//! Tables as spreadsheets, shops and scripts write them.

use serde_json::json;

use super::{ALL, BYTES, Case, Door, Expected};

const CSV: &str = "text/csv";
const RFC_4180: &str =
    "RFC 4180 2: a field with quotes, delimiters or line breaks stands in quotes, and a quote in it is doubled";
const EXCEL: &str = "what Excel writes where the comma is the decimal sign";

fn taken(
    name: &'static str,
    input: impl Into<Vec<u8>>,
    people: &[(&'static str, Option<&'static str>, serde_json::Value)],
    why: &'static str,
) -> Case {
    Case {
        name,
        content_type: CSV,
        input: input.into(),
        doors: ALL,
        expected: Expected::Taken(people.to_vec()),
        why,
    }
}

fn refused(name: &'static str, input: impl Into<Vec<u8>>, line: u64, says: &'static str, why: &'static str) -> Case {
    Case {
        name,
        content_type: CSV,
        input: input.into(),
        doors: ALL,
        expected: Expected::Refused(Some(line), says),
        why,
    }
}

fn bytes(content_type: &'static str, case: Case) -> Case {
    Case {
        content_type,
        doors: BYTES,
        ..case
    }
}

fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes).collect()
}

pub fn cases() -> Vec<Case> {
    [quotes(), lines(), spreadsheets(), charsets(), columns()]
        .into_iter()
        .flatten()
        .collect()
}

fn quotes() -> Vec<Case> {
    let rest: String = (0..300).map(|n| format!("r{n}@example.org,R,x\n")).collect();
    let swallowing = format!("email,name,city\na@example.org,A,Ulm\nb@example.org,\"B,Ulm\n{rest}");
    vec![
        taken(
            "a plain table",
            "email,name\na@example.org,Anna\n",
            &[("a@example.org", Some("Anna"), json!({}))],
            RFC_4180,
        ),
        taken(
            "a comma in quotes",
            "email,name\na@example.org,\"Roe, Jane\"\n",
            &[("a@example.org", Some("Roe, Jane"), json!({}))],
            RFC_4180,
        ),
        taken(
            "a doubled quote",
            "email,x\na@example.org,\"5\"\" pipe\"\n",
            &[("a@example.org", None, json!({"x": "5\" pipe"}))],
            RFC_4180,
        ),
        taken(
            "a quote in the middle of a cell",
            "email,x\na@example.org,5\" pipe\n",
            &[("a@example.org", None, json!({"x": "5\" pipe"}))],
            "not allowed by RFC 4180, harmless, and written by scripts that join cells",
        ),
        taken(
            "spaces around quotes",
            "email, name\na@example.org, \"Roe, Jane\" \n",
            &[("a@example.org", Some("Roe, Jane"), json!({}))],
            "RFC 4180 2.4 and 2.5 know no such cell; people type it and mean the quotes",
        ),
        taken(
            "empty quotes",
            "email,x\na@example.org,\"\"\n",
            &[("a@example.org", None, json!({"x": ""}))],
            RFC_4180,
        ),
        taken(
            "a line break in quotes",
            "email,x\na@example.org,\"1 Road\nUlm\"\n",
            &[("a@example.org", None, json!({"x": "1 Road\nUlm"}))],
            RFC_4180,
        ),
        refused(
            "a quote that is never closed",
            swallowing.clone(),
            3,
            "the quote that opens in line 3 is never closed",
            "the rest of the table would be one cell: 300 people's rows in one person's mail",
        ),
        refused(
            "the same with a later quote",
            format!("{swallowing}z@example.org,\"Z\",x\n"),
            3,
            "text behind the closing quote of the cell that opens in line 3",
            "the later quote closes the first, and 300 rows would be one cell",
        ),
        refused("a quote that opens at the end", "email,name\na@example.org,\"", 2, "never closed", RFC_4180),
        refused("an unclosed header", "\"email,name\na@example.org,A\n", 1, "never closed", RFC_4180),
        refused(
            "text behind a quote",
            "email,name\na@example.org,\"Anna\" B\n",
            2,
            "text behind the closing quote",
            RFC_4180,
        ),
        refused(
            "an escape by backslash",
            "email,x\na@example.org,\"say \\\"hi\\\" now\"\n",
            2,
            "behind the closing quote",
            "RFC 4180 2.7 knows the doubled quote only; MySQL writes backslashes, and guessing would mix up rows",
        ),
    ]
}

fn lines() -> Vec<Case> {
    let two = |a: &'static str| [("a@example.org", Some("A"), json!({})), (a, Some("B"), json!({}))];
    vec![
        taken(
            "CRLF",
            "email,name\r\na@example.org,A\r\nb@example.org,B\r\n",
            &two("b@example.org"),
            "RFC 4180 2.1",
        ),
        taken(
            "CR alone",
            "email,name\ra@example.org,A\rb@example.org,B\r",
            &two("b@example.org"),
            "what old Mac programs and Excel for Mac write",
        ),
        taken(
            "no break at the end",
            "email,name\na@example.org,A\nb@example.org,B",
            &two("b@example.org"),
            "RFC 4180 2.2",
        ),
        taken(
            "blank lines",
            "\n\nemail,name\n\na@example.org,A\n\n\nb@example.org,B\n\n",
            &two("b@example.org"),
            "people leave them",
        ),
        taken(
            "a final Ctrl-Z",
            "email,name\r\na@example.org,A\r\nb@example.org,B\r\n\u{1a}",
            &two("b@example.org"),
            "the end of a text file of CP/M and DOS, still written by exports",
        ),
        refused("a bad address behind LF", "email\n\n\nbob\n", 4, "no @ in 'bob'", "the line is that of an editor"),
        refused(
            "a bad address behind CRLF",
            "email\r\n\r\nbob\r\n",
            3,
            "no @ in 'bob'",
            "the line is that of an editor",
        ),
        refused("a bad address behind CR", "email\r\rbob\r", 3, "no @ in 'bob'", "the line is that of an editor"),
        refused(
            "a row too long behind a quoted line break",
            "email,\"x\r\ny\"\r\na@example.org,1,2\r\n",
            3,
            "the row has 3 cells, the header 2",
            "quoted line breaks count too",
        ),
        refused(
            "a row too short",
            "email,name\na@example.org\n",
            2,
            "the row has 1 cells, the header 2",
            "a lost delimiter would move every cell",
        ),
        Case {
            doors: &[Door::Page],
            ..taken(
                "addresses alone",
                "a@example.org\nb@example.org\n",
                &[("a@example.org", None, json!({})), ("b@example.org", None, json!({}))],
                "people paste what they have; only the page takes it, where they see what becomes of it",
            )
        },
        Case {
            doors: &[Door::Page],
            ..taken("addresses and names alone", "a@example.org;A\nb@example.org;B", &two("b@example.org"), "as above")
        },
    ]
}

fn spreadsheets() -> Vec<Case> {
    let anna = [("a@example.org", Some("Anna"), json!({"city": "Ulm, Bern; Kiel"}))];
    vec![
        taken("semicolons", "email;name;city\r\na@example.org;Anna;\"Ulm, Bern; Kiel\"\r\n", &anna, EXCEL),
        taken(
            "tabs",
            "email\tname\tcity\na@example.org\tAnna\tUlm, Bern; Kiel\n",
            &anna,
            "IANA text/tab-separated-values; Excel's \"Unicode text\"",
        ),
        taken(
            "sep=;",
            "sep=;\r\nemail;name;city\r\na@example.org;Anna;\"Ulm, Bern; Kiel\"\r\n",
            &anna,
            "Excel's own line for the delimiter",
        ),
        taken(
            "a quoted sep line",
            "\"sep=|\"\nemail|name|city\na@example.org|Anna|Ulm, Bern; Kiel\n",
            &anna,
            "some exports quote every line",
        ),
        refused(
            "lines behind sep=",
            "sep=;\r\nemail;x\r\nbob;1\r\n",
            3,
            "no @ in 'bob'",
            "the sep line is a line of the file",
        ),
        taken(
            "semicolons, commas in a name",
            "\"Name, Vorname\";E-Mail\nRoe;a@example.org\n",
            &[("a@example.org", None, json!({"Name, Vorname": "Roe"}))],
            "the delimiter is the one with which a column holds addresses",
        ),
        taken(
            "empty columns at the end",
            "email;name;;\na@example.org;Anna;;\nb@example.org;;;\n;;;\n",
            &[
                ("a@example.org", Some("Anna"), json!({})),
                ("b@example.org", None, json!({})),
            ],
            "Excel writes every column that was ever touched, and rows too",
        ),
        refused(
            "a value in a column without name",
            "email,name,,\na@example.org,Anna,,x\n",
            2,
            "the row has 4 cells, the header 2",
            "nobody could use it, and it may be a cell that moved",
        ),
        refused(
            "a column without name in between",
            "email,,x\na@example.org,1,2\n",
            1,
            "column 2 has no name",
            "nobody could use it",
        ),
        taken(
            "a formula",
            "email,x\na@example.org,=1+1\n",
            &[("a@example.org", None, json!({"x": "=1+1"}))],
            "a cell is text; OWASP asks for care when it is exported, not here",
        ),
        refused("an empty file", "", 0, "the table is empty", "there is nobody to mail"),
    ]
    .into_iter()
    .map(|case| match case.expected {
        // Nothing has no line.
        Expected::Refused(Some(0), says) => Case {
            expected: Expected::Refused(None, says),
            doors: &[Door::Send, Door::Contacts],
            ..case
        },
        _ => case,
    })
    .collect()
}

fn charsets() -> Vec<Case> {
    let zoe = [("z@example.org", Some("Zoë €"), json!({}))];
    let table = "email;name\r\nz@example.org;Zoë €\r\n";
    let marked = format!("\u{feff}{table}");
    vec![
        taken("UTF-8 with a mark", marked.clone(), &zoe, "Unicode 23.8; Excel's \"CSV UTF-8\""),
        bytes(
            CSV,
            taken(
                "UTF-16LE with a mark",
                utf16(&marked, u16::to_le_bytes),
                &zoe,
                "RFC 2781 3.2; Excel's \"Unicode text\"",
            ),
        ),
        bytes(CSV, taken("UTF-16BE with a mark", utf16(&marked, u16::to_be_bytes), &zoe, "RFC 2781 3.2")),
        bytes(
            "text/csv; charset=utf-16le",
            taken("UTF-16LE without a mark", utf16(table, u16::to_le_bytes), &zoe, "RFC 2781 4.2: the charset says it"),
        ),
        bytes(
            "text/csv; charset=windows-1252",
            taken(
                "Windows-1252",
                b"email;name\r\nz@example.org;Zo\xeb \x80\r\n".to_vec(),
                &zoe,
                "WHATWG Encoding 9.1; Excel's plain CSV in the West",
            ),
        ),
        bytes(
            "text/csv; charset=ISO-8859-1",
            taken(
                "Latin 1",
                b"email;name\nz@example.org;Zo\xeb\n".to_vec(),
                &[("z@example.org", Some("Zoë"), json!({}))],
                "WHATWG Encoding 4.2: the label means windows-1252",
            ),
        ),
        bytes(
            "text/csv; charset=shift_jis",
            taken(
                "Shift_JIS",
                b"email,name\nz@example.org,\x93\x8c\x8b\x9e\n".to_vec(),
                &[("z@example.org", Some("東京"), json!({}))],
                "Excel's plain CSV in Japan",
            ),
        ),
        bytes(
            CSV,
            refused(
                "Windows-1252 that nobody names",
                b"email,name\nz@example.org,Zo\xeb\n".to_vec(),
                2,
                "not UTF-8",
                "RFC 7111 5.1: UTF-8 unless said otherwise; a guess would mangle names",
            ),
        ),
        bytes(
            CSV,
            refused(
                "UTF-16 that nobody names",
                utf16("email\nz@example.org\n", u16::to_le_bytes),
                1,
                "UTF-16 without a byte order mark",
                "as above",
            ),
        ),
    ]
}

fn columns() -> Vec<Case> {
    let anna = |data| [("a@example.org", None, data)];
    let mut all = vec![
        taken(
            "EMAIL",
            "EMAIL,City\na@example.org,Ulm\n",
            &anna(json!({"City": "Ulm"})),
            "names of columns have no case to people",
        ),
        taken(
            "a name column",
            "email,Full Name\na@example.org,Anna\n",
            &[("a@example.org", Some("Anna"), json!({"Full Name": "Anna"}))],
            "the whole name, and still data for templates that use it",
        ),
        taken(
            "first and last name",
            "Email Address,First Name,Last Name\na@example.org,Anna,Roe\n",
            &anna(json!({"First Name": "Anna", "Last Name": "Roe"})),
            "Mailchimp's export",
        ),
        taken(
            "email beside another",
            "Mail,email\nx,a@example.org\n",
            &anna(json!({"Mail": "x"})),
            "email itself goes before what resembles it",
        ),
        refused(
            "two that may be it",
            "Mail,Courriel\na@example.org,b@example.org\n",
            1,
            "may all hold the address",
            "a guess would mail to the wrong one",
        ),
        refused("none", "name,phone\nAnna,1\n", 1, "no column is called email", "there is no address"),
        refused(
            "the same name twice",
            "email,x,X\na@example.org,1,2\n",
            1,
            "two columns are called 'X'",
            "one would hide the other",
        ),
    ];
    let words = [
        "E-Mail",
        "e_mail",
        "E-Mail-Adresse",
        "Adresse e-mail",
        "Adresse électronique",
        "Courriel",
        "Correo electrónico",
        "Indirizzo e-mail",
        "Posta elettronica",
        "Endereço de e-mail",
        "E-mailadres",
        "Adres e-mail",
        "E-postadress",
        "Sähköposti",
        "E-posta",
        "メールアドレス",
        "电子邮件",
        "이메일",
        "Электронная почта",
    ];
    all.extend(words.map(|word| {
        taken(
            word,
            format!("{word};x\na@example.org;1\n"),
            &anna(json!({"x": "1"})),
            "what the address is called in another language",
        )
    }));
    all
}
