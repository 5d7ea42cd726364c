//! What a refusal says beside the message: that a session is over, or that there is one connection too many. In the words of real relays.

use super::super::is_refusal_of_us;
use super::*;
use crate::smtp::reply::parse;

fn refused(stage: Stage, text: &str) -> Failure {
    let reply = parse(format!("{text}\r\n").as_bytes()).unwrap().unwrap().0;
    Failure::new(stage, Cause::Reply(reply))
}

#[test]
fn a_session_that_has_come_to_its_end_is_told_from_a_refusal() {
    // The reply, whether it may be about the session, and whether it says so.
    for (stage, text, may_be, is_said) in [
        (Stage::Mail, "452 4.5.3 Too many recipients: Too many messages sent", true, true),
        (Stage::Mail, "421 too many messages in this connection", true, true),
        (Stage::Mail, "421 4.4.5 Too many messages on this connection", true, true),
        (Stage::Data, "452 4.5.3 no more for now", true, true),
        (Stage::Rcpt, "452 4.5.3 Too many recipients", true, false),
        (Stage::Rcpt, "450 4.7.1 You have exceeded the number of messages per connection", true, true),
        (Stage::Mail, "451 4.4.5 Too many messages, try again", true, true),
        (Stage::Reset, "421 4.3.2 Service shutting down", true, false),
        (Stage::Mail, "421 4.4.2 idle for too long", true, false),
        // About the recipient, the store, the pace or the sender.
        (Stage::Rcpt, "452 4.2.2 mailbox full", false, true),
        (Stage::Mail, "452 4.3.1 Insufficient system storage", false, true),
        (Stage::Rcpt, "450 4.7.1 Greylisted, try again", false, false),
        (Stage::Mail, "451 4.7.1 Too many emails from your address", false, false),
        (Stage::Mail, "550 5.7.1 this sender is not yours", false, false),
        (Stage::Rcpt, "550 5.1.1 nobody here", false, false),
    ] {
        let failure = refused(stage, text);
        assert_eq!(may_be_end_of_session(&failure), may_be, "{failure}");
        if may_be {
            assert_eq!(is_said_to_be_full(&failure), is_said, "{failure}");
        }
    }
    assert!(may_be_end_of_session(&Failure::new(Stage::Mail, Cause::Closed)));
    assert!(
        !may_be_end_of_session(&Failure::new(Stage::Rcpt, Cause::Closed)),
        "it may be the message that breaks it"
    );
    let after = Failure {
        end_of_data_written: true,
        ..refused(Stage::FinalDot, "452 4.5.3 too many messages in this session")
    };
    assert!(!may_be_end_of_session(&after), "that is the message's own verdict");
}

#[test]
fn one_connection_too_many_is_told_from_a_relay_that_fails() {
    for (stage, text, may_be) in [
        (Stage::Banner, "421 4.7.0 mx.example Error: too many connections from 192.0.2.1", true),
        (Stage::Banner, "421 Too many concurrent SMTP connections; please try again later.", true),
        (Stage::Ehlo, "421 4.4.5 - Too many connections from your host", true),
        (Stage::Auth, "421 4.7.0 Maximum number of connections from user+IP exceeded", true),
        (Stage::Auth, "535 5.7.8 Too many connections per account", true),
        (Stage::Banner, "421 4.3.2 Connection rate limit exceeded.", false),
        (Stage::Banner, "421 4.3.2 going down", false),
        (Stage::Auth, "535 5.7.8 Authentication credentials invalid", false),
        (Stage::Mail, "421 4.7.0 too many connections", false),
    ] {
        let failure = refused(stage, text);
        assert_eq!(may_be_one_too_many(&failure), may_be, "{failure}");
        assert!(!(may_be && is_refusal_of_us(&failure)), "{failure}: the password is right");
    }
    assert!(may_be_one_too_many(&Failure::new(Stage::Banner, Cause::Closed)));
    assert!(!may_be_one_too_many(&Failure::new(Stage::Connect, Cause::Io("refused".into()))));
}
