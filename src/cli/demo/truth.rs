//! The demo's account: what was recorded, counted anew from the rows, and held against what the relay itself counted. Reports;
//! never corrects anything.

use crate::app::App;
use crate::cli::exit::Failed;
use crate::cli::terminal::number;
use crate::cli::view::View;
use crate::domain::counts::Counts;
use crate::domain::id::BroadcastId;
use crate::sink::SinkStats;

/// One comparison.
pub struct Check {
    pub agrees: bool,
    pub what: &'static str,
    pub text: String,
}

/// All comparisons for a broadcast that has ended and was meant for `expected` recipients.
///
/// # Errors
/// When the database cannot be asked.
pub async fn checks(app: &App, view: &View, expected: i64) -> Result<Vec<Check>, Failed> {
    let id: BroadcastId = view.id.parse().map_err(Failed::here)?;
    let recount = app.store().recount(&id).await?;
    let relay = app.capture().map(|capture| capture.sink().stats()).unwrap_or_default();
    Ok(vec![
        conservation(view, expected),
        rows(&view.counts, &recount),
        capture(&view.counts, &relay),
    ])
}

fn conservation(view: &View, expected: i64) -> Check {
    let agrees = view.counts.total() == expected && view.counts.sent == expected;
    let text = match agrees {
        true => view.conservation(),
        false => format!("{}, but the newsletter was for {}", view.conservation(), number(expected)),
    };
    Check {
        agrees,
        what: "conservation",
        text,
    }
}

fn rows(counts: &Counts, recount: &Counts) -> Check {
    let agrees = counts == recount;
    let text = match agrees {
        true => "the same counts, added up again from every single row".to_owned(),
        false => format!("added up again from the rows: {recount:?}; the counters say {counts:?}"),
    };
    Check {
        agrees,
        what: "rows",
        text,
    }
}

/// The relay knows nothing of our counting, so it is the witness.
fn capture(counts: &Counts, relay: &SinkStats) -> Check {
    let taken = relay.accepted + relay.taken_unanswered;
    let agrees = i64::try_from(taken) == Ok(counts.sent);
    let text = match agrees {
        true => format!("{} messages taken by the relay, as it counted itself", number(taken as i64)),
        false => format!(
            "{} messages taken by the relay, but {} recorded as sent",
            number(taken as i64),
            number(counts.sent)
        ),
    };
    Check {
        agrees,
        what: "relay",
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_more_at_the_relay_is_noticed() {
        let counts = Counts {
            sent: 5,
            ..Counts::default()
        };
        let stats = |accepted| SinkStats {
            accepted,
            ..SinkStats::default()
        };
        assert!(capture(&counts, &stats(5)).agrees);
        assert!(!capture(&counts, &stats(6)).agrees && !capture(&counts, &stats(4)).agrees);
    }
}
