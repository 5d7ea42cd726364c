//! The file beside an SQLite database that says that a process sends from it. The system lets go of it however that process
//! ends. On PostgreSQL leases say it, and there is none.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::{DatabaseUrl, Result, StoreError};

/// Takes the lock; it is held for as long as the file is open. `None` on PostgreSQL.
///
/// # Errors
/// `Conflict` when another process has it; `Unavailable` when the file cannot be made.
pub fn take(url: &DatabaseUrl) -> Result<Option<File>> {
    let DatabaseUrl::Sqlite(path) = url else {
        return Ok(None);
    };
    match try_take(path)? {
        Some(file) => Ok(Some(file)),
        None => Err(StoreError::Conflict(format!(
            "another hikyaku process sends from {}. One process may; for more, use PostgreSQL (HIKYAKU_DATABASE_URL=postgres://…)",
            path.display()
        ))),
    }
}

/// As [`take`]; `None` when another process has it.
///
/// # Errors
/// `Unavailable` when the file cannot be made.
pub fn try_take(database: &Path) -> Result<Option<File>> {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    let shown = Path::new(&name).display();
    if let Some(folder) = database.parent().filter(|p| !p.as_os_str().is_empty()) {
        let made = std::fs::create_dir_all(folder);
        made.map_err(|e| StoreError::Unavailable(format!("creating {}: {e}", folder.display())))?;
    }
    let file = File::create(&name).map_err(|e| StoreError::Unavailable(format!("creating {shown}: {e}")))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(StoreError::Unavailable(format!("locking {shown}: {e}"))),
    }
}
