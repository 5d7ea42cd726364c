//! How a command ends: the exit codes, and the one sentence that is said when it did not do what it was asked. Never a backtrace.

use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::store::StoreError;

/// The exit codes, which scripts rely on. `hikyaku --help` lists them with the same words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done as asked.
    Done,
    /// Something failed on this side: the database, a file, a check of `doctor` or of `demo`.
    Failed,
    /// The command line or the configuration is wrong; nothing was done.
    Usage,
    /// The server refused the request, or the recipients' file cannot be read; nothing is sent.
    Refused,
    /// The broadcast has ended, and not every message was sent.
    NotAllSent,
    /// The server cannot be reached or is not available; the same command may be tried again.
    Unavailable,
    /// The database is no longer this program's: it needs a newer version, or was moved.
    Aside,
    /// Interrupted by Ctrl-C: 128 and the signal's number, as shells have it.
    Interrupted,
}

impl Exit {
    /// Every code with its meaning, for the help.
    pub const ALL: [(Exit, &str); 8] = [
        (Exit::Done, "done as asked"),
        (Exit::Failed, "failed here: the database, a file, a check of doctor or demo"),
        (Exit::Usage, "command line or configuration are wrong; nothing was done"),
        (Exit::Refused, "refused by the server, or recipients unreadable; nothing is sent"),
        (Exit::NotAllSent, "the broadcast has ended, and not every message was sent"),
        (Exit::Unavailable, "the server cannot be reached or is not available; try again"),
        (Exit::Aside, "the database needs a newer version of this program, or was moved"),
        (Exit::Interrupted, "interrupted by Ctrl-C (143 by SIGTERM)"),
    ];

    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Refused => 3,
            Exit::NotAllSent => 4,
            Exit::Unavailable => 5,
            Exit::Aside => 6,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// Why a command could not do what it was asked: the code, and what the person reads.
#[derive(Debug)]
pub struct Failed {
    pub exit: Exit,
    /// What is wrong and what to do about it; more lines may follow the first.
    pub message: String,
}

/// What every command returns.
pub type Outcome = Result<Exit, Failed>;

impl Failed {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { exit, message }
    }

    /// The command line or the configuration is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Something failed on this side.
    pub fn here(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ConfigError> for Failed {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        let fix = match &error {
            StoreError::Unavailable(_) => "; `hikyaku doctor` says what is missing",
            StoreError::Full(_) => "; make room on its disk",
            StoreError::Contended => "; try again",
            _ => "",
        };
        let exit = match error {
            StoreError::Aside(_) => Exit::Aside,
            _ => Exit::Failed,
        };
        Self::new(exit, format!("{error}{fix}"))
    }
}

impl From<anyhow::Error> for Failed {
    /// The whole chain in one line: `{:#}` joins the causes with colons.
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<ConfigError>() {
            Ok(config) => config.into(),
            Err(error) => match error.chain().find_map(|cause| cause.downcast_ref::<StoreError>()) {
                Some(StoreError::Aside(why)) => Self::new(Exit::Aside, why.clone()),
                _ => Self::here(format!("{error:#}")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_another_one_and_is_explained() {
        let codes: std::collections::BTreeSet<u8> = Exit::ALL.iter().map(|(exit, _)| exit.code()).collect();
        assert_eq!(codes.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 130]);
    }
}
