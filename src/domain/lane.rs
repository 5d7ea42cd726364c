//! Lanes: the recipient-side destinations that a pace applies to. Pure: a shipped table of domains; what DNS says is
//! asked elsewhere and only translated here.

/// Domains of mailbox providers that receive for many people, by provider. Those of one provider share its limits, since
/// the same machines receive for all of them.
const PROVIDERS: &[(&str, &[&str])] = &[
    ("google", &["gmail.com", "googlemail.com"]),
    (
        "microsoft",
        &[
            "hotmail.co.uk",
            "hotmail.com",
            "hotmail.de",
            "hotmail.es",
            "hotmail.fr",
            "hotmail.it",
            "live.co.uk",
            "live.com",
            "live.de",
            "live.fr",
            "live.it",
            "live.nl",
            "msn.com",
            "outlook.com",
            "outlook.de",
            "outlook.es",
            "outlook.fr",
            "outlook.it",
            "outlook.jp",
            "passport.com",
            "windowslive.com",
        ],
    ),
    (
        "yahoo",
        &[
            "aim.com",
            "aol.co.uk",
            "aol.com",
            "aol.de",
            "aol.fr",
            "myyahoo.com",
            "rocketmail.com",
            "yahoo.ca",
            "yahoo.co.in",
            "yahoo.co.uk",
            "yahoo.com",
            "yahoo.com.ar",
            "yahoo.com.au",
            "yahoo.com.br",
            "yahoo.com.mx",
            "yahoo.de",
            "yahoo.es",
            "yahoo.fr",
            "yahoo.ie",
            "yahoo.in",
            "yahoo.it",
            "ymail.com",
        ],
    ),
    // Another company with other machines.
    ("yahoo_japan", &["yahoo.co.jp", "ybb.ne.jp"]),
    ("apple", &["icloud.com", "mac.com", "me.com"]),
    (
        "gmx",
        &[
            "email.de",
            "gmx.at",
            "gmx.ch",
            "gmx.com",
            "gmx.de",
            "gmx.net",
            "mail.com",
            "online.de",
            "web.de",
        ],
    ),
    ("telekom", &["magenta.de", "t-online.de"]),
    ("freenet", &["freenet.de"]),
    ("proton", &["pm.me", "proton.me", "protonmail.ch", "protonmail.com"]),
    ("zoho", &["zoho.com", "zoho.eu", "zohomail.com", "zohomail.eu"]),
    ("fastmail", &["fastmail.com", "fastmail.fm"]),
    ("mailru", &["bk.ru", "inbox.ru", "internet.ru", "list.ru", "mail.ru"]),
    ("yandex", &["ya.ru", "yandex.com", "yandex.by", "yandex.kz", "yandex.ru"]),
    ("rambler", &["rambler.ru"]),
    ("orange", &["orange.fr", "wanadoo.fr"]),
    ("free", &["free.fr"]),
    ("laposte", &["laposte.net"]),
    ("sfr", &["neuf.fr", "sfr.fr"]),
    ("libero", &["inwind.it", "iol.it", "libero.it"]),
    ("wp", &["o2.pl", "wp.pl"]),
    ("onet", &["onet.eu", "onet.pl", "op.pl", "vp.pl"]),
    ("seznam", &["email.cz", "seznam.cz"]),
    ("ukrnet", &["ukr.net"]),
    ("comcast", &["comcast.net"]),
    ("att", &["att.net", "bellsouth.net", "pacbell.net", "sbcglobal.net"]),
    ("qq", &["foxmail.com", "qq.com", "vip.qq.com"]),
    ("netease", &["126.com", "163.com", "yeah.net"]),
    ("naver", &["naver.com"]),
    ("docomo", &["docomo.ne.jp"]),
    ("uol", &["bol.com.br", "uol.com.br"]),
];

/// Ends of the names of mail exchangers, by the provider that runs them: for domains of their customers.
const EXCHANGERS: &[(&str, &str)] = &[
    ("google.com", "google"),
    ("googlemail.com", "google"),
    ("outlook.com", "microsoft"),
    ("mx.microsoft", "microsoft"),
    ("office365.us", "microsoft"),
    ("yahoodns.net", "yahoo"),
    ("mail.icloud.com", "apple"),
    ("gmx.net", "gmx"),
    ("kundenserver.de", "ionos"),
    ("ionos.com", "ionos"),
    ("protonmail.ch", "proton"),
    ("zoho.com", "zoho"),
    ("zoho.eu", "zoho"),
    ("messagingengine.com", "fastmail"),
    ("mail.ru", "mailru"),
    ("yandex.net", "yandex"),
    ("yandex.ru", "yandex"),
    ("ovh.net", "ovh"),
    ("pphosted.com", "proofpoint"),
    ("ppe-hosted.com", "proofpoint"),
    ("mimecast.com", "mimecast"),
    ("messagelabs.com", "messagelabs"),
    ("barracudanetworks.com", "barracuda"),
    ("secureserver.net", "godaddy"),
    ("qq.com", "qq"),
];

/// The lane of a recipient's domain (lower case, as addresses are normalised): a provider's name, else the domain itself.
#[must_use]
pub fn lane_of(domain: &str) -> &str {
    PROVIDERS
        .iter()
        .find(|(_, domains)| domains.contains(&domain))
        .map_or(domain, |(provider, _)| provider)
}

/// The provider that runs a mail exchanger of this name; `None` when nobody known does.
#[must_use]
pub fn provider_of_exchanger(host: &str) -> Option<&'static str> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let is_under = |zone: &str| host == zone || host.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'));
    EXCHANGERS
        .iter()
        .find(|(zone, _)| is_under(zone))
        .map(|(_, provider)| *provider)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_providers_domains_are_one_lane_and_any_other_domain_is_its_own() {
        for (domain, lane) in [
            ("gmail.com", "google"),
            ("googlemail.com", "google"),
            ("web.de", "gmx"),
            ("yahoo.co.jp", "yahoo_japan"),
            ("me.com", "apple"),
            ("example.org", "example.org"),
            ("notgmail.com", "notgmail.com"),
        ] {
            assert_eq!(lane_of(domain), lane, "{domain}");
        }
    }

    #[test]
    fn an_exchanger_belongs_to_the_provider_whose_zone_it_is_in() {
        for (host, provider) in [
            ("aspmx.l.google.com.", Some("google")),
            ("ALT1.ASPMX.L.GOOGLE.COM", Some("google")),
            ("example-org.mail.protection.outlook.com", Some("microsoft")),
            ("mx.example.org", None),
            ("evilgoogle.com", None),
        ] {
            assert_eq!(provider_of_exchanger(host), provider, "{host}");
        }
    }

    #[test]
    fn no_domain_stands_in_the_table_twice() {
        let mut seen = HashSet::new();
        for domain in PROVIDERS.iter().flat_map(|(_, domains)| *domains) {
            assert!(seen.insert(domain), "{domain}");
            assert_eq!(*domain, domain.to_lowercase());
        }
    }
}
