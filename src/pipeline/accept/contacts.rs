//! Takes in contacts, in the same three formats as recipients. An upsert may be repeated without harm, so
//! contacts are stored as they come: a wrong one is listed and the others stay.

use serde_json::Value;
use tokio::io::AsyncRead;

use super::Acceptor;
use super::aside::Aside;
use super::collect::BatchLimit;
use super::given::Rejection;
use super::head::Head;
use super::problem::{AcceptError, FieldProblem, PROBLEMS_SHOWN_MAX, member, quoted};
use super::read::{Format, Shape};
use super::table::{Column, Options};
use crate::domain::id::ListId;

/// Contacts stored in one transaction: short enough that no other writer waits for long.
const CONTACTS_BATCH: BatchLimit = BatchLimit {
    recipients: 1_000,
    bytes: 2 * 1024 * 1024,
};

const CONTACTS: Shape = Shape {
    array: "contacts",
    has_head_line: false,
    limit: CONTACTS_BATCH,
};

/// What became of a list of contacts.
#[derive(Debug)]
pub struct Imported {
    pub received: i64,
    /// Contacts that were not known before.
    pub created: i64,
    pub rejected: i64,
    /// The first [`REJECTIONS_SHOWN_MAX`](super::REJECTIONS_SHOWN_MAX).
    pub rejections: Vec<Rejection>,
    /// The columns of a CSV body, and how a template says them.
    pub columns: Vec<Column>,
}

impl Acceptor {
    /// Adds or updates contacts, and puts them on a list if one is named. `list` must exist.
    ///
    /// # Errors
    /// See [`AcceptError`]. Contacts before the place where a body breaks off stay stored.
    pub async fn import_contacts(
        &self,
        format: Format,
        is_gzip: bool,
        table: Options,
        list: Option<&ListId>,
        body: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Imported, AcceptError> {
        let _room = self.room()?;
        let reading = self.reading(format, is_gzip, table, Head::new());
        let mut aside = Aside::start(body, reading, CONTACTS, |batch| batch);
        let (mut created, mut stored) = (0, 0);
        while let Some(contacts) = aside.next().await {
            created += self.store.put_contacts(&contacts, list, self.clock.now()).await?;
            stored += contacts.len();
        }
        let parsed = aside.finish().await.map_err(|e| saying_what_stays(e, stored))?;
        check_head(&parsed.head)?;
        let tally = parsed.tally;
        if tally.received == 0 {
            let detail = "there is not a single contact; give contacts, such as [{\"email\": \"anna@example.org\"}]";
            return Err(AcceptError::invalid(FieldProblem::new("#/contacts", "required", detail)));
        }
        if tally.received == tally.rejected {
            return Err(AcceptError::Invalid {
                problems: tally.problems(),
                total: tally.rejected,
            });
        }
        if let Some(last) = parsed.last_batch {
            created += self.store.put_contacts(&last, list, self.clock.now()).await?;
        }
        Ok(Imported {
            received: tally.received,
            created: i64::try_from(created).unwrap_or(i64::MAX),
            rejected: tally.rejected,
            rejections: tally.rejections,
            columns: parsed.columns,
        })
    }
}

/// A body that breaks off in the middle leaves what came before.
fn saying_what_stays(mut error: AcceptError, stored: usize) -> AcceptError {
    let problem = match &mut error {
        AcceptError::Malformed(problem) => Some(problem),
        AcceptError::Invalid { problems, .. } => problems.first_mut(),
        _ => None,
    };
    if let Some(problem) = problem.filter(|_| stored > 0) {
        problem
            .detail
            .push_str(&format!("; the first {stored} contacts are stored, and all may be sent again"));
    }
    error
}

fn check_head(head: &serde_json::Map<String, Value>) -> Result<(), AcceptError> {
    let unknown = head.keys().map(|name| {
        let detail = format!("there is no field {}; give contacts, and the list as ?list_id=", quoted(name));
        FieldProblem::new(member("#", name), "unknown_field", detail)
    });
    match head.len() {
        0 => Ok(()),
        n => Err(AcceptError::Invalid {
            problems: unknown.take(PROBLEMS_SHOWN_MAX).collect(),
            total: n as i64,
        }),
    }
}
