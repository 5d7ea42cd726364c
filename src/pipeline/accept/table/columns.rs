//! What the columns of a table are for: one holds the address, one may hold the name, every other becomes data. Never looks at
//! the rows.

use unicode_normalization::UnicodeNormalization;

use super::super::problem::quoted;
use super::rows::Row;
use crate::domain::data_name::{Folded, fold, is_plain};
use crate::template::RESERVED;

/// Most columns of a table.
pub const COLUMNS_MAX: usize = 100;
/// Longest name of a column.
pub const COLUMN_NAME_BYTES_MAX: usize = 100;

/// What the column of addresses is called, folded: in English, and as spreadsheets and shops of other countries write it.
const EMAIL: &[&str] = &[
    "email",
    "emailaddress",
    "emailaddr",
    "mail",
    "mailaddress",
    // German, Dutch, Swedish, Danish and Norwegian, Finnish, Icelandic
    "emailadresse",
    "mailadresse",
    "emailadres",
    "mailadres",
    "epost",
    "epostadress",
    "epostadresse",
    "mejladress",
    "mejl",
    "sähköposti",
    "sähköpostiosoite",
    "netfang",
    // French, Spanish, Catalan, Italian, Portuguese, Romanian
    "courriel",
    "adresseemail",
    "adressemail",
    "adressecourriel",
    "adresseélectronique",
    "adressedecourriel",
    "correo",
    "correoelectrónico",
    "correoelectronico",
    "direccióndecorreo",
    "direccióndecorreoelectrónico",
    "direccióndeemail",
    "correuelectrònic",
    "adreçaelectrònica",
    "indirizzoemail",
    "indirizzomail",
    "postaelettronica",
    "indirizzodipostaelettronica",
    "correioeletrônico",
    "correioeletrónico",
    "correioeletronico",
    "endereçodeemail",
    "adresădeemail",
    // Polish, Czech, Slovak, Hungarian, Croatian, Slovenian, Lithuanian, Turkish
    "adresemail",
    "adresmailowy",
    "adrespocztyelektronicznej",
    "pocztaelektroniczna",
    "emailováadresa",
    "adresaemail",
    "emailcím",
    "emailadresa",
    "epošta",
    "elektroničkapošta",
    "elpaštas",
    "eposta",
    "epostaadresi",
    // Russian, Ukrainian, Bulgarian, Greek
    "электроннаяпочта",
    "эл.почта",
    "адресэлектроннойпочты",
    "почта",
    "електроннапошта",
    "електроннапоща",
    "имейл",
    "ηλεκτρονικόταχυδρομείο",
    "ηλεκτρονικήδιεύθυνση",
    // Japanese, Chinese, Korean, Hebrew, Arabic
    "メール",
    "メールアドレス",
    "eメール",
    "eメールアドレス",
    "電子メール",
    "電子メールアドレス",
    "电子邮件",
    "电子邮箱",
    "电子邮件地址",
    "邮箱",
    "電子郵件",
    "電子信箱",
    "電郵",
    "이메일",
    "이메일주소",
    "전자우편",
    "דואל",
    "דוא\"ל",
    "البريدالإلكتروني",
];

/// What the column of whole names is called, folded. Words that often mean the family name alone (`nom`, `nombre`) are left
/// out: such a column is data under its own name.
const NAME: &[&str] = &[
    "name",
    "fullname",
    "displayname",
    "vollständigername",
    "nomcomplet",
    "nomprénom",
    "prénomnom",
    "nombrecompleto",
    "nombreyapellidos",
    "nomecompleto",
    "nomeecognome",
    "nomecognome",
    "naam",
    "volledigenaam",
    "namn",
    "fulltnamn",
    "navn",
    "fuldtnavn",
    "fulltnavn",
    "nimi",
    "imięinazwisko",
    "imięnazwisko",
    "celéjméno",
    "teljesnév",
    "adsoyad",
    "фио",
    "полноеимя",
    "ονοματεπώνυμο",
    "氏名",
    "名前",
    "お名前",
    "姓名",
    "이름",
    "성명",
];

/// Words that a template reads as its own.
const TAKEN: &[&str] = &[
    "name", "loop", "in", "is", "not", "and", "or", "if", "elif", "else", "true", "false", "none", "True", "False",
    "None",
];

/// A column of a table, and how a template says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// Such as `first_name`, for `{{ first_name }}`; `recipient.data["…"]` where there is no shorter way.
    pub variable: String,
}

/// Why the columns are of no use: a code, a sentence.
pub type Fault = (&'static str, String);

/// What each column is for.
#[derive(Debug)]
pub struct Columns {
    /// Where the address stands.
    pub email: usize,
    pub name: Option<usize>,
    /// Place and name of the data.
    pub data: Vec<(usize, String)>,
    /// Columns with a name; cells behind them must be empty.
    pub named: usize,
    /// The rows begin at once: there are addresses, maybe names beside them, and no row of names.
    pub is_headless: bool,
    pub told: Vec<Column>,
}

impl Columns {
    /// Reads the row of names.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn read(row: &Row) -> Result<Self, Fault> {
        let names = names(row)?;
        let email = find_email(&names)?;
        let name = find(&names, "name", NAME).filter(|i| *i != email);
        let is_data = |i: usize| i != email && (Some(i) != name || !names[i].eq_ignore_ascii_case("name"));
        let data: Vec<(usize, String)> = (0..names.len())
            .filter(|i| is_data(*i))
            .map(|i| (i, names[i].clone()))
            .collect();
        let folded = Folded::of(data.iter().map(|(_, name)| name.as_str()));
        let variable = |i: usize, column: &str| match i {
            i if i == email => "email".to_owned(),
            i if Some(i) == name => "name".to_owned(),
            _ => variable(column, &folded),
        };
        let told = names.iter().enumerate().map(|(i, column)| Column {
            variable: variable(i, column),
            name: column.clone(),
        });
        Ok(Self {
            email,
            name,
            told: told.collect(),
            data,
            named: names.len(),
            is_headless: false,
        })
    }

    /// For a table that begins with an address: addresses, and maybe names beside them.
    pub fn headless(row: &Row) -> Option<Self> {
        let begins_with_address = row.n_cells() > 0 && row.cell(0).contains(&b'@');
        begins_with_address.then(|| Self {
            email: 0,
            name: Some(1),
            data: Vec::new(),
            named: 2,
            is_headless: true,
            told: Vec::new(),
        })
    }

    /// Whether the names hold one for the address. For choosing a delimiter.
    pub fn has_email(row: &Row) -> bool {
        let is_email = |cell: &[u8]| std::str::from_utf8(cell).is_ok_and(|name| EMAIL.contains(&known(name).as_str()));
        row.cells().any(is_email)
    }
}

/// The names of the columns; empty ones at the end are none.
fn names(row: &Row) -> Result<Vec<String>, Fault> {
    let mut names: Vec<String> = Vec::with_capacity(row.n_cells());
    let mut named = 0;
    for (i, cell) in row.cells().enumerate() {
        if cell.contains(&0) {
            let why = "the table is UTF-16 without a byte order mark; say so, as charset=utf-16le, or save it as UTF-8";
            return Err(("invalid_utf8", why.to_owned()));
        }
        let text = std::str::from_utf8(cell).map_err(|_| {
            let why = "is not UTF-8; save the table as UTF-8, or say what it is, as charset=windows-1252";
            ("invalid_utf8", format!("the name of column {} {why}", i + 1))
        })?;
        let text = text.trim_start_matches('\u{feff}').trim();
        names.push(text.to_owned());
        if !text.is_empty() {
            named = i + 1;
        }
    }
    names.truncate(named);
    if named > COLUMNS_MAX {
        return Err(("too_many", format!("the table has {named} columns; {COLUMNS_MAX} is the most")));
    }
    for (i, name) in names.iter().enumerate() {
        check_name(name, i, &names[..i])?;
    }
    Ok(names)
}

fn check_name(text: &str, i: usize, before: &[String]) -> Result<(), Fault> {
    if text.is_empty() {
        return Err(("required", format!("column {} has no name", i + 1)));
    }
    if text.len() > COLUMN_NAME_BYTES_MAX {
        return Err(("too_long", format!("the name of column {} is longer than {COLUMN_NAME_BYTES_MAX} bytes", i + 1)));
    }
    let lower = text.to_lowercase();
    if before.iter().any(|other| other.to_lowercase() == lower) {
        return Err(("duplicate_field", format!("two columns are called {}", quoted(text))));
    }
    Ok(())
}

/// A name as it stands in the lists of known ones.
fn known(name: &str) -> String {
    fold(&name.trim_start_matches('\u{feff}').nfkc().collect::<String>())
}

/// The column that is called `plain`, or else the first that has one of the known names.
fn find(names: &[String], plain: &str, list: &[&str]) -> Option<usize> {
    names
        .iter()
        .position(|name| name.eq_ignore_ascii_case(plain))
        .or_else(|| names.iter().position(|name| list.contains(&known(name).as_str())))
}

fn find_email(names: &[String]) -> Result<usize, Fault> {
    let Some(email) = find(names, "email", EMAIL) else {
        let shown = quoted(&names.join(","));
        let hint = "; the first row names the columns, separated by commas, semicolons or tabs";
        return Err(("required", format!("no column is called email, only {shown}{hint}")));
    };
    if names[email].eq_ignore_ascii_case("email") {
        return Ok(email);
    }
    // A spelling of `email` itself goes before a translation.
    let spelt: Vec<usize> = (0..names.len()).filter(|i| known(&names[*i]) == "email").collect();
    let all: Vec<usize> = match spelt.is_empty() {
        false => spelt,
        true => (0..names.len())
            .filter(|i| EMAIL.contains(&known(&names[*i]).as_str()))
            .collect(),
    };
    match all[..] {
        [one] => Ok(one),
        _ => {
            let both: Vec<String> = all.iter().map(|i| quoted(&names[*i])).collect();
            let why =
                format!("the columns {} may all hold the address; call the one that does email", both.join(" and "));
            Err(("duplicate_field", why))
        }
    }
}

/// How a template says a column of data.
fn variable(column: &str, data: &Folded) -> String {
    let is_free = |name: &str| is_plain(name) && !RESERVED.contains(&name) && !TAKEN.contains(&name);
    if is_free(column) {
        return column.to_owned();
    }
    let words = column.split(|c: char| c == '-' || c == '_' || c.is_whitespace());
    let words: Vec<String> = words.filter(|w| !w.is_empty()).map(str::to_ascii_lowercase).collect();
    let short = words.join("_");
    // These two folded are the address and the name, whatever the data hold.
    let is_ours = ["email", "name"].contains(&fold(&short).as_str());
    if is_free(&short) && !is_ours && data.find(&short) == Some(column) {
        return short;
    }
    format!("recipient.data[\"{}\"]", column.replace('\\', "\\\\").replace('"', "\\\""))
}
