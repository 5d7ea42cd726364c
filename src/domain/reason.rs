//! The reason classes that stand beside messages: stable names, what each means, whose failure it is, what can be done. Never
//! decides which class a reply has: `smtp::classify` does. `docs/classes.md` is this table, and a test holds the two together.

/// Whom a reason is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whose {
    /// This address.
    Recipient,
    /// This message, or its way.
    Message,
    /// The sender, the content or the sending domain: the rest of the broadcast would meet it too.
    Broadcast,
    /// The relay, the way to it, or our set-up there.
    Relay,
    /// Our own side.
    Ours,
}

/// One reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// The stable name: part of the API.
    pub class: &'static str,
    pub whose: Whose,
    pub meaning: &'static str,
    /// What a person can do about it.
    pub advice: &'static str,
}

const fn reason(class: &'static str, whose: Whose, meaning: &'static str, advice: &'static str) -> Reason {
    Reason {
        class,
        whose,
        meaning,
        advice,
    }
}

/// Every reason there is, by whose it is.
pub const REASONS: &[Reason] = &[
    reason(
        "invalid_recipient",
        Whose::Recipient,
        "nobody has this address",
        "Hikyaku has put the address on the suppression list. Many of them at once mean that the list is old or was typed in: check where it comes from.",
    ),
    reason(
        "bad_domain",
        Whose::Recipient,
        "the domain does not exist or takes no mail",
        "Hikyaku has put the address on the suppression list. Look for misspelt domains in the list.",
    ),
    reason(
        "inactive_mailbox",
        Whose::Recipient,
        "the mailbox is disabled",
        "Nothing: the address is suppressed when a second broadcast meets this a day or more later.",
    ),
    reason(
        "mailbox_full",
        Whose::Recipient,
        "the mailbox is full",
        "Nothing: the address is suppressed when three broadcasts over two weeks meet this.",
    ),
    reason(
        "greylisted",
        Whose::Recipient,
        "the receiver wants the first try repeated later",
        "Nothing: it is repeated by itself.",
    ),
    reason(
        "too_many_recipients",
        Whose::Recipient,
        "the receiver wants a fresh transaction",
        "Nothing: it is tried again at once.",
    ),
    reason(
        "message_too_large",
        Whose::Broadcast,
        "the message is larger than the receiver takes",
        "Make the message smaller: leave out attachments or embedded pictures, and send it as a new broadcast.",
    ),
    reason(
        "spam_content",
        Whose::Broadcast,
        "the content was taken for spam or malware",
        "Read the reply, look at links and wording, and send to a few addresses of that provider before you resume.",
    ),
    reason(
        "auth_policy",
        Whose::Broadcast,
        "SPF, DKIM or DMARC of the sending domain did not pass",
        "Put the domain's SPF, DKIM and DMARC records right, then resume and try the failed messages again.",
    ),
    reason(
        "sender_rejected",
        Whose::Broadcast,
        "the sender's address was refused",
        "Check the sender's address and whether this relay may send for its domain, then resume and try the failed messages again.",
    ),
    reason(
        "policy_other",
        Whose::Message,
        "a policy of the receiver, not told more closely",
        "Read the reply: it is the receiver's own rule.",
    ),
    reason(
        "content_encoding",
        Whose::Message,
        "the receiver cannot read the message's form",
        "Report it with the reply: messages are meant to be readable everywhere.",
    ),
    reason(
        "routing",
        Whose::Message,
        "the mail cannot find its way behind the relay",
        "Show the reply to whoever runs the relay.",
    ),
    reason("unknown", Whose::Message, "a refusal that says nothing of its reason", "Read the reply."),
    reason(
        "system_full",
        Whose::Relay,
        "the relay or receiver has no space left",
        "Nothing: it is tried again. If it lasts, tell whoever runs the relay.",
    ),
    reason(
        "system_error",
        Whose::Relay,
        "the relay or receiver has trouble of its own",
        "Nothing: it is tried again. If it lasts, tell whoever runs the relay.",
    ),
    reason(
        "rate_limited",
        Whose::Relay,
        "mail comes faster than the receiver likes",
        "Nothing: the pace is lowered. Lower the relay's rate if it goes on.",
    ),
    reason(
        "too_many_connections",
        Whose::Relay,
        "more connections than the relay allows",
        "Lower the relay's connections.",
    ),
    reason(
        "reputation_block",
        Whose::Relay,
        "the sending server or address is on a block list",
        "Follow the link in the reply to be taken off the list, or use another relay; then resume and try the failed messages again.",
    ),
    reason(
        "missing_ptr",
        Whose::Relay,
        "the sending server has no reverse DNS",
        "Have the relay's reverse DNS set.",
    ),
    reason(
        "tls_required",
        Whose::Relay,
        "the relay wants an encrypted connection",
        "Set the relay's TLS to starttls or implicit.",
    ),
    reason(
        "auth_required",
        Whose::Relay,
        "the relay does not accept our login",
        "Check the relay's user and password.",
    ),
    reason(
        "relay_denied",
        Whose::Relay,
        "the relay does not send for us",
        "Check the relay's user and password, and whom it sends for.",
    ),
    reason(
        "protocol_error",
        Whose::Relay,
        "the dialogue with the relay broke its rules",
        "Show the reply to whoever runs the relay; switch pipelining off for it if it goes on.",
    ),
    reason(
        "network",
        Whose::Relay,
        "no connection, or it broke",
        "Check that the relay is up and can be reached from here.",
    ),
    reason(
        "template_error",
        Whose::Ours,
        "the message could not be written for this recipient",
        "The recipient's data lacks what the template asks for: correct the data or the template, and send a new broadcast.",
    ),
    reason(
        "suppressed",
        Whose::Ours,
        "the address must not be mailed",
        "Nothing: the list of suppressions says why.",
    ),
    reason("expired", Whose::Ours, "its time had passed", "Nothing: it would have come too late."),
    reason(
        "worker_lost",
        Whose::Ours,
        "the worker was lost while the message was on its way",
        "Nothing where it was sent again. Where it is held, somebody must decide.",
    ),
];

/// The reason of this name.
#[must_use]
pub fn find(class: &str) -> Option<&'static Reason> {
    REASONS.iter().find(|r| r.class == class)
}

/// Whether the rest of the broadcast would meet it too: a pause is worth more than another try. A block list belongs here
/// although it is the relay's: all that follows through it would meet it.
#[must_use]
pub fn concerns_the_rest(class: &str) -> bool {
    class == "reputation_block" || find(class).is_some_and(|r| r.whose == Whose::Broadcast)
}

/// Whether a message that failed with it may go another time, once somebody has put right what was wrong: what is the
/// broadcast's or the relay's fault, or a policy. A mailbox that does not exist stays so.
#[must_use]
pub fn may_pass_later(class: &str) -> bool {
    class == "policy_other" || find(class).is_some_and(|r| matches!(r.whose, Whose::Broadcast | Whose::Relay))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_reason_stands_twice_and_each_says_what_to_do() {
        let mut names: Vec<&str> = REASONS.iter().map(|r| r.class).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), REASONS.len());
        assert!(
            REASONS
                .iter()
                .all(|r| r.advice.ends_with('.') && !r.meaning.ends_with('.'))
        );
    }

    /// The table that people read is this one.
    #[test]
    fn the_documented_table_is_this_one() {
        let documented = include_str!("../../docs/classes.md");
        let rows: Vec<Vec<&str>> = documented
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let whose = |w: Whose| match w {
            Whose::Recipient => "recipient",
            Whose::Message => "message",
            Whose::Broadcast => "broadcast",
            Whose::Relay => "relay",
            Whose::Ours => "ours",
        };
        let yes = |b: bool| if b { "yes" } else { "no" };
        let expected: Vec<Vec<String>> = REASONS
            .iter()
            .map(|r| {
                vec![
                    format!("`{}`", r.class),
                    whose(r.whose).to_owned(),
                    r.meaning.to_owned(),
                    yes(concerns_the_rest(r.class)).to_owned(),
                    yes(may_pass_later(r.class)).to_owned(),
                    r.advice.to_owned(),
                ]
            })
            .collect();
        assert_eq!(rows, expected);
    }
}
