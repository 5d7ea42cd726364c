//! Rows as both databases have them: integers, texts and bytes. One canonical form of a row, so that a table's hash is the same
//! wherever it stands. Never talks to a database.

use aws_lc_rs::digest::{Context, SHA256};

use crate::store::{Result, StoreError};

/// What a column holds. The schema knows nothing else: times and truths are integers, JSON is text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Text,
    Blob,
}

impl Kind {
    /// # Errors
    /// `Refused` for a type that no migration may use.
    pub fn of(declared: &str) -> Result<Self> {
        match declared.to_ascii_lowercase().as_str() {
            "integer" | "bigint" => Ok(Kind::Int),
            "text" => Ok(Kind::Text),
            "blob" | "bytea" => Ok(Kind::Blob),
            other => Err(StoreError::Refused(format!("no table may have a column of the type {other}"))),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cell {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

impl Cell {
    /// Bytes in memory, roughly.
    pub fn len(&self) -> usize {
        match self {
            Cell::Null => 1,
            Cell::Int(_) => 8,
            Cell::Text(text) => text.len(),
            Cell::Blob(bytes) => bytes.len(),
        }
    }

    /// For a message to a person.
    pub fn shown(&self) -> String {
        match self {
            Cell::Null => "NULL".to_owned(),
            Cell::Int(n) => n.to_string(),
            Cell::Text(text) => text.chars().take(80).collect(),
            Cell::Blob(bytes) => format!("{} bytes", bytes.len()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    pub kind: Kind,
}

/// A table as the migrations make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub name: String,
    /// In the order of their names, whatever order a database has them in.
    pub columns: Vec<Column>,
    /// The places of the key's columns among `columns`, in the key's order.
    pub key: Vec<usize>,
    /// The column whose values the database counts up, where there is one.
    pub counted: Option<String>,
    /// Tables whose rows must be there before.
    pub parents: Vec<String>,
}

/// Rows that belong to one database and are never moved: what it is, and whether it is being moved.
pub(super) const SETTINGS_KEPT: [&str; 6] = [
    "backup",
    "birthmark",
    "moved_to",
    "moving_from",
    "moving_to",
    "schema_needs",
];

impl Table {
    /// The key of one of its rows.
    pub fn key_of(&self, row: &[Cell]) -> Vec<Cell> {
        self.key.iter().map(|&at| row[at].clone()).collect()
    }

    pub fn column_names(&self) -> String {
        joined(self.columns.iter().map(|c| quoted(&c.name)))
    }

    fn key_names(&self) -> impl Iterator<Item = String> {
        self.key.iter().map(|&at| quoted(&self.columns[at].name))
    }

    /// The rows that are moved, as the end of a `FROM`.
    fn rows(&self) -> String {
        let kept = match self.name.as_str() {
            "settings" => format!(" WHERE name NOT IN ({})", joined(SETTINGS_KEPT.iter().map(|n| format!("'{n}'")))),
            _ => " WHERE true".to_owned(),
        };
        format!("{}{kept}", quoted(&self.name))
    }

    pub fn count(&self) -> String {
        format!("SELECT COUNT(*) FROM {}", self.rows())
    }

    pub fn has_rows(&self) -> String {
        format!("SELECT COUNT(*) FROM (SELECT 1 FROM {} LIMIT 1) AS one", self.rows())
    }

    /// A page of rows in the order of their keys, after the key that is bound to `$1`, `$2`….
    pub fn page(&self, after: Option<&[Cell]>, limit: i64) -> String {
        let beyond = match after {
            Some(key) => {
                let places = joined((1..=key.len()).map(|n| format!("${n}")));
                format!(" AND ({}) > ({places})", joined(self.key_names()))
            }
            None => String::new(),
        };
        format!(
            "SELECT {} FROM {}{beyond} ORDER BY {} LIMIT {limit}",
            self.column_names(),
            self.rows(),
            joined(self.key_names())
        )
    }

    /// The row with the greatest key.
    pub fn last(&self) -> String {
        let backwards = joined(self.key_names().map(|name| format!("{name} DESC")));
        format!("SELECT {} FROM {} ORDER BY {backwards} LIMIT 1", self.column_names(), self.rows())
    }

    /// The greatest value of the counted column.
    pub fn greatest(&self, counted: &str) -> String {
        format!("SELECT COALESCE(MAX({}), 0) FROM {}", quoted(counted), quoted(&self.name))
    }
}

/// Parents before children; otherwise in the order of names.
///
/// # Errors
/// `Refused` when tables refer to each other in a circle.
pub(super) fn in_order(mut tables: Vec<Table>) -> Result<Vec<Table>> {
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    let mut ordered: Vec<Table> = Vec::with_capacity(tables.len());
    while !tables.is_empty() {
        let is_free = |t: &Table| {
            t.parents
                .iter()
                .all(|p| *p == t.name || ordered.iter().any(|o| o.name == *p))
        };
        let Some(at) = tables.iter().position(is_free) else {
            return Err(StoreError::Refused(format!("{} refers to itself through others", tables[0].name)));
        };
        ordered.push(tables.remove(at));
    }
    Ok(ordered)
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// What a table comes to: how many rows, and the hash of all of them in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    pub rows: u64,
    /// SHA-256, in hex.
    pub hash: String,
}

/// Adds rows up. Each value stands with its kind and its length, so that no two different rows look the same.
pub(super) struct Summing {
    context: Context,
    rows: u64,
}

impl Summing {
    pub fn start() -> Self {
        Self {
            context: Context::new(&SHA256),
            rows: 0,
        }
    }

    pub fn add(&mut self, row: &[Cell]) {
        self.rows += 1;
        for cell in row {
            match cell {
                Cell::Null => self.context.update(&[0]),
                Cell::Int(n) => {
                    self.context.update(&[1]);
                    self.context.update(&n.to_be_bytes());
                }
                Cell::Text(text) => self.add_bytes(2, text.as_bytes()),
                Cell::Blob(bytes) => self.add_bytes(3, bytes),
            }
        }
    }

    fn add_bytes(&mut self, kind: u8, bytes: &[u8]) {
        self.context.update(&[kind]);
        self.context.update(&(bytes.len() as u64).to_be_bytes());
        self.context.update(bytes);
    }

    pub fn end(self) -> Sum {
        let digest = self.context.finish();
        Sum {
            rows: self.rows,
            hash: digest.as_ref().iter().map(|b| format!("{b:02x}")).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, parents: &[&str]) -> Table {
        Table {
            name: name.to_owned(),
            columns: Vec::new(),
            key: Vec::new(),
            counted: None,
            parents: parents.iter().map(|&p| p.to_owned()).collect(),
        }
    }

    #[test]
    fn parents_come_before_children() {
        let tables = vec![table("a", &["c"]), table("b", &[]), table("c", &["b", "c"])];
        let order: Vec<String> = in_order(tables).unwrap().into_iter().map(|t| t.name).collect();
        assert_eq!(order, ["b", "c", "a"]);
        assert!(in_order(vec![table("a", &["b"]), table("b", &["a"])]).is_err());
    }

    #[test]
    fn no_two_rows_have_one_sum() {
        let text = |t: &str| Cell::Text(t.to_owned());
        let rows = [
            vec![],
            vec![Cell::Null],
            vec![Cell::Null, Cell::Null],
            vec![Cell::Int(0)],
            vec![text("")],
            vec![text(""), text("")],
            vec![text("ab"), text("c")],
            vec![text("a"), text("bc")],
            vec![text("0")],
            vec![Cell::Blob(b"0".to_vec())],
            vec![Cell::Int(48)],
        ];
        let sums: std::collections::BTreeSet<String> = rows
            .iter()
            .map(|row| {
                let mut summing = Summing::start();
                summing.add(row);
                summing.end().hash
            })
            .collect();
        assert_eq!(sums.len(), rows.len());
    }
}
