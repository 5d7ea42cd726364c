//! AUTH as the capture relay takes it: PLAIN, LOGIN and XOAUTH2, each in the forms that clients use. Never lets anybody in without the
//! login that was asked for.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::script::At;
use super::{Mode, Session};

impl Session {
    pub(super) fn auth(&mut self, rest: &str) {
        let (mechanism, initial) = rest.split_once(' ').unwrap_or((rest, ""));
        match mechanism.to_ascii_uppercase().as_str() {
            "PLAIN" if !initial.is_empty() => self.check_plain(initial),
            "PLAIN" => {
                self.mode = Mode::AuthPlain;
                self.answer(At::Auth, "334 \r\n");
            }
            "XOAUTH2" if !initial.is_empty() => self.check_xoauth2(initial),
            "XOAUTH2" => {
                self.mode = Mode::AuthXOAuth2;
                self.answer(At::Auth, "334 \r\n");
            }
            "LOGIN" => {
                self.mode = Mode::AuthLoginUser;
                self.answer(At::Auth, "334 VXNlcm5hbWU6\r\n");
            }
            _ => self.say("504 5.5.4 no such mechanism\r\n"),
        }
    }

    /// A line of a dialogue that AUTH began.
    pub(super) fn auth_line(&mut self, line: &str) {
        match self.mode {
            Mode::AuthXOAuth2 => self.check_xoauth2(line),
            Mode::AuthRefused => {
                self.mode = Mode::Command;
                self.answer(At::Auth, "535 5.7.8 the token is not good\r\n");
            }
            Mode::AuthLoginUser => {
                self.login_user = decoded(line);
                self.mode = Mode::AuthLoginPassword;
                self.answer(At::Auth, "334 UGFzc3dvcmQ6\r\n");
            }
            Mode::AuthLoginPassword => {
                let user = std::mem::take(&mut self.login_user);
                self.check_login(user, decoded(line));
            }
            _ => self.check_plain(line),
        }
    }

    fn check_plain(&mut self, response: &str) {
        let proof = decoded(response);
        let mut parts = proof.split('\0').skip(1);
        let user = parts.next().unwrap_or("").to_owned();
        self.check_login(user, parts.next().unwrap_or("").to_owned());
    }

    /// The password is the token. A wrong one is refused in two steps, as the providers do.
    fn check_xoauth2(&mut self, response: &str) {
        let proof = decoded(response);
        let user = proof.strip_prefix("user=").and_then(|p| p.split('\x01').next());
        let token = proof.split('\x01').find_map(|p| p.strip_prefix("auth=Bearer "));
        let given = user.unwrap_or("").to_owned();
        let token = token.unwrap_or("").to_owned();
        if self.shared.options.require_auth.as_ref() == Some(&(given.clone(), token.clone())) {
            return self.check_login(given, token);
        }
        self.mode = Mode::AuthRefused;
        let why = STANDARD.encode(r#"{"status":"401","schemes":"bearer"}"#);
        self.answer(At::Auth, &format!("334 {why}\r\n"));
    }

    fn check_login(&mut self, user: String, password: String) {
        self.mode = Mode::Command;
        let is_right = self.shared.options.require_auth.as_ref() == Some(&(user, password));
        let reply = if is_right {
            "235 2.7.0 welcome\r\n"
        } else {
            "535 5.7.8 wrong user or password\r\n"
        };
        match self.answer(At::Auth, reply) {
            b'2' => self.is_authenticated = true,
            b'3' => self.mode = Mode::AuthPlain,
            _ => {}
        }
    }
}

fn decoded(base64: &str) -> String {
    STANDARD
        .decode(base64)
        .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}
