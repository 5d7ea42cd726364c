//! The steps of a transaction: what is written, which replies are due, and which of them fit.
//! Never decides whether another message follows.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::super::body::append_data;
use super::super::failure::{Cause, Failure, Stage};
use super::super::open::accepted;
use super::super::reply::Reply;
use super::{Behind, Connection, Envelope, Wording};

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Writes the commands that were put together. A reply that lies here already would be taken for
    /// the answer to them, so there must be none.
    pub(super) async fn flush(&mut self, stage: Stage) -> Result<(), Failure> {
        let silence = self.wire.expect_silence().await;
        silence.map_err(|cause| self.fail(stage, cause))?;
        let written = self.wire.write(&self.out, self.timeouts.block).await;
        match written {
            Ok(()) => Ok(()),
            Err(not) => {
                self.is_dead = true;
                Err(Failure::new(stage, self.why(not.cause).await))
            }
        }
    }

    /// Why not everything was written. A relay that closes says so in its last reply, if at all; one that is out of step is not
    /// believed.
    pub(super) async fn why(&mut self, cause: Cause) -> Cause {
        match cause {
            Cause::Desync(_) | Cause::Reply(_) => cause,
            _ => self.wire.last_words().await.map_or(cause, Cause::Reply),
        }
    }

    pub(super) fn push_reset(&mut self) {
        self.out.extend_from_slice(b"RSET\r\n");
        self.expect_reply();
    }

    pub(super) async fn read_reset(&mut self) -> Result<(), Failure> {
        self.needs_rset = false;
        let reply = self.wire.reply(self.limit(Stage::Reset)).await;
        reply.and_then(accepted).map(drop).map_err(|cause| {
            // A relay that refuses RSET cannot be put in order again.
            self.is_dead = true;
            Failure::new(Stage::Reset, cause)
        })
    }

    pub(super) async fn begin_one_by_one(&mut self, envelope: &Envelope, size: usize) -> Result<(), Failure> {
        if self.needs_rset {
            self.reset().await?;
        }
        self.blank();
        self.push_mail(envelope, size);
        self.flush(Stage::Mail).await?;
        let mail = self.read(Stage::Mail).await?;
        let mail = self.positive(Stage::Mail, mail)?;

        self.blank();
        self.push_rcpt(envelope);
        self.flush(Stage::Rcpt).await?;
        // From here on the relay holds half a transaction.
        self.needs_rset = true;
        let rcpt = self.read(Stage::Rcpt).await?;
        let rcpt = self.positive(Stage::Rcpt, rcpt)?;

        self.blank();
        self.out.extend_from_slice(b"DATA\r\n");
        self.flush(Stage::Data).await?;
        let data = self.read(Stage::Data).await?;
        self.go_ahead(data)?;
        self.answers = Some((mail, rcpt));
        Ok(())
    }

    /// Reads the replies to a pipelined MAIL, RCPT, DATA; `is_flight` when they were written ahead of a reply to an end of data. Then a
    /// relay may refuse them for that, one by one, and is in step.
    pub(super) async fn read_group(&mut self, is_flight: bool) -> Result<(), Failure> {
        point!("mail-written");
        self.needs_rset = false;
        if is_flight {
            let reset = self.read(Stage::Reset).await?;
            // A relay without RSET may do without it.
            if !reset.is_positive() && !reset.is_refusal() {
                return Err(self.out_of_step(Stage::Reset, reset.code));
            }
        }
        let mail = self.read(Stage::Mail).await?;
        let mail = match mail.code {
            503 if is_flight => Err(Failure::new(Stage::Mail, Cause::Reply(mail))),
            _ => self.positive(Stage::Mail, mail),
        };
        let mail = match mail {
            Ok(mail) => mail,
            Err(refused) => return Err(self.read_rest_after(refused).await),
        };
        let rcpt = self.read(Stage::Rcpt).await?;
        self.needs_rset = true;
        let rcpt = match self.positive(Stage::Rcpt, rcpt) {
            Ok(rcpt) => rcpt,
            Err(refused) => return Err(self.read_rest_after(refused).await),
        };
        let data = self.read(Stage::Data).await?;
        if let Err(refused) = self.go_ahead(data) {
            return Err(self.end_of_group(refused));
        }
        point!("data-accepted");
        self.answers = Some((mail, rcpt));
        Ok(())
    }

    /// Behind the last reply of a group that was refused there may be a goodbye, and nothing else: with a reply too many the refusal
    /// was not the answer that it seemed to be.
    fn end_of_group(&mut self, refused: Failure) -> Failure {
        if self.is_dead || self.wire.is_quiet() {
            return refused;
        }
        self.is_dead = true;
        match self.wire.take_reply() {
            Ok(Some(goodbye)) if goodbye.is_closing() && self.wire.is_quiet() => refused,
            _ => Failure::new(refused.stage, Cause::Desync("more replies than commands".into())),
        }
    }

    /// The rest of a group in which MAIL or RCPT was refused. What comes must be refusals too, except
    /// that some relays answer DATA with 354 even so: a lone dot ends the empty content and its
    /// reply means nothing (RFC 2920 3.1). Returns what is to be told of the message.
    async fn read_rest_after(&mut self, refused: Failure) -> Failure {
        if self.is_dead {
            return refused;
        }
        if refused.stage == Stage::Mail {
            match self.read(Stage::Rcpt).await {
                Ok(reply) if reply.is_refusal() => {}
                Ok(reply) => return self.out_of_step(Stage::Rcpt, reply.code),
                Err(failure) => return worst(refused, failure),
            }
        }
        match self.read(Stage::Data).await {
            Ok(reply) if reply.is_refusal() => return self.end_of_group(refused),
            Ok(reply) if reply.is_positive() => return self.out_of_step(Stage::Data, reply.code),
            Ok(_go_ahead) => {}
            Err(failure) => return worst(refused, failure),
        }
        self.blank();
        self.out.extend_from_slice(b".\r\n");
        let ended = match self.flush(Stage::FinalDot).await {
            Ok(()) => self.read(Stage::FinalDot).await,
            Err(failure) => Err(failure),
        };
        self.needs_rset = false;
        match ended {
            Ok(reply) if reply.digit() != 3 => refused,
            Ok(reply) => self.out_of_step(Stage::FinalDot, reply.code),
            Err(failure) => worst(refused, failure),
        }
    }

    /// Writes content, end of data and perhaps the next envelope; reads the verdict.
    pub(super) async fn end_data(&mut self, body: &[u8], behind: Option<Behind<'_>>) -> Result<Reply, Failure> {
        // A reply that lies here already would be taken for the verdict.
        if let Err(cause) = self.wire.expect_silence().await {
            return Err(self.fail(Stage::Body, cause));
        }
        self.blank();
        append_data(&mut self.out, body);
        self.expect_reply();
        let end_of_data = self.out.len();
        let more_to_come = behind.is_some();
        match behind {
            None => {}
            Some(Behind::Message(envelope, size)) => {
                self.push_reset();
                self.push_envelope(envelope, size);
            }
            Some(Behind::Reset) => self.push_reset(),
        }
        let limits = &self.timeouts;
        point!("mid-body", {
            drop(self.wire.write(&self.out[..end_of_data / 2], limits.block).await);
        });
        let (block, content) = (limits.block, limits.content);
        if let Err(not) = self.wire.write_and_listen(&self.out, &self.due, block, content).await {
            self.is_dead = true;
            if not.out_at_most < end_of_data {
                return Err(Failure::new(Stage::Body, self.why(not.cause).await));
            }
            if let Cause::Desync(_) = not.cause {
                return Err(after_end_of_data(not.cause));
            }
            // The end of data is out and only something behind it is not: the verdict may still come.
        }
        point!("end-of-data-written");
        let reply = self.wire.reply(self.timeouts.final_dot).await;
        point!("verdict-read");
        self.judge_final(reply, more_to_come).map_err(|cause| {
            self.is_dead |= !matches!(&cause, Cause::Reply(reply) if !reply.is_closing());
            after_end_of_data(cause)
        })
    }

    fn judge_final(&mut self, reply: Result<Reply, Cause>, more_to_come: bool) -> Result<Reply, Cause> {
        let reply = accepted(reply?)?;
        self.n_sent += 1;
        self.learn(&reply);
        // Behind it there may be a goodbye, which is in step. Whatever it is, the next reply would not be the one that is due.
        self.is_dead |= !more_to_come && !self.wire.is_quiet();
        Ok(reply)
    }

    /// Whether verdicts can be told from other replies, without which there is no CHUNKING.
    fn learn(&mut self, verdict: &Reply) {
        if let Some((mail, rcpt)) = self
            .answers
            .take()
            .filter(|_| self.chunking > 0 && self.wording.is_none())
        {
            self.wording = Wording::learn(&mail, &rcpt, verdict);
            if self.wording.is_none() {
                self.chunking = 0;
            }
        }
    }

    pub(super) fn limit(&self, stage: Stage) -> Duration {
        let limit = match stage {
            Stage::Mail => self.timeouts.mail,
            Stage::Rcpt => self.timeouts.rcpt,
            Stage::Data => self.timeouts.data,
            Stage::Reset => self.timeouts.rset,
            _ => self.timeouts.final_dot,
        };
        self.patience.map_or(limit, |patience| limit.min(patience))
    }

    /// Reads one reply. A 421 or no reply at all is the end of the connection.
    pub(super) async fn read(&mut self, stage: Stage) -> Result<Reply, Failure> {
        match self.wire.reply(self.limit(stage)).await {
            Ok(reply) if reply.is_closing() => Err(self.fail(stage, Cause::Reply(reply))),
            Ok(reply) => Ok(reply),
            Err(cause) => Err(self.fail(stage, cause)),
        }
    }

    /// A reply to MAIL or RCPT that lets us go on.
    pub(super) fn positive(&mut self, stage: Stage, reply: Reply) -> Result<Reply, Failure> {
        match reply.digit() {
            2 => Ok(reply),
            _ if reply.digit() == 3 || reply.code == 503 => Err(self.out_of_step(stage, reply.code)),
            _ => Err(Failure::new(stage, Cause::Reply(reply))),
        }
    }

    /// A reply to DATA that lets us go on.
    fn go_ahead(&mut self, reply: Reply) -> Result<(), Failure> {
        match reply.digit() {
            3 => {
                self.needs_rset = false;
                self.awaits_content = true;
                Ok(())
            }
            _ if reply.digit() == 2 || reply.code == 503 => Err(self.out_of_step(Stage::Data, reply.code)),
            _ => Err(Failure::new(Stage::Data, Cause::Reply(reply))),
        }
    }

    fn out_of_step(&mut self, stage: Stage, code: u16) -> Failure {
        self.fail(stage, Cause::Desync(format!("{code} to {stage}")))
    }

    /// A failure after which nothing more can be done on the connection.
    pub(super) fn fail(&mut self, stage: Stage, cause: Cause) -> Failure {
        self.is_dead = true;
        Failure::new(stage, cause)
    }
}

pub(super) fn after_end_of_data(cause: Cause) -> Failure {
    Failure {
        stage: Stage::FinalDot,
        cause,
        end_of_data_written: true,
    }
}

/// A refusal stays what it is when the connection ends after it, but not when its replies turn out
/// not to fit: then it may have been meant for something else.
fn worst(refused: Failure, then: Failure) -> Failure {
    match then.cause {
        Cause::Desync(_) => then,
        _ => refused,
    }
}
