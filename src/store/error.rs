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
    /// Something stored cannot be read back: a person must look.
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
    /// A statement was refused: a mistake of ours.
    #[error("the database refused a statement: {0}")]
    Refused(String),
}

impl StoreError {
    /// Whether the same step may succeed when tried again a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Unavailable(_) | StoreError::Full(_))
    }
}
