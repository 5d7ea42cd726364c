//! What keeps messages that are not through, by reason: counted, not guessed from a few.

use super::{Connection, SqlStore, parsed};
use crate::domain::id::{BroadcastId, MessageId};
use crate::domain::message::ReplyNote;
use crate::domain::safety::Example;
use crate::store::Result;
use crate::store::safety::{Failures, STUCK_GROUPS_MAX, Stuck};

#[derive(sqlx::FromRow)]
struct StuckRow {
    status: String,
    class: String,
    code: Option<i64>,
    enhanced: Option<String>,
    n: i64,
    first: i64,
}

impl SqlStore {
    pub(super) async fn read_stuck(&self, id: &BroadcastId) -> Result<Vec<Stuck>> {
        let mut tx = self.begin_snapshot().await?;
        let rows: Vec<StuckRow> = sqlx::query_as(
            "-- stuck
            SELECT m.status, m.class, m.code, m.enhanced, COUNT(*) AS n,
                   MIN(CAST(m.job_id AS BIGINT) * 65536 + CAST(m.ordinal AS BIGINT)) AS first
              FROM jobs j JOIN messages m ON m.job_id = j.id
             WHERE j.broadcast_id = $1
               AND ((j.deferred > 0 AND j.state <> 'canceled' AND m.status = 'deferred')
                 OR (j.uncertain > 0 AND m.status = 'uncertain'))
             GROUP BY m.status, m.class, m.code, m.enhanced ORDER BY 5 DESC, 6 LIMIT $2",
        )
        .bind(id.as_str())
        .bind(STUCK_GROUPS_MAX)
        .fetch_all(&mut *tx)
        .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            found.push(row.with_example(&mut tx).await?);
        }
        tx.commit().await?;
        Ok(found)
    }
}

impl StuckRow {
    async fn with_example(self, tx: &mut Connection) -> Result<Stuck> {
        let (job_id, ordinal) = (self.first / 65_536, self.first % 65_536);
        let text: String =
            sqlx::query_scalar("-- stuck_example\n SELECT reply FROM messages WHERE job_id = $1 AND ordinal = $2")
                .bind(job_id)
                .bind(ordinal)
                .fetch_one(tx)
                .await?;
        let message = MessageId {
            job_id,
            ordinal: super::delivery::ordinal(ordinal)?,
        };
        let note = ReplyNote {
            code: self.code.and_then(|c| u16::try_from(c).ok()),
            enhanced: self.enhanced,
            text,
        };
        Ok(Stuck {
            status: parsed("messages.status", &self.status)?,
            of: Failures {
                class: self.class,
                n: self.n,
                example: Example::new(message.to_string(), note),
            },
        })
    }
}
