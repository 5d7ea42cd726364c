//! Signatures (DKIM, RFC 6376 and RFC 8463): keys are made here, and messages signed. Never reads a clock: a signature of the same
//! message by the same key is always the same bytes, since both algorithms are deterministic and neither `t=` nor `x=` is
//! written. The signed `Date` says when the mail was made.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_auth::common::crypto::{DkimKey as SigningKeys, Ed25519Key, HashAlgorithm, RsaKey, Sha256, SigningKey};
use mail_auth::common::headers::{Writable, Writer};
use mail_auth::dkim::{Canonicalization, Signature};

use crate::domain::dkim::{DkimAlgorithm, DkimKey, PrivateKey};

/// Header fields that are signed when a message has them (RFC 6376 5.4.1): what is shown, what threads, what says how to read
/// the body, and the one-click headers, which count only when signed (RFC 8058 4).
const SIGNED: [&str; 14] = [
    "From",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "List-ID",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "Feedback-ID",
];
/// Of these one more is signed than there is, so that a second one breaks the signature: a mail program might show what was
/// added instead of what was signed (RFC 6376 8.15).
const OVERSIGNED: [&str; 9] = [
    "From",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
];

/// Makes a key: the secret half as PKCS#8 PEM, and the public half as it stands in the record. An RSA key takes some tenths of a
/// second.
///
/// # Errors
/// The machine has no randomness to give.
pub fn generate(algorithm: DkimAlgorithm) -> Result<(PrivateKey, String), String> {
    let failed = |_| "a key could not be made".to_owned();
    let (secret, public) = match algorithm {
        DkimAlgorithm::Rsa => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
            let secret = pair.as_der().map_err(failed)?;
            let public = pair.public_key().as_der().map_err(failed)?;
            (secret.as_ref().to_vec(), public.as_ref().to_vec())
        }
        DkimAlgorithm::Ed25519 => {
            let pair = Ed25519KeyPair::generate().map_err(failed)?;
            let secret = pair.to_pkcs8v1().map_err(failed)?;
            (secret.as_ref().to_vec(), pair.public_key().as_ref().to_vec())
        }
    };
    Ok((PrivateKey::new(to_pem(&secret)), STANDARD.encode(public)))
}

/// RFC 7468 10.
fn to_pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

fn from_pem(pem: &str) -> Option<Vec<u8>> {
    let body = pem.trim().strip_prefix("-----BEGIN PRIVATE KEY-----")?;
    let body = body.strip_suffix("-----END PRIVATE KEY-----")?;
    let digits: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(digits).ok()
}

/// Signs messages with one or more keys. Share it by `Arc`: signing needs no lock.
pub(super) struct Signer(Vec<Signing>);

struct Signing {
    key: SigningKeys,
    /// Everything that does not depend on the message.
    template: Signature,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys = self
            .0
            .iter()
            .map(|s| format!("{}._domainkey.{}", s.template.s, s.template.d));
        f.debug_list().entries(keys).finish()
    }
}

impl Signer {
    /// # Errors
    /// A sentence that names a key that cannot be read.
    pub fn new(keys: &[DkimKey]) -> Result<Self, String> {
        keys.iter().map(Signing::new).collect::<Result<_, _>>().map(Self)
    }

    /// The signatures of a message, as header lines that go in front of it. The message must end its lines with CRLF and its
    /// body must not end in a line of blanks, as no body of this service does.
    ///
    /// # Errors
    /// When the library refuses, which it does for no message.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let (fields, body) = split(message);
        let signed = signed_fields(&fields);
        let body_hash = HashAlgorithm::Sha256.hash(Canonicalization::Relaxed.canonical_body(body, 0));
        let mut out = Vec::with_capacity(self.0.len() * 1024);
        for signing in &self.0 {
            signing.sign(&signed, body_hash.as_ref(), &mut out)?;
        }
        Ok(out)
    }
}

impl Signing {
    fn new(key: &DkimKey) -> Result<Self, String> {
        let broken = || format!("the private key of {} cannot be read", key.record_name());
        let der = from_pem(key.private_key.expose()).ok_or_else(broken)?;
        let pair = match key.algorithm {
            DkimAlgorithm::Rsa => SigningKeys::Rsa(rsa_key(&der).map_err(|_| broken())?),
            // RFC 8410: the short form without the public half, which OpenSSL reads as well.
            DkimAlgorithm::Ed25519 => {
                SigningKeys::Ed25519(Ed25519Key::from_pkcs8_maybe_unchecked_der(&der).map_err(|_| broken())?)
            }
        };
        let template = Signature {
            v: 1,
            a: pair.algorithm(),
            d: key.domain.clone(),
            s: key.selector.clone(),
            ch: Canonicalization::Relaxed,
            cb: Canonicalization::Relaxed,
            ..Signature::default()
        };
        Ok(Self { key: pair, template })
    }

    fn sign(&self, signed: &Signed, body_hash: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let mut signature = self.template.clone();
        signature.bh = body_hash.to_vec();
        signature.h.clone_from(&signed.names);
        let input = Input {
            fields: &signed.fields,
            signature: &signature,
        };
        signature.b = self.key.sign(input).map_err(|e| e.to_string())?;
        signature.write(out, true);
        Ok(())
    }
}

#[expect(deprecated, reason = "the other constructor wants a type of another crate for the same bytes")]
fn rsa_key(der: &[u8]) -> mail_auth::Result<RsaKey<Sha256>> {
    RsaKey::from_pkcs8_der(der)
}

/// A header field: its name, and what follows the colon, with the line break.
type Field<'a> = (&'a [u8], &'a [u8]);

/// What is signed: the names as they stand in `h=`, and the fields in the same order.
struct Signed<'a> {
    names: Vec<String>,
    fields: Vec<Field<'a>>,
}

fn signed_fields<'a>(fields: &[Field<'a>]) -> Signed<'a> {
    let mut signed = Signed {
        names: Vec::with_capacity(SIGNED.len() * 2),
        fields: Vec::with_capacity(SIGNED.len()),
    };
    for name in SIGNED {
        // RFC 6376 5.4.2: the last of several counts first.
        for field in fields
            .iter()
            .rev()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
        {
            signed.names.push(name.to_owned());
            signed.fields.push(*field);
        }
        if OVERSIGNED.contains(&name) {
            signed.names.push(name.to_owned());
        }
    }
    signed
}

/// What the signature is computed over (RFC 6376 3.7): the fields, and the signature's own without its value.
struct Input<'a> {
    fields: &'a [Field<'a>],
    signature: &'a Signature,
}

impl Writable for Input<'_> {
    fn write(self, writer: &mut impl Writer) {
        let fields = self.fields.iter().copied();
        Canonicalization::Relaxed.canonicalize_headers(fields, writer);
        self.signature.write(writer, false);
    }
}

/// The header fields and the body of a message that was written here.
fn split(message: &[u8]) -> (Vec<Field<'_>>, &[u8]) {
    let mut fields = Vec::with_capacity(16);
    let mut rest = message;
    while !rest.is_empty() && !rest.starts_with(b"\r\n") {
        let (field, after) = rest.split_at(field_len(rest));
        let colon = field.iter().position(|&b| b == b':').unwrap_or(field.len());
        fields.push((&field[..colon], field.get(colon + 1..).unwrap_or_default()));
        rest = after;
    }
    (fields, rest.strip_prefix(b"\r\n").unwrap_or_default())
}

/// Bytes up to the line that does not go on with a blank.
fn field_len(text: &[u8]) -> usize {
    let mut len = 0;
    loop {
        len += match text[len..].iter().position(|&b| b == b'\n') {
            Some(at) => at + 1,
            None => return text.len(),
        };
        if !matches!(text.get(len), Some(b' ' | b'\t')) {
            return len;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::DkimKeyId;
    use crate::domain::time::Timestamp;

    fn key(algorithm: DkimAlgorithm) -> DkimKey {
        let (private_key, public_key) = generate(algorithm).unwrap();
        DkimKey {
            id: DkimKeyId::new(Timestamp(0), 1),
            domain: "example.org".into(),
            selector: "s1".into(),
            algorithm,
            private_key,
            public_key,
            created_at: Timestamp(0),
            enabled_at: None,
        }
    }

    const MESSAGE: &[u8] =
        b"From: a@example.org\r\nTo: b@example.org\r\nX-A: 1\r\n 2\r\nSubject: x\r\n y\r\n\r\nbody\r\n";

    #[test]
    fn a_message_is_cut_into_fields_and_body() {
        let (fields, body) = split(MESSAGE);
        let names: Vec<_> = fields.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
        assert_eq!(names, ["From", "To", "X-A", "Subject"]);
        assert_eq!((fields[2].1, body), (&b" 1\r\n 2\r\n"[..], &b"body\r\n"[..]));
        assert_eq!(split(b"A: b\r\n\r\n"), (vec![(&b"A"[..], &b" b\r\n"[..])], &b""[..]));
    }

    #[test]
    fn what_could_be_added_is_signed_as_absent() {
        let names = signed_fields(&split(MESSAGE).0).names.join(":");
        assert_eq!(names, "From:From:Reply-To:To:To:Cc:Subject:Subject:Date:Message-ID:MIME-Version:Content-Type");
    }

    #[test]
    fn both_algorithms_sign_alike_each_time() {
        let signer = Signer::new(&[key(DkimAlgorithm::Rsa), key(DkimAlgorithm::Ed25519)]).unwrap();
        let first = signer.sign(MESSAGE).unwrap();
        assert_eq!(first, signer.sign(MESSAGE).unwrap());
        let text = String::from_utf8(first).unwrap();
        assert_eq!(text.matches("DKIM-Signature: v=1; a=").count(), 2, "{text}");
        assert!(text.contains("a=rsa-sha256") && text.contains("a=ed25519-sha256"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 80) && text.ends_with("\r\n"), "{text}");
    }

    #[test]
    fn a_key_that_cannot_be_read_is_named() {
        let mut key = key(DkimAlgorithm::Ed25519);
        key.private_key = PrivateKey::new("nonsense".into());
        let why = Signer::new(&[key]).unwrap_err();
        assert!(why.contains("s1._domainkey.example.org"), "{why}");
    }
}
