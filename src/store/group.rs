//! The group commit in SQL. Outcomes that teach nothing, which most are, go to the database in one text that is a transaction
//! by itself: every connection of a worker waits for this answer before its next message, and one question is answered sooner than
//! four. Never decides which texts a batch needs.
//!
//! In all of them `$1` is a JSON array with a line for each job, `$2` the time, and `$3` a JSON array with a line for each message.

/// The fence, the counters and the intents of all jobs. What does not come back is fenced.
macro_rules! moved_sql {
    () => {
        "UPDATE jobs SET touched_at = $2, commit_no = d.number, inflight = d.inflight,
               sent = sent + d.d_sent, failed = failed + d.d_failed, deferred = deferred + d.d_deferred, suppressed = suppressed + d.d_suppressed,
               uncertain = uncertain + d.d_uncertain, expired = expired + d.d_expired, flagged = flagged + d.d_flagged
          FROM (SELECT CAST(value->>'j' AS BIGINT) AS job_id, CAST(value->>'e' AS BIGINT) AS job_epoch,
                       CAST(value->>'n' AS BIGINT) AS number, value->>'i' AS inflight,
                       CAST(value->>'s' AS BIGINT) AS d_sent, CAST(value->>'f' AS BIGINT) AS d_failed,
                       CAST(value->>'d' AS BIGINT) AS d_deferred, CAST(value->>'p' AS BIGINT) AS d_suppressed,
                       CAST(value->>'u' AS BIGINT) AS d_uncertain, CAST(value->>'x' AS BIGINT) AS d_expired,
                       CAST(value->>'g' AS BIGINT) AS d_flagged
                  FROM json_each($1)) AS d
         WHERE jobs.id = d.job_id AND jobs.epoch = d.job_epoch AND jobs.state = 'running'
           AND jobs.commit_no < d.number
        RETURNING id, epoch, stop"
    };
}

/// The outcomes, as `$lines`, of the messages for which `$held` is true.
macro_rules! written_sql {
    ($lines:literal, $held:literal) => {
        concat!(
            "INSERT INTO messages (job_id, ordinal, status, attempts, burnt, possible_duplicate, code, enhanced, reply, class,
               relay_id, at, next_at)
        SELECT CAST(value->>'j' AS BIGINT), CAST(value->>'o' AS BIGINT), value->>'s', CAST(value->>'a' AS BIGINT),
               CAST(value->>'b' AS BIGINT), CAST(value->>'g' AS BIGINT), CAST(value->>'c' AS BIGINT), value->>'e',
               value->>'r', value->>'k', CAST(value->>'y' AS BIGINT), CAST(value->>'t' AS BIGINT),
               CAST(value->>'n' AS BIGINT)
          FROM json_each(",
            $lines,
            ") WHERE ",
            $held,
            "
        ON CONFLICT (job_id, ordinal) DO UPDATE SET status = excluded.status, attempts = excluded.attempts,
               burnt = excluded.burnt, possible_duplicate = excluded.possible_duplicate, code = excluded.code,
               enhanced = excluded.enhanced, reply = excluded.reply, class = excluded.class,
               relay_id = excluded.relay_id, at = excluded.at, next_at = excluded.next_at"
        )
    };
}

pub const MOVE_JOBS: &str = concat!("-- move_jobs\n", moved_sql!());
/// With the lines as `$1`.
pub const WRITE_MESSAGES: &str = concat!("-- write_messages\n", written_sql!("$1", "true"));

/// On SQLite the statements of a transaction, one after the other. Repeated after its answer was lost, it moves no job again, and writes
/// the same messages over the same.
pub const AT_ONCE_ON_SQLITE: &str = concat!(
    "-- group\n BEGIN IMMEDIATE; ",
    moved_sql!(),
    "; ",
    written_sql!(
        "$3",
        "CAST(value->>'j' AS BIGINT) IN (SELECT jobs.id FROM json_each($1) AS d JOIN jobs ON jobs.id = d.value->>'j'
               AND jobs.epoch = d.value->>'e' AND jobs.commit_no = d.value->>'n' AND jobs.state = 'running')"
    ),
    "; COMMIT"
);
/// On PostgreSQL one statement, whose parts see each other's rows.
pub const AT_ONCE_ON_POSTGRES: &str = concat!(
    "-- group\n WITH moved AS (",
    moved_sql!(),
    "), written AS (",
    written_sql!("$3", "CAST(value->>'j' AS BIGINT) IN (SELECT id FROM moved)"),
    ") SELECT id, epoch, stop FROM moved"
);
