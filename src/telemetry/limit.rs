//! A limit on lines that repeat: the first ones of a kind are written, the others counted, and the count is a line of its own. In
//! an outage every job, connection and loop has the same to say, many times a second. Never holds back what is said
//! rarely, and nothing below a warning.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Lines of a kind in one window: enough to see whether they differ.
const LINES_MAX: u64 = 2;
/// The first window; each that overflows is followed by one twice as long.
const WINDOW_FIRST: Duration = Duration::from_secs(10);
/// The longest window: somebody who looks in sees within a minute that it goes on.
const WINDOW_MAX: Duration = Duration::from_secs(60);

/// What one place in the program has said.
struct Window {
    since: Instant,
    length: Duration,
    n_lines: u64,
    /// The last line that was not written.
    left_out: Option<(u64, String)>,
    level: Level,
}

/// Counts lines by the place in the program they are from.
#[derive(Default)]
pub struct Limit(Mutex<HashMap<Identifier, Window>>);

/// Lines that were left out.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    n: u64,
    level: Level,
    line: String,
    secs: u64,
}

impl Limit {
    /// Whether a line may be written; `line` is asked for what it says when it may not.
    fn admits(&self, place: Identifier, level: Level, now: Instant, line: impl FnOnce() -> String) -> bool {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(place).or_insert(Window {
            since: now,
            length: WINDOW_FIRST,
            n_lines: 0,
            left_out: None,
            level,
        });
        if now.duration_since(window.since) >= window.length {
            *window = Window {
                since: now,
                length: WINDOW_FIRST,
                n_lines: 0,
                left_out: None,
                level,
            };
        }
        window.n_lines += 1;
        if window.n_lines <= LINES_MAX {
            return true;
        }
        match &mut window.left_out {
            Some((n, _)) => *n += 1,
            none => *none = Some((1, line())),
        }
        false
    }

    /// Takes the counts of windows that are over. What overflowed has a longer window next.
    fn over(&self, now: Instant) -> Vec<LeftOut> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = windows.values_mut().filter(|w| now.duration_since(w.since) >= w.length);
        over.filter_map(|window| {
            let (n, line) = window.left_out.take()?;
            let secs = window.length.as_secs();
            window.since = now;
            window.length = (window.length * 2).min(WINDOW_MAX);
            // The count says that it goes on; one more line of it says how.
            window.n_lines = LINES_MAX - 1;
            Some(LeftOut {
                n,
                level: window.level,
                line,
                secs,
            })
        })
        .collect()
    }
}

/// A format with the limit before it.
pub struct Limited<F> {
    pub format: F,
    pub limit: Limit,
    pub is_json: bool,
}

impl<F> Limited<F> {
    fn write(&self, writer: &mut Writer<'_>, left_out: &LeftOut) -> fmt::Result {
        let LeftOut { n, level, line, secs } = left_out;
        let text = format!("{n} more of these were left out in {secs} s: {line}");
        if !self.is_json {
            SystemTime.format_time(writer)?;
            return writeln!(writer, " {level:>5} hikyaku: {text}");
        }
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let (time, text) = (serde_json::Value::from(time), serde_json::Value::from(text));
        writeln!(
            writer,
            r#"{{"timestamp":{time},"level":"{level}","message":{text},"left_out":{n},"target":"hikyaku"}}"#
        )
    }
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let now = Instant::now();
        for left_out in self.limit.over(now) {
            self.write(&mut writer, &left_out)?;
        }
        let metadata = event.metadata();
        let admitted = *metadata.level() > Level::WARN
            || self
                .limit
                .admits(metadata.callsite(), *metadata.level(), now, || Line::of(event));
        if admitted {
            self.format.format_event(context, writer, event)
        } else {
            Ok(())
        }
    }
}

/// What an event says, without its place and time.
struct Line(String);

impl Line {
    fn of(event: &Event<'_>) -> String {
        let mut line = Self(String::new());
        event.record(&mut line);
        line.0.trim_start().to_owned()
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0.insert_str(0, &format!("{value:?}"));
        } else {
            self.0.push_str(&format!(" {}={value:?}", field.name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;

    use super::*;

    fn place() -> Identifier {
        struct Here;
        impl tracing::Callsite for Here {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &tracing::Metadata<'_> {
                unreachable!("nobody asks")
            }
        }
        static HERE: Here = Here;
        Identifier(&HERE)
    }

    /// Two minutes without a database: twenty lines a second from one place.
    #[test]
    fn an_outage_is_told_in_a_handful_of_lines_and_none_is_uncounted() {
        let (limit, start) = (Limit::default(), Instant::now());
        let (mut written, mut counted, mut counts) = (0, 0, 0);
        for n in 0..2_400_u64 {
            let now = start + Duration::from_millis(n * 50);
            for left_out in limit.over(now) {
                counted += left_out.n;
                counts += 1;
            }
            written += u64::from(limit.admits(place(), Level::WARN, now, || "away".to_owned()));
        }
        for left_out in limit.over(start + Duration::from_secs(600)) {
            counted += left_out.n;
            counts += 1;
        }
        assert_eq!(written + counted, 2_400);
        assert!(written + counts <= 12, "{written} lines and {counts} counts");
    }

    #[test]
    fn what_is_said_rarely_is_always_written() {
        let (limit, start) = (Limit::default(), Instant::now());
        for n in 0..100 {
            let now = start + Duration::from_secs(n * 6);
            assert!(limit.over(now).is_empty());
            assert!(limit.admits(place(), Level::ERROR, now, String::new), "line {n}");
        }
    }

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_repeats_is_written_twice_and_an_information_always() {
        let paper = Paper::default();
        let to = paper.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .map_event_format(|format| Limited {
                format,
                limit: Limit::default(),
                is_json: false,
            })
            .with_writer(move || to.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..50 {
                tracing::warn!(n, "The database is away");
                tracing::info!(n, "Something else");
            }
        });
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("The database is away").count(), 2, "{text}");
        assert_eq!(text.matches("Something else").count(), 50);
    }

    #[test]
    fn a_count_says_what_it_counts_in_both_formats() {
        let left_out = LeftOut {
            n: 7,
            level: Level::WARN,
            line: "A \"job\" waits error=away".to_owned(),
            secs: 10,
        };
        let write = |is_json| {
            let mut text = String::new();
            let limited = Limited {
                format: (),
                limit: Limit::default(),
                is_json,
            };
            limited.write(&mut Writer::new(&mut text), &left_out).unwrap();
            text
        };
        assert!(
            write(false).contains("WARN hikyaku: 7 more of these were left out in 10 s: A \"job\" waits error=away")
        );
        let json: serde_json::Value = serde_json::from_str(&write(true)).unwrap();
        assert_eq!(json["left_out"], 7);
        assert_eq!(json["level"], "WARN");
    }
}
