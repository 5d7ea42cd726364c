//! The facts of a certificate that a person wants to see: for whom, by whom, until when. Never judges one: that is the verifier's.
//! Reads just so much of DER (X.690) as RFC 5280 4.1 needs for that; what it does not understand it leaves out.

/// What stands in a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The common name of the subject; empty when it has none.
    pub subject: String,
    pub issuer: String,
    /// DNS names that it is valid for.
    pub names: Vec<String>,
    /// As `2026-10-01 08:00:00` in UTC.
    pub not_before: String,
    pub not_after: String,
}

/// Most names that are read: a shared certificate may have hundreds.
const NAMES_MAX: usize = 20;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, the version, and `[3]`, the extensions (RFC 5280 4.1).
const VERSION: u8 = 0xA0;
const EXTENSIONS: u8 = 0xA3;
/// `[2]` of a general name (RFC 5280 4.2.1.6).
const DNS_NAME: u8 = 0x82;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0A];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1D, 0x11];

/// Reads a certificate in DER; `None` when it is none.
#[must_use]
pub fn read(der: &[u8]) -> Option<Certificate> {
    let mut whole = Der(der);
    let mut certificate = Der(whole.take(SEQUENCE)?);
    let mut body = Der(certificate.take(SEQUENCE)?);
    if body.0.first() == Some(&VERSION) {
        body.next()?;
    }
    // The serial number and the algorithm.
    body.next()?;
    body.next()?;
    let issuer = name(body.take(SEQUENCE)?);
    let mut validity = Der(body.take(SEQUENCE)?);
    let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
    let subject = name(body.take(SEQUENCE)?);
    let mut names = Vec::new();
    while let Some((tag, content)) = body.next() {
        if tag == EXTENSIONS {
            names = alternative_names(content).unwrap_or_default();
        }
    }
    Some(Certificate {
        subject,
        issuer,
        names,
        not_before,
        not_after,
    })
}

/// The common name, else the organisation.
fn name(sequence: &[u8]) -> String {
    let (mut common, mut organization) = (None, None);
    let mut sets = Der(sequence);
    while let Some(set) = sets.take(SET) {
        let Some(mut pair) = Der(set).take(SEQUENCE).map(Der) else {
            continue;
        };
        let (Some(oid), Some((_, value))) = (pair.take(OID), pair.next()) else {
            continue;
        };
        let value = String::from_utf8_lossy(value).into_owned();
        match oid {
            COMMON_NAME => common = Some(value),
            ORGANIZATION => organization = Some(value),
            _ => {}
        }
    }
    common.or(organization).unwrap_or_default()
}

/// RFC 5280 4.1.2.5: two digits for years from 1950 to 2049, four for all others.
fn time(der: &mut Der) -> Option<String> {
    let (tag, content) = der.next()?;
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let text = match tag {
        UTC_TIME if text.len() == 12 => format!("{}{text}", if text < "50" { "20" } else { "19" }),
        GENERALIZED_TIME if text.len() == 14 => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize| &text[from..from + 2];
    Some(format!("{}-{}-{} {}:{}:{}", &text[..4], part(4), part(6), part(8), part(10), part(12)))
}

fn alternative_names(extensions: &[u8]) -> Option<Vec<String>> {
    let mut list = Der(Der(extensions).take(SEQUENCE)?);
    while let Some(extension) = list.take(SEQUENCE) {
        let mut extension = Der(extension);
        if extension.take(OID)? != ALTERNATIVE_NAMES {
            continue;
        }
        let mut value = None;
        while let Some((tag, content)) = extension.next() {
            // A flag may stand in between: whether the extension is critical.
            if tag == OCTET_STRING {
                value = Some(content);
            }
        }
        let mut general = Der(Der(value?).take(SEQUENCE)?);
        let mut names = Vec::new();
        while let Some((tag, content)) = general.next() {
            if tag == DNS_NAME && names.len() < NAMES_MAX {
                names.push(String::from_utf8_lossy(content).into_owned());
            }
        }
        return Some(names);
    }
    None
}

/// Values one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, first, rest @ ..] = self.0 else {
            return None;
        };
        let (len, rest) = match *first {
            short @ 0..0x80 => (usize::from(short), rest),
            long => {
                let n = usize::from(long & 0x7F);
                // Four bytes of length are more than any certificate has.
                if n == 0 || n > 4 || rest.len() < n {
                    return None;
                }
                let len = rest[..n].iter().fold(0usize, |len, &b| (len << 8) | usize::from(b));
                (len, &rest[n..])
            }
        };
        if rest.len() < len {
            return None;
        }
        let (content, after) = rest.split_at(len);
        self.0 = after;
        Some((*tag, content))
    }

    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(found, _)| *found == tag)
            .map(|(_, content)| content)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made() -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(["mail.example.org".into(), "mx.example.org".into()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Example Mail");
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, "Example Ltd");
        params.not_before = rcgen::date_time_ymd(2026, 1, 2);
        params.not_after = rcgen::date_time_ymd(2061, 3, 4);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_says_for_whom_by_whom_and_until_when() {
        let expected = Certificate {
            subject: "Example Mail".into(),
            issuer: "Example Mail".into(),
            names: vec!["mail.example.org".into(), "mx.example.org".into()],
            not_before: "2026-01-02 00:00:00".into(),
            not_after: "2061-03-04 00:00:00".into(),
        };
        assert_eq!(read(&made()), Some(expected));
    }

    #[test]
    fn one_that_is_cut_off_is_none() {
        let der = made();
        for cut in 0..der.len() {
            assert_eq!(read(&der[..cut]), None, "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(change in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20)) {
            let mut der = made();
            for (at, byte) in change {
                let at = at.index(der.len());
                der[at] = byte;
            }
            let _ = read(&der);
        }
    }
}
