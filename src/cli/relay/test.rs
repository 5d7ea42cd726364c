//! `hikyaku relay test`: tests a relay from this machine and prints what was said. Secrets are masked where it is written down.

use super::refused;
use crate::cli::exit::{Exit, Failed, Outcome};
use crate::cli::terminal::{Colour, mark, say};
use crate::clock::{Clock, SystemClock};
use crate::pipeline::probe::{MailError, ProbeError, Report, TestMail, Voice, keep, probe};
use crate::pipeline::relays;
use crate::store::Store;

pub async fn test(store: &dyn Store, name: &str, mail: Option<(String, String)>, session: Option<u32>) -> Outcome {
    let relay = relays::find(store, name).await.map_err(refused)?;
    let (to, from) = mail.unzip();
    let mail = TestMail::read(store, from.as_deref(), to.as_deref())
        .await
        .map_err(|e| match e {
            MailError::Wrong(unfit) => Failed::usage(format!("--{}: {}", unfit.field, unfit.detail)),
            MailError::Store(e) => e.into(),
        })?
        .map(|mail| mail.with_session(session.unwrap_or(0)))
        .transpose()
        .map_err(|why| Failed::usage(format!("--session: {why}")))?;
    let report = probe(&relay, mail.as_ref(), SystemClock.now())
        .await
        .map_err(|e| match e {
            ProbeError::Busy => Failed::here(e.to_string()),
            ProbeError::Unusable(why) => Failed::here(format!("{name}: {why}")),
        })?;
    tell(&report);
    if !keep(store, &relay, &report.found, SystemClock.now()).await? {
        say("The relay was changed meanwhile, so that nothing of this was kept.");
    }
    Ok(if report.is_good { Exit::Done } else { Exit::Failed })
}

fn tell(report: &Report) {
    for step in &report.steps {
        say(format_args!("{}  {} ms", step.stage, step.took.as_millis()));
        for line in &step.said {
            let sign = match line.voice {
                Voice::Us => '>',
                Voice::Relay => '<',
                Voice::Note => '*',
            };
            say(format_args!("  {sign} {}", line.text));
        }
    }
    let word = match report.is_good {
        true => mark("ok", Colour::Green),
        false => mark("fail", Colour::Red),
    };
    say(format_args!("{word}  {}", report.summary));
    if !report.announced.is_empty() {
        say(format_args!("      It announces {}.", report.announced.join(", ")));
    }
    for note in &report.notes {
        say(format_args!("      {note}"));
    }
    if let Some(trouble) = &report.trouble {
        say(format_args!("      class {}, the {}'s failure", trouble.class, trouble.fault));
        if let Some(wait) = trouble.retry_after {
            say(format_args!("      the relay asks to wait for {} s", wait.as_secs()));
        }
        say(format_args!("      {}", trouble.advice));
    }
}
