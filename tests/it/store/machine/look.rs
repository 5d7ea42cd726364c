//! Everything that is stored after a step: against the model, and against what always holds whatever the model says.

use hikyaku::domain::broadcast::BroadcastStatus;
use hikyaku::domain::counts::Counts;
use hikyaku::domain::job::Stop;
use hikyaku::domain::message::MessageStatus;

use super::super::world::{at, broadcast_id};
use super::model::{Model, Stage};
use super::real::Real;

impl Real<'_> {
    /// Everything that is stored, against the model, and then against what always holds.
    pub(super) async fn look(&mut self, model: &Model) {
        let jobs = self.raw.lines(JOBS).await;
        let expected: Vec<String> = (0..model.jobs.len()).map(|n| job_line(model, n)).collect();
        same("jobs", &jobs, &expected);
        let messages = self.raw.lines(MESSAGES).await;
        same("messages", &messages, &message_lines(model));
        let broadcasts = self.raw.lines(BROADCASTS).await;
        let expected: Vec<String> = (0..model.casts.len()).map(|n| cast_line(model, n)).collect();
        same("broadcasts", &broadcasts, &expected);
        self.epochs_only_rise(&jobs);
        self.intents_are_of_open_messages(&jobs, &messages);
        self.no_message_ends_twice(&messages);
        self.counts_add_up(model).await;
    }

    fn epochs_only_rise(&mut self, jobs: &[String]) {
        for line in jobs {
            let columns: Vec<&str> = line.split('|').collect();
            let (id, epoch) = (columns[0].parse().unwrap(), columns[8].parse().unwrap());
            let before = self.epochs.insert(id, epoch);
            assert!(before.is_none_or(|before| before <= epoch), "the epoch of job {id} fell");
        }
    }

    /// An intent is of a message that has not come to an end, once, and of no job that is over.
    fn intents_are_of_open_messages(&self, jobs: &[String], messages: &[String]) {
        for line in jobs {
            let columns: Vec<&str> = line.split('|').collect();
            let intents: Vec<u16> = serde_json::from_str(columns[11]).unwrap();
            let is_over = matches!(columns[5], "done" | "canceled");
            assert!(!is_over || intents.is_empty(), "a job that is over has messages on the wire: {line}");
            for (n, ordinal) in intents.iter().enumerate() {
                assert!(!intents[..n].contains(ordinal), "two live intents of one message: {line}");
                let start = format!("{}|{ordinal}|", columns[0]);
                let row = messages.iter().find(|m| m.starts_with(&start));
                let status = row.map_or("queued", |m| m.split('|').nth(2).unwrap());
                let status: MessageStatus = status.parse().unwrap();
                assert!(!status.is_final(), "an intent of a message that is {status}: {line}");
            }
        }
    }

    fn no_message_ends_twice(&mut self, messages: &[String]) {
        for line in messages {
            let columns: Vec<&str> = line.split('|').collect();
            let key = (columns[0].parse().unwrap(), columns[1].parse().unwrap());
            let status: MessageStatus = columns[2].parse().unwrap();
            match self.ended.get(&key) {
                Some(before) if self.retried && before == "failed" && !status.is_final() => {
                    self.ended.remove(&key);
                }
                Some(before) => assert_eq!(before, columns[2], "a message came to another end"),
                None if status.is_final() => {
                    self.ended.insert(key, columns[2].to_owned());
                }
                None => {}
            }
        }
    }

    /// The conservation law, the pages' counts, and the recount from chunks and rows.
    async fn counts_add_up(&mut self, model: &Model) {
        let mut shown = self.w.broadcasts(None, 1_000).await.unwrap().rows;
        shown.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(shown.len(), model.casts.len());
        self.recounted.resize(shown.len(), Counts::default());
        for (n, shown) in shown.iter().enumerate() {
            assert_eq!(shown.counts.total(), shown.received.accepted(), "conservation of {}", shown.id);
            assert_eq!(shown.counts, model.counts(n), "the counts of {}", shown.id);
            let cast = &model.casts[n];
            let is_paused = cast.paused && !cast.stage.is_over();
            assert_eq!(shown.status.to_string(), if is_paused { "paused" } else { cast.stage.as_str() });
            let open = (shown.counts.queued, shown.counts.deferred);
            assert!(shown.status != BroadcastStatus::Completed || open == (0, 0), "completed with {open:?} left");
            if self.recounted[n] != shown.counts {
                let mut recount = self.w.recount(&shown.id).await.unwrap();
                let rest = if cast.stage == Stage::Canceled {
                    MessageStatus::Canceled
                } else {
                    MessageStatus::Queued
                };
                recount.add(rest, (cast.size - cast.chunked) as i64);
                assert_eq!(recount, shown.counts, "counters and rows of {}", shown.id);
                self.recounted[n] = shown.counts;
            }
        }
    }
}

const JOBS: &str = "SELECT CAST(id AS TEXT), broadcast_id, kind, CAST(seq AS TEXT), CAST(priority AS TEXT), state,
        CAST(run_at AS TEXT), CAST(worker_id AS TEXT), CAST(epoch AS TEXT), CAST(deaths AS TEXT), stop, inflight,
        CAST(size AS TEXT), CAST(sent AS TEXT), CAST(failed AS TEXT), CAST(deferred AS TEXT), CAST(suppressed AS TEXT),
        CAST(uncertain AS TEXT), CAST(expired AS TEXT), CAST(flagged AS TEXT) FROM jobs ORDER BY jobs.id";
const MESSAGES: &str = "SELECT CAST(job_id AS TEXT), CAST(ordinal AS TEXT), status, CAST(attempts AS TEXT),
        CAST(possible_duplicate AS TEXT) FROM messages ORDER BY messages.job_id, messages.ordinal";
const BROADCASTS: &str = "SELECT id, status, CAST(paused AS TEXT), CAST(chunked AS TEXT), CAST(jobs_left AS TEXT)
        FROM broadcasts ORDER BY id";

/// Of many rows, those that differ.
fn same(what: &str, stored: &[String], expected: &[String]) {
    let only = |here: &[String], there: &[String]| -> Vec<String> {
        here.iter().filter(|line| !there.contains(line)).cloned().collect()
    };
    assert_eq!((only(stored, expected), only(expected, stored)), (vec![], vec![]), "{what}: stored, and expected");
    assert_eq!(stored, expected, "the order of {what}");
}

fn job_line(model: &Model, n: usize) -> String {
    let job = &model.jobs[n];
    let stop = match job.stop {
        None => "",
        Some(Stop::Hold) => "hold",
        Some(Stop::Cancel) => "cancel",
    };
    [
        (n + 1).to_string(),
        broadcast_id(job.broadcast as u128 + 1).to_string(),
        job.kind.as_str().to_owned(),
        job.seq.to_string(),
        job.priority.to_string(),
        job.state.as_str().to_owned(),
        at(job.run_at).0.to_string(),
        job.worker.map_or(String::new(), |w| (w + 1).to_string()),
        job.epoch.to_string(),
        job.deaths.to_string(),
        stop.to_owned(),
        serde_json::to_string(&job.inflight).unwrap(),
        job.size.to_string(),
        job.n(MessageStatus::Sent).to_string(),
        job.n(MessageStatus::Failed).to_string(),
        job.n(MessageStatus::Deferred).to_string(),
        job.n(MessageStatus::Suppressed).to_string(),
        job.n(MessageStatus::Uncertain).to_string(),
        job.n(MessageStatus::Expired).to_string(),
        job.flagged.to_string(),
    ]
    .join("|")
}

fn message_lines(model: &Model) -> Vec<String> {
    let of_job = |(n, job): (usize, &super::model::Job)| -> Vec<String> {
        let line = |(ordinal, row): (&u16, &super::model::Row)| {
            format!("{}|{ordinal}|{}|{}|{}", n + 1, row.status, row.tries, u8::from(row.flagged))
        };
        job.rows.iter().map(line).collect()
    };
    model.jobs.iter().enumerate().flat_map(of_job).collect()
}

fn cast_line(model: &Model, n: usize) -> String {
    let cast = &model.casts[n];
    format!(
        "{}|{}|{}|{}|{}",
        broadcast_id(n as u128 + 1),
        cast.stage.as_str(),
        u8::from(cast.paused),
        cast.chunked,
        cast.jobs_left
    )
}
