//! Logging: one subscriber, set up once, that writes to standard error. Never decides what is worth a line, and never touches
//! standard output, which belongs to the results of commands.

mod limit;

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use self::limit::{Limit, Limited};
use crate::config::{Log, LogFormat};

/// Starts logging for the whole process.
///
/// # Errors
/// [`TelemetryError::Filter`] when the filter cannot be read, [`TelemetryError::Twice`] when logging was started before.
pub fn init(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&log.filter).map_err(TelemetryError::Filter)?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Stderr);
    match log.format {
        LogFormat::Text => subscriber
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .map_event_format(|format| Limited {
                format,
                limit: Limit::default(),
                is_json: false,
            })
            .finish()
            .try_init(),
        LogFormat::Json => subscriber
            .json()
            .flatten_event(true)
            .map_event_format(|format| Limited {
                format,
                limit: Limit::default(),
                is_json: true,
            })
            .finish()
            .try_init(),
    }
    .map_err(TelemetryError::Twice)
}

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log.filter (HIKYAKU_LOG) is not a filter, such as info or info,hikyaku::smtp=debug")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    #[error("logging was started twice")]
    Twice(#[source] TryInitError),
}

/// Standard error that may be gone. A line that cannot be written is dropped: who closed the terminal must not stop the mail, and
/// the ordinary answer, to complain on standard error, would panic there. Each line goes out in one write, so that lines
/// of several threads do not mix.
#[derive(Clone, Copy)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Either written or dropped, the line is done with.
        drop(io::stderr().write_all(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_told_by_the_name_of_its_setting() {
        let log = Log {
            filter: "hikyaku=debgu".into(),
            format: LogFormat::Text,
        };
        let e = init(&log).unwrap_err().to_string();
        assert!(e.contains("HIKYAKU_LOG"), "{e}");
    }
}
