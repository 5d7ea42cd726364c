//! A test of a relay, on its page: what was said, and what it means. The test itself is `pipeline::probe`'s; secrets are masked there.

use axum::Form;
use axum::extract::{Path, State};
use axum::response::Response;

use super::page;
use crate::pipeline::probe::{MailError, ProbeError, Report, TestMail, Voice, keep, probe};
use crate::pipeline::relays;
use crate::web::WebState;
use crate::web::session::SignedIn;
use crate::web::ui::chrome::{Chrome, Section};
use crate::web::ui::error::UiError;
use crate::web::ui::form::{Fields, Problems};
use crate::web::ui::format;

/// Who a test message is from and who gets it, as typed.
#[derive(Default)]
pub struct Wish {
    pub from: String,
    pub to: String,
    pub problems: Problems,
}

/// What a test came to.
pub struct Tested {
    pub report: Report,
}

/// One line of a transcript.
pub struct Line<'a> {
    pub sign: &'static str,
    /// Whose line it is, for who cannot see the sign.
    pub who: &'static str,
    pub class: &'static str,
    pub text: &'a str,
}

impl Tested {
    /// `312 ms`, `4.2 s`
    #[must_use]
    pub fn took(took: &std::time::Duration) -> String {
        match took.as_millis() {
            0 => "under 1 ms".to_owned(),
            ms @ 1..1_000 => format!("{ms} ms"),
            _ => format!("{:.1} s", took.as_secs_f64()),
        }
    }

    #[must_use]
    pub fn lines(step: &crate::pipeline::probe::Step) -> Vec<Line<'_>> {
        let line = |(voice, text)| {
            let (sign, who, class) = match voice {
                Voice::Us => (">", "we", "us"),
                Voice::Relay => ("<", "the relay", "them"),
                Voice::Note => ("*", "noted", "note"),
            };
            Line { sign, who, class, text }
        };
        step.said
            .iter()
            .map(|said| line((said.voice, said.text.as_str())))
            .collect()
    }
}

/// Opens a connection, and sends one message when an address is given. It takes a minute at most.
pub async fn test(
    signed: SignedIn,
    State(state): State<WebState>,
    Path(name): Path<String>,
    Form(typed): Form<Fields>,
) -> Result<Response, UiError> {
    let relay = relays::find(&*state.store, &name).await?;
    let chrome = Chrome::new(&signed, Section::Relays);
    let mut wish = Wish {
        from: typed.text("from").to_owned(),
        to: typed.text("to").to_owned(),
        problems: Problems::default(),
    };
    // The sender is filled in already; without a recipient nothing is to be sent.
    let from = typed.filled("from").filter(|_| !wish.to.is_empty());
    let mail = match TestMail::read(&*state.store, from, typed.filled("to")).await {
        Ok(mail) => mail,
        Err(MailError::Wrong(unfit)) => {
            wish.problems.add(unfit.field, format::sentence(&unfit.detail));
            return page(chrome, &state, &relay, wish, None).await;
        }
        Err(MailError::Store(e)) => return Err(e.into()),
    };
    match probe(&relay, mail.as_ref(), state.clock.now()).await {
        Ok(report) => {
            keep(&*state.store, &relay, &report.found, state.clock.now()).await?;
            page(chrome, &state, &relay, wish, Some(Tested { report })).await
        }
        Err(e @ (ProbeError::Busy | ProbeError::Unusable(_))) => {
            Err(UiError::Refused(format::sentence(&e.to_string())))
        }
    }
}
