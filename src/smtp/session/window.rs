//! CHUNKING (RFC 3030): several messages in flight on one connection. All of a window goes out in one write, each message as MAIL, RCPT
//! and `BDAT size LAST`; then the replies are read, and each message's own replies decide what became of it.
//!
//! A verdict that was read in its order is final. A reply that does not fit ends the window: the message at hand and those behind it
//! stay without an answer, and a refusal that was the last reply of a window counts once the answer to RSET has shown that nothing
//! else was on its way.

use std::ops::Range;

use tokio::io::{AsyncRead, AsyncWrite};

use super::super::body::append_chunk;
use super::super::failure::{Cause, Failure, Stage};
use super::super::reply::{Enhanced, Reply};
use super::flight::{Flights, Sign, is_unwelcome};
use super::steps::after_end_of_data;
use super::{Connection, Mail};

/// How the relay words its replies, learnt from a message that went with DATA.
///
/// The 354 between RCPT and the verdict keeps DATA in step: a surplus reply is noticed there. With BDAT all replies are 250, and one too
/// many would have the answer to RCPT taken for the verdict. So the first message of each connection goes with DATA, and BDAT
/// is used only where a verdict can be told from the answer to RCPT by its enhanced code or its first word.
#[derive(Debug)]
pub(super) struct Wording {
    verdict: Mark,
    /// Replies that are no verdict.
    others: Vec<Mark>,
}

/// What is alike in a relay's replies to the same command.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    enhanced: Option<Enhanced>,
    /// `None` where it is an address, and so another one each time.
    word: Option<String>,
}

impl Mark {
    fn of(reply: &Reply) -> Self {
        let word = reply.text.split_whitespace().next().filter(|w| !w.contains(['@', '<']));
        Self {
            enhanced: reply.enhanced,
            word: word.map(str::to_ascii_lowercase),
        }
    }
}

impl Wording {
    /// `None` when the relay's verdict reads like its answer to RCPT.
    pub(super) fn learn(mail: &Reply, rcpt: &Reply, verdict: &Reply) -> Option<Self> {
        let (mail, rcpt, verdict) = (Mark::of(mail), Mark::of(rcpt), Mark::of(verdict));
        let can_tell = rcpt != verdict;
        can_tell.then(|| Self {
            others: [mail, rcpt].into_iter().filter(|other| *other != verdict).collect(),
            verdict,
        })
    }

    fn may_be_verdict(&self, reply: &Reply) -> bool {
        self.verdict == Mark::of(reply)
    }

    fn is_no_verdict(&self, reply: &Reply) -> bool {
        self.others.contains(&Mark::of(reply))
    }
}

/// One message of a window on its way.
struct Sent {
    /// Its bytes within the write.
    extent: Range<usize>,
    has_rset: bool,
}

/// Why no more replies are read.
struct Break {
    cause: Cause,
    /// The refusal that the message at hand had met before.
    refused: Option<Failure>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Hands over a window of at most [`Connection::window`] messages; the verdicts come in their order. A message that the relay
    /// had not heard of when the connection ended fails at `Mail`.
    pub(super) async fn send_window(&mut self, load: &[Mail<'_>]) -> Vec<Result<Reply, Failure>> {
        self.blank();
        let sent: Vec<Result<Sent, Failure>> = load.iter().map(|mail| self.push_whole(mail)).collect();
        if self.is_on_trial() && !self.out.is_empty() {
            self.push_reset();
        }
        if self.out.is_empty() {
            return sent
                .into_iter()
                .map(|not| Err(not.err().expect("nothing was put together")))
                .collect();
        }
        let (out_at_most, cause) = match self.write_window().await {
            Ok(()) => (self.out.len(), Cause::Closed),
            Err(not) => not,
        };
        let n_out = sent.iter().flatten().filter(|s| s.extent.end <= out_at_most).count();
        let cause = match n_out {
            0 if out_at_most > 0 => self.why(cause).await,
            _ => cause,
        };
        let mut replies = match &cause {
            // What was answered before may have been answered one too early.
            Cause::Desync(_) => vec![Err(after_end_of_data(cause.clone())); n_out],
            _ => {
                let out: Vec<&Sent> = sent.iter().flatten().take(n_out).collect();
                // Of a message that is out in part some commands may be answered, too.
                let end = out.last().map_or(0, |s| s.extent.end);
                let n_more = self.due.iter().filter(|&&d| end < d && d <= out_at_most).count();
                self.read_window(out, n_more).await
            }
        }
        .into_iter();
        let verdict = |sent: Sent| match replies.next() {
            Some(verdict) => verdict,
            None if sent.extent.start >= out_at_most => Err(Failure::new(Stage::Mail, cause.clone())),
            None => Err(Failure::new(Stage::Body, cause.clone())),
        };
        let mut verdict = verdict;
        let is_flight = self.is_on_trial() || n_out > 1;
        let verdicts: Vec<_> = sent.into_iter().map(|s| s.and_then(&mut verdict)).collect();
        if is_flight && self.sign.is_none() {
            self.sign = self.sign_of_window(&verdicts).await;
        }
        verdicts
    }

    /// Whether a window is one message with a command behind it, so that no more than one may be in doubt if the relay does not like it.
    fn is_on_trial(&self) -> bool {
        self.windows == Flights::Trial
    }

    /// What the relay's replies say about a window. On trial the reply to the command behind it is still to be read.
    async fn sign_of_window(&mut self, verdicts: &[Result<Reply, Failure>]) -> Option<Sign> {
        let is_unknown = |f: &&Failure| f.end_of_data_written && !matches!(f.cause, Cause::Reply(_));
        let failures = |skip| verdicts.iter().skip(skip).filter_map(|v| v.as_ref().err());
        if let Some(lost) = failures(0).find(is_unknown) {
            return Some(Sign::Unanswered(format!("{}, in reply to the end of data", lost.cause)));
        }
        let refusal = |f: &Failure| match &f.cause {
            Cause::Reply(reply) if f.stage == Stage::Mail && is_unwelcome(reply) => Some(reply.to_string()),
            _ => None,
        };
        // Before the first of them nothing was written ahead.
        if let Some(words) = failures(1).find_map(refusal) {
            return Some(Sign::Refused(words));
        }
        if !self.is_on_trial() {
            return None;
        }
        Some(self.sign_of_reset().await)
    }

    /// Puts one message together, unless it cannot be sent here.
    fn push_whole(&mut self, mail: &Mail<'_>) -> Result<Sent, Failure> {
        self.check_usable()?;
        self.check_offers(mail.envelope, mail.body.len())?;
        let start = self.out.len();
        // After a recipient was refused some relays keep the transaction open, and nobody knows yet whether one will be.
        let has_rset = start > 0 || self.needs_rset;
        if has_rset {
            self.push_reset();
        }
        self.push_mail(mail.envelope, mail.body.len());
        self.push_rcpt(mail.envelope);
        append_chunk(&mut self.out, mail.body);
        self.expect_reply();
        self.n_begun += 1;
        let extent = start..self.out.len();
        Ok(Sent { extent, has_rset })
    }

    /// On failure: how many bytes may have left at most, and why not all.
    async fn write_window(&mut self) -> Result<(), (usize, Cause)> {
        if let Err(cause) = self.wire.expect_silence().await {
            self.is_dead = true;
            return Err((0, cause));
        }
        let (block, content) = (self.timeouts.block, self.timeouts.content);
        let written = self.wire.write_and_listen(&self.out, &self.due, block, content).await;
        written.map_err(|not| {
            self.is_dead = true;
            (not.out_at_most, not.cause)
        })
    }

    /// Reads the replies to messages that are out, all of them; `n_more` commands behind them are out as well.
    async fn read_window(&mut self, sent: Vec<&Sent>, n_more: usize) -> Vec<Result<Reply, Failure>> {
        let mut verdicts = Vec::new();
        let mut goodbye: Option<Reply> = None;
        let mut broken: Option<Cause> = None;
        for message in sent {
            verdicts.push(match &broken {
                Some(cause) => Err(lost(cause, goodbye.as_ref())),
                None => match self.read_transaction(message, &mut goodbye).await {
                    Ok(verdict) => verdict,
                    Err(Break { cause, refused }) => {
                        self.is_dead = true;
                        let verdict = refused.unwrap_or_else(|| lost(&cause, goodbye.as_ref()));
                        broken = Some(cause);
                        Err(verdict)
                    }
                },
            });
        }
        if broken.is_none() && !self.is_on_trial() {
            self.end_window(&mut verdicts, n_more).await;
        }
        self.n_sent += verdicts.iter().flatten().count() as u32;
        verdicts
    }

    /// Behind the last verdict there is nothing, or a goodbye; else the connection is of no use any more. A last refusal of content is
    /// only known to be in order when nothing else was on its way.
    async fn end_window(&mut self, verdicts: &mut [Result<Reply, Failure>], n_more: usize) {
        let Some(last) = verdicts.last_mut() else { return };
        let is_refused = matches!(last, Err(failure) if failure.end_of_data_written);
        if is_refused && !self.is_dead {
            if let Err(Cause::Desync(what)) = self.confirm_refusal().await {
                self.is_dead = true;
                *last = Err(after_end_of_data(Cause::Desync(what)));
            }
        } else if n_more > 0 {
            self.is_dead |= self.wire.check_turn(n_more).is_err();
        } else {
            self.is_dead |= self.wire.expect_silence().await.is_err();
        }
    }

    /// The replies to one message. `Ok` holds its verdict; a relay that said goodbye may still go on.
    async fn read_transaction(
        &mut self,
        message: &Sent,
        goodbye: &mut Option<Reply>,
    ) -> Result<Result<Reply, Failure>, Break> {
        let mut refused: Option<Failure> = None;
        let rset = message.has_rset.then_some(Stage::Reset);
        for stage in rset.into_iter().chain([Stage::Mail, Stage::Rcpt, Stage::FinalDot]) {
            // Whoever said goodbye has nothing to think about.
            let limit = if goodbye.is_some() {
                self.timeouts.quit
            } else {
                self.limit(stage)
            };
            let reply = match self.wire.reply(limit).await {
                Ok(reply) => reply,
                Err(cause) => return Err(Break { cause, refused }),
            };
            if reply.is_closing() {
                self.is_dead = true;
                goodbye.get_or_insert_with(|| reply.clone());
            }
            if let Err(what) = self.fits(stage, &reply, refused.is_some()) {
                let cause = Cause::Desync(what);
                return Err(Break { cause, refused: None });
            }
            if stage == Stage::FinalDot && refused.is_none() && is_unknown_command(&reply) {
                return Ok(Err(self.forgo_chunking(reply)));
            }
            self.needs_rset = !reply.is_positive();
            match reply.is_positive() {
                true if stage == Stage::FinalDot => return Ok(Ok(reply)),
                true => {}
                // A relay without RSET may do without it.
                false if stage == Stage::Reset && !reply.is_closing() => {}
                false => drop(refused.get_or_insert_with(|| refusal(stage, reply))),
            }
        }
        Ok(Err(refused.expect("the last reply was a verdict or a refusal")))
    }

    /// The relay announced CHUNKING and does not know BDAT: it takes the content for commands, and has not seen a message.
    fn forgo_chunking(&mut self, reply: Reply) -> Failure {
        self.is_dead = true;
        self.sign = Some(Sign::Refused(reply.to_string()));
        Failure::new(Stage::Mail, Cause::Reply(reply))
    }

    /// Whether this reply can be the answer to this command.
    fn fits(&self, stage: Stage, reply: &Reply, is_refused: bool) -> Result<(), String> {
        let is_odd = match reply.digit() {
            // After a refusal nothing of the message may be taken any more.
            2 if is_refused => true,
            2 => stage == Stage::FinalDot && self.wording.as_ref().is_some_and(|w| w.is_no_verdict(reply)),
            3 => true,
            _ => false,
        };
        match is_odd {
            true => Err(format!("{} to {stage}", reply.code)),
            false => Ok(()),
        }
    }

    /// A refusal of content as the last reply of a window may be a stray one, with the verdict still on its way: what follows in a
    /// window shows that, and behind the last message nothing follows. So RSET, which is due after a refusal anyway, goes at once.
    /// Where its answer could be a verdict too, a goodbye shows how many replies there were: the connection is lost, and no truth.
    async fn confirm_refusal(&mut self) -> Result<(), Cause> {
        self.blank();
        self.out.extend_from_slice(b"RSET\r\n");
        if let Err(failure) = self.flush(Stage::Reset).await {
            return desync_only(failure.cause);
        }
        let answer = match self.wire.reply(self.timeouts.rset).await {
            Ok(answer) => answer,
            Err(cause) => {
                self.is_dead = true;
                return desync_only(cause);
            }
        };
        let may_be_verdict = self.wording.as_ref().is_none_or(|w| w.may_be_verdict(&answer));
        if answer.is_positive() && !may_be_verdict {
            self.needs_rset = false;
            let silence = self.wire.expect_silence().await;
            self.is_dead |= silence.is_err();
            return silence.or_else(desync_only);
        }
        self.is_dead = true;
        if answer.is_closing() || self.wire.write(b"QUIT\r\n", self.timeouts.quit).await.is_err() {
            return Ok(());
        }
        let goodbye = self.wire.reply(self.timeouts.rset).await;
        match (goodbye, self.wire.reply(self.timeouts.rset).await) {
            (Ok(_), Ok(_)) => Err(Cause::Desync("more replies than commands behind a refusal".into())),
            (Err(cause), _) | (_, Err(cause)) => desync_only(cause),
        }
    }
}

/// A refusal stays what it is when the connection ends after it, but not when its replies turn out not to fit.
fn desync_only(cause: Cause) -> Result<(), Cause> {
    match cause {
        Cause::Desync(_) => Err(cause),
        _ => Ok(()),
    }
}

/// 500, 502 and 504 (RFC 5321 4.2.4): unlike 503 they say nothing of the moment.
fn is_unknown_command(reply: &Reply) -> bool {
    matches!(reply.code, 500 | 502 | 504)
}

fn refusal(stage: Stage, reply: Reply) -> Failure {
    match stage {
        Stage::FinalDot => after_end_of_data(Cause::Reply(reply)),
        _ => Failure::new(stage, Cause::Reply(reply)),
    }
}

/// A message whose end of data was out when the replies ended. A relay that said goodbye and closed has carried out nothing that came
/// behind it (RFC 5321 3.8); otherwise only a reply could tell.
fn lost(cause: &Cause, goodbye: Option<&Reply>) -> Failure {
    match (goodbye, cause) {
        (Some(goodbye), Cause::Closed | Cause::Io(_)) => Failure::new(Stage::Mail, Cause::Reply(goodbye.clone())),
        _ => after_end_of_data(cause.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::reply::parse;
    use super::*;

    fn reply(text: &str) -> Reply {
        parse(format!("{text}\r\n").as_bytes()).unwrap().unwrap().0
    }

    /// Replies to MAIL, RCPT and the content as relays word them, and whether the last can be told from the second.
    const RELAYS: [([&str; 3], bool); 7] = [
        (["250 2.1.0 Ok", "250 2.1.5 Ok", "250 2.0.0 Ok: queued as 4F1"], true),
        (["250 OK", "250 Accepted", "250 OK id=1abc-0001"], true),
        (
            [
                "250 2.1.0 OK x9 - gsmtp",
                "250 2.1.5 OK x9 - gsmtp",
                "250 2.0.0 OK 17 x9 - gsmtp",
            ],
            true,
        ),
        (
            [
                "250 2.1.0 Sender OK",
                "250 2.1.5 Recipient OK",
                "250 2.6.0 <1@x> Queued mail for delivery",
            ],
            true,
        ),
        (
            [
                "250 2.1.0 <a@b>... Sender ok",
                "250 2.1.5 <c@d>... Recipient ok",
                "250 2.0.0 u1 Message accepted",
            ],
            true,
        ),
        (["250 ok", "250 ok", "250 ok 123 qp 45"], false),
        (["250 a@b ok", "250 c@d ok", "250 <1@x> taken"], false),
    ];

    #[test]
    fn bdat_is_used_only_where_a_verdict_can_be_told_from_the_answer_to_rcpt() {
        for (replies, can_tell) in RELAYS {
            let [mail, rcpt, verdict] = replies.map(reply);
            let wording = Wording::learn(&mail, &rcpt, &verdict);
            assert_eq!(wording.is_some(), can_tell, "{replies:?}");
            if let Some(wording) = wording {
                assert!(wording.is_no_verdict(&rcpt) && !wording.is_no_verdict(&verdict), "{replies:?}");
            }
        }
    }
}
