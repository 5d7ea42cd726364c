//! What a test tries out on a connection of its own: a command ahead of the reply to an end of data, and how many messages a session
//! takes. Never used for anybody's mail but the test's.

use tokio::io::{AsyncRead, AsyncWrite};

use super::super::failure::{Failure, Stage};
use super::super::reply::Reply;
use super::flight::{Flights, Sign};
use super::{Connection, Envelope};

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// What the relay announces and what matters here, as it is written in the answer to EHLO.
    #[must_use]
    pub fn announced(&self) -> Vec<String> {
        let offers = &self.offers;
        let size = offers.size.map(|size| match size {
            usize::MAX => "SIZE".to_owned(),
            size => format!("SIZE {size}"),
        });
        let words = [
            offers.pipelining.then(|| "PIPELINING".to_owned()),
            offers.chunking.then(|| "CHUNKING".to_owned()),
            size,
            offers.smtputf8.then(|| "SMTPUTF8".to_owned()),
            offers.dsn.then(|| "DSN".to_owned()),
            offers.mail_max.map(|n| format!("LIMITS MAILMAX={n}")),
        ];
        words.into_iter().flatten().collect()
    }

    /// As [`Connection::finish`], with a harmless RSET written ahead where PIPELINING is announced; [`Connection::take_sign`] tells how it
    /// was taken.
    ///
    /// # Errors
    /// As [`Connection::finish`].
    ///
    /// # Panics
    /// When no message was begun.
    pub async fn finish_with_reset_ahead(&mut self, body: &[u8]) -> Result<Reply, Failure> {
        if !self.pipelining {
            return self.finish(body, None).await;
        }
        assert!(self.awaits_content, "no message was begun");
        self.awaits_content = false;
        self.flights = Flights::Trial;
        let verdict = self.end_data(body, Some(super::Behind::Reset)).await;
        self.sign = match &verdict {
            Err(failure) if failure.end_of_data_written && self.is_dead => {
                Some(Sign::Unanswered(format!("{}, in reply to the end of data", failure.cause)))
            }
            Err(failure) if !failure.end_of_data_written => None,
            _ => Some(self.sign_of_reset().await),
        };
        verdict
    }

    /// Begins messages and forgets them, until the relay refuses one or there were `n_max`. Returns how many it let begin, and the
    /// refusal.
    pub async fn begin_and_forget(&mut self, envelope: &Envelope, n_max: u32) -> (u32, Option<Failure>) {
        for n in 0..n_max {
            if let Err(failure) = self.begin_one(envelope).await {
                return (n, Some(failure));
            }
        }
        (n_max, None)
    }

    async fn begin_one(&mut self, envelope: &Envelope) -> Result<(), Failure> {
        self.blank();
        self.push_mail(envelope, 1_000);
        self.flush(Stage::Mail).await?;
        let reply = self.read(Stage::Mail).await?;
        self.positive(Stage::Mail, reply)?;
        self.reset().await
    }
}
