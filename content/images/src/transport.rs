//! HTTP, with and without TLS, to one host.

use crate::{Problem, files};
use reqwest::{
    blocking::{Client, Response},
    header::RETRY_AFTER,
    redirect,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use rustls_platform_verifier::Verifier;
use serde::Deserialize;
use std::{error::Error, io, sync::Arc, time::Duration};

/// How long it may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a chain of redirections may be.
const MAX_REDIRECTS: usize = 10;

/// How much of an error's text is read, in bytes.
const MAX_ERROR_BYTES: u64 = 64 << 10;

/// How a host is spoken to.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    client: Client,
    plain: bool,
}

/// What is common to all hosts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Whether a certificate that nobody vouches for will do.
    pub(crate) accept_invalid_certs: bool,
    /// How long the other side may be silent.
    pub(crate) silence: Duration,
}

impl Transport {
    /// Over TLS, with cryptography by ring whatever else is built in, or `plain`. To this
    /// machine itself no proxy is used.
    pub(crate) fn new(manner: Manner, plain: bool, is_loopback: bool) -> Result<Transport, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous();
        let config = if manner.accept_invalid_certs {
            config.with_custom_certificate_verifier(Arc::new(Anyone(
                provider.signature_verification_algorithms,
            )))
        } else {
            let verifier = Verifier::new(provider)
                .map_err(|error| format!("the system's certificates cannot be used: {error}"))?;
            config.with_custom_certificate_verifier(Arc::new(verifier))
        };
        let redirects = redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > MAX_REDIRECTS {
                attempt.error("it redirects again and again")
            } else if attempt.url().scheme() != "https" && !plain {
                attempt.error("it redirects to something that is not HTTPS")
            } else {
                attempt.follow()
            }
        });
        let mut client = Client::builder()
            .tls_backend_preconfigured(config.with_no_client_auth())
            .user_agent(concat!("maelstrom/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(manner.silence)
            .redirect(redirects)
            .https_only(!plain);
        if is_loopback {
            client = client.no_proxy();
        }
        Ok(Transport {
            client: client.build().map_err(describe)?,
            plain,
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether it is without TLS.
    pub(crate) fn is_plain(&self) -> bool {
        self.plain
    }
}

/// Accepts every certificate of which the other side has the key.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Whether `host`, which may have a port, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost"
        || name.ends_with(".localhost")
        || name
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

/// All that an error says, without the URL: that may hold what is nobody's business.
pub(crate) fn describe(error: reqwest::Error) -> String {
    let timed_out = error.is_timeout();
    let connecting = error.is_connect();
    let error = error.without_url();
    let mut parts: Vec<String> = Vec::new();
    let mut next: Option<&dyn Error> = Some(&error);
    while let Some(error) = next {
        let text = error.to_string();
        // Many only repeat what is below them.
        if parts.last().is_none_or(|last| !last.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    if parts.len() > 1 {
        // "error sending request" and its like say nothing.
        parts.remove(0);
    }
    if timed_out {
        parts.insert(
            0,
            if connecting {
                "cannot be reached in time"
            } else {
                "is silent for too long"
            }
            .into(),
        );
    }
    parts.join(": ")
}

/// What is at the bottom of an error while a response was read.
pub(crate) fn describe_read(error: &io::Error) -> String {
    let mut text = error.to_string();
    let mut next: Option<&dyn Error> = error.get_ref().map(|inner| inner as &dyn Error);
    while let Some(error) = next {
        text = error.to_string();
        next = error.source();
    }
    text
}

/// Whether the other side does not speak TLS.
pub(crate) fn speaks_no_tls(error: &reqwest::Error) -> bool {
    matches!(tls_error(error), Some(rustls::Error::InvalidMessage(_)))
}

/// What to try about an error, or nothing.
pub(crate) fn advice(error: &reqwest::Error) -> &'static str {
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(_)) => {
            "; if you trust it, add its authority to the system's certificates (or name its file \
             in SSL_CERT_FILE), or set accept-invalid-remote-container-tls-certs"
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            "; it does not speak HTTPS. Plain HTTP is used only with this machine itself, or with \
             accept-invalid-remote-container-tls-certs"
        }
        _ => "",
    }
}

fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut next: Option<&dyn Error> = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // What an I/O error is made of is not its source, whose source it is.
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// Uses up a response that is an error, and says what it says.
pub(crate) fn refusal(doing: &str, host: &str, response: Response, advice: String) -> Problem {
    let status = response.status();
    let text = match files::read_all(response, MAX_ERROR_BYTES) {
        Ok(Some(bytes)) => message(&bytes),
        _ => String::new(),
    };
    Problem::Status {
        doing: doing.to_owned(),
        host: host.to_owned(),
        status: status.to_string(),
        message: if text.is_empty() {
            advice
        } else {
            format!(" ({text:.500}){advice}")
        },
    }
}

/// How long the other side asks to be left alone.
pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<ErrorItem>,
    #[serde(default)]
    details: Option<String>,
}

#[derive(Deserialize)]
struct ErrorItem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What the body of an error says, as the distribution specification has it.
fn message(bytes: &[u8]) -> String {
    let Ok(errors) = serde_json::from_slice::<Errors>(bytes) else {
        return String::new();
    };
    let mut parts: Vec<String> = errors
        .errors
        .iter()
        .take(5)
        .map(
            |error| match (error.code.as_str(), error.message.as_str()) {
                ("", message) => message.to_owned(),
                (code, "") => code.to_owned(),
                (code, message) => format!("{code}: {message}"),
            },
        )
        .collect();
    parts.extend(errors.details);
    let text = parts.join("; ");
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1.2.3",
            "r.localhost:1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "docker.io",
            "10.0.0.1:5000",
            "localhost.example",
            "127.0.0.1.example",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn what_registries_say() {
        let text = message(
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest\nunknown","detail":{"Tag":"x"}}]}"#,
        );
        assert_eq!(text, "MANIFEST_UNKNOWN: manifest unknown");
        assert_eq!(message(br#"{"details":"no such user"}"#), "no such user");
        assert_eq!(message(b"<html>"), "");
    }

    #[test]
    fn transports_need_no_provider_of_the_process() {
        let manner = Manner {
            accept_invalid_certs: true,
            silence: Duration::from_secs(1),
        };
        assert!(Transport::new(manner, false, true).is_ok());
    }
}
