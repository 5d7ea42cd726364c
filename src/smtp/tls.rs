//! TLS towards a relay: one client configuration per relay, shared by its connections so that
//! sessions resume. Never less than TLS 1.2, never without checking chain and name unless the relay
//! is on loopback and the configuration says so.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate;
use super::config::{RelayConfig, TlsMode};

/// What a relay's connections need for TLS. Cheap to clone.
#[derive(Clone)]
pub struct TlsContext {
    /// Absent for a relay that is spoken to in clear: the system's certificates are not read then.
    connector: Option<TlsConnector>,
}

impl TlsContext {
    /// Loads the trusted certificates.
    ///
    /// # Errors
    /// When there are none, or one of the extra ones cannot be read.
    pub fn new(relay: &RelayConfig) -> Result<Self, String> {
        if relay.tls == TlsMode::None {
            return Ok(Self { connector: None });
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = if relay.verify_certificate {
            let verifier = Verifier::new_with_extra_roots(relay.extra_roots.clone(), Arc::clone(&provider));
            Arc::new(verifier.map_err(|why| {
                format!("no trusted certificates for relay {}: {why}; install the package ca-certificates", relay.name)
            })?)
        } else {
            Arc::new(Unchecked {
                provider: Arc::clone(&provider),
            })
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the suites of TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self {
            connector: Some(TlsConnector::from(Arc::new(config))),
        })
    }

    /// Performs the handshake and checks the certificate against `host`, a name or an address.
    ///
    /// # Errors
    /// What went wrong, in rustls' words.
    pub(super) async fn connect<S>(&self, stream: S, host: &str) -> Result<TlsStream<S>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = self.connector.as_ref().ok_or("this relay was set up without TLS")?;
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| format!("'{host}' is no name for a certificate"))?;
        connector.connect(name, stream).await.map_err(|why| why.to_string())
    }
}

/// What a handshake came to, in lines for people: version and cipher, and the certificate of the relay.
pub(super) fn facts<S>(stream: &TlsStream<S>) -> Vec<String> {
    let session = stream.get_ref().1;
    let version = session
        .protocol_version()
        .and_then(|v| v.as_str().map(|v| v.replace('_', ".").replacen("TLSv", "TLS ", 1)));
    let cipher = session
        .negotiated_cipher_suite()
        .and_then(|suite| suite.suite().as_str());
    let mut facts = vec![format!(
        "{}, {}",
        version.as_deref().unwrap_or("TLS"),
        cipher.unwrap_or("unknown cipher")
    )];
    let chain = session.peer_certificates().unwrap_or_default();
    let Some(found) = chain.first().and_then(|leaf| certificate::read(leaf)) else {
        return facts;
    };
    if !found.names.is_empty() {
        facts.push(format!("certificate for {}", found.names.join(", ")));
    }
    facts.push(format!(
        "certificate of {}, issued by {}, valid from {} to {} UTC",
        found.subject, found.issuer, found.not_before, found.not_after
    ));
    facts
}

/// Takes any certificate, for tests against a relay on loopback. The handshake's signatures are
/// still checked, so a broken implementation is still noticed.
#[derive(Debug)]
struct Unchecked {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
