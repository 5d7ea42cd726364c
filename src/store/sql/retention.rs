//! Retention: see [`crate::store::retention`].

use async_trait::async_trait;

use super::{SqlStore, json_texts};
use crate::domain::time::Timestamp;
use crate::store::Result;
use crate::store::retention::Retention;

#[async_trait]
impl Retention for SqlStore {
    async fn prune(&self, ended_before: Timestamp, chunks_max: i64) -> Result<u64> {
        let mut tx = self.begin().await?;
        let jobs: Vec<i64> = sqlx::query_scalar(
            "-- chunks_to_prune
            SELECT c.job_id FROM broadcasts b JOIN chunks c ON c.broadcast_id = b.id
             WHERE b.finished_at < $1 ORDER BY c.job_id LIMIT $2",
        )
        .bind(ended_before.0)
        .bind(chunks_max)
        .fetch_all(&mut *tx)
        .await?;
        if jobs.is_empty() {
            return Ok(0);
        }
        let ids = json_texts(jobs.iter().map(ToString::to_string));
        for statement in [
            "-- prune_attempts
            DELETE FROM attempts WHERE job_id IN (SELECT CAST(value->>'v' AS BIGINT) FROM json_each($1))",
            "-- prune_messages
            DELETE FROM messages WHERE job_id IN (SELECT CAST(value->>'v' AS BIGINT) FROM json_each($1))",
            // How many failed for which reason is a count and stays; what a relay said may name an address.
            "-- prune_examples
            UPDATE failures SET reply = '' WHERE job_id IN (SELECT CAST(value->>'v' AS BIGINT) FROM json_each($1))",
            "-- prune_pauses
            UPDATE broadcasts SET pause = NULL WHERE pause IS NOT NULL AND id IN (SELECT broadcast_id FROM jobs
             WHERE id IN (SELECT CAST(value->>'v' AS BIGINT) FROM json_each($1)))",
            // Last: it is what says that there is something to prune.
            "-- prune_chunks
            DELETE FROM chunks WHERE job_id IN (SELECT CAST(value->>'v' AS BIGINT) FROM json_each($1))",
        ] {
            sqlx::query(statement).bind(&ids).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(jobs.len() as u64)
    }
}
