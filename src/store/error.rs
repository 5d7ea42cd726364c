//! What can go wrong in the store, said as what the caller can do about it.

/// The result of every store step.
pub type Result<T> = std::result::Result<T, StoreError>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached or cannot write now; the step may be tried again. Whether an
    /// interrupted commit took effect is unknown, so only idempotent or fenced steps are repeated.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The disk of the database is full. Nothing was written.
    #[error("the database has no space left: {0}")]
    Full(String),
    /// The lease ended: another worker owns the job. Drop the work.
    #[error("the lease on the job has lapsed")]
    LeaseLost,
    /// The step is not possible in the present state; the text says which state that is.
    #[error("{0}")]
    Conflict(String),
    /// Rolled back to let another transaction pass. Nothing was written; the step may be repeated.
    #[error("another transaction was in the way")]
    Contended,
    /// Something stored cannot be read back: a person must look.
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
    /// The database is no longer this program's to write: a newer program changed it, or it was moved. The text says
    /// which, and what to do.
    #[error("{0}")]
    Aside(String),
    /// A statement was refused: a mistake of ours.
    #[error("the database refused a statement: {0}")]
    Refused(String),
}

impl StoreError {
    /// Whether the same step may succeed when tried again a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Unavailable(_) | StoreError::Full(_) | StoreError::Contended)
    }
}

/// Sorts a driver's error by what the caller can do about it.
impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(db) => {
                let code = db.code().unwrap_or_default();
                match is_sealed(&code) {
                    true => StoreError::Aside(db.message().to_owned()),
                    false => from_code(&code, error.to_string()),
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => StoreError::Unavailable(error.to_string()),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Corrupt(error.to_string()),
            _ => StoreError::Refused(error.to_string()),
        }
    }
}

/// Whether the database refused a write because it is being moved, or was: the triggers of [`super::moving`] raise an SQLSTATE of
/// their own on PostgreSQL, and are the only ones there are on SQLite (SQLITE_CONSTRAINT_TRIGGER).
fn is_sealed(code: &str) -> bool {
    matches!(code, "HKMVD" | "1811")
}

/// `code` is an SQLSTATE of five characters (PostgreSQL) or SQLite's extended result code in digits.
fn from_code(code: &str, text: String) -> StoreError {
    if code.len() == 5 {
        return match code {
            "40001" | "40P01" | "55P03" => StoreError::Contended,
            "53100" => StoreError::Full(text),
            "23505" | "23503" => StoreError::Conflict(text),
            "57014" | "25006" | "25P03" => StoreError::Unavailable(text),
            c if c.starts_with("08") || c.starts_with("53") || c.starts_with("57") || c.starts_with("58") => {
                StoreError::Unavailable(text)
            }
            _ => StoreError::Refused(text),
        };
    }
    // The low byte of an extended code is the primary one: sqlite.org/rescode.html.
    match code.parse::<u32>().map(|c| c & 0xff) {
        Ok(5 | 6) => StoreError::Contended,
        Ok(13) => StoreError::Full(text),
        Ok(7 | 8 | 9 | 10 | 14) => StoreError::Unavailable(text),
        Ok(11 | 26) => StoreError::Corrupt(text),
        Ok(19) => StoreError::Conflict(text),
        _ => StoreError::Refused(text),
    }
}

/// What a database says of a connection, by its code: an SQLSTATE or SQLite's extended result code in digits.
fn code_of(error: &sqlx::Error) -> Option<String> {
    match error {
        sqlx::Error::Database(db) => db.code().map(|code| code.into_owned()),
        _ => None,
    }
}

/// Whether a connection is of no use after this error. After a failed write or sync SQLite's own view of the file may differ
/// from what is on the disk: only a new connection reads it again.
pub(super) fn breaks_connection(error: &sqlx::Error) -> bool {
    match (error, code_of(error)) {
        (sqlx::Error::Database(_), Some(code)) if code.len() == 5 => {
            // 25P03: idle in a transaction for too long. 57P01 to 57P05: the server ends the session.
            code == "25P03" || code.starts_with("08") || code.starts_with("57P")
        }
        // Out of memory, interrupted, input or output, corrupt, cannot open, not a database: sqlite.org/rescode.html.
        (sqlx::Error::Database(_), Some(code)) => {
            matches!(code.parse::<u32>().map(|c| c & 0xff), Ok(7 | 9 | 10 | 11 | 14 | 26))
        }
        (sqlx::Error::Database(_), None) => false,
        (sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed, _) => true,
        _ => false,
    }
}

/// Whether a server that does not let us in now may do so in a moment: it starts, or has no free place.
pub(super) fn may_connect_soon(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(e) => e.kind() == std::io::ErrorKind::ConnectionRefused,
        _ => code_of(error).is_some_and(|code| code == "57P03" || code == "53300"),
    }
}

/// What SQLite says to a rollback when it has rolled back by itself: a plain error, with words.
pub(super) fn is_no_transaction(error: &sqlx::Error) -> bool {
    code_of(error).as_deref() == Some("1") && error.to_string().contains("no transaction is active")
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::Execute(e) => e.into(),
            other => StoreError::Refused(format!("migrating the schema: {other}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_databases_mean_what_the_caller_can_do() {
        let kind = |code: &str| from_code(code, String::new());
        assert!(matches!(kind("40P01"), StoreError::Contended));
        assert!(matches!(kind("517"), StoreError::Contended), "SQLITE_BUSY_SNAPSHOT");
        assert!(matches!(kind("53100"), StoreError::Full(_)));
        assert!(matches!(kind("13"), StoreError::Full(_)));
        assert!(matches!(kind("57P01"), StoreError::Unavailable(_)));
        assert!(matches!(kind("778"), StoreError::Unavailable(_)), "SQLITE_IOERR_WRITE");
        assert!(matches!(kind("23505"), StoreError::Conflict(_)));
        assert!(matches!(kind("2067"), StoreError::Conflict(_)), "SQLITE_CONSTRAINT_UNIQUE");
        assert!(matches!(kind("42P01"), StoreError::Refused(_)));
    }
}
