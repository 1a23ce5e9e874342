//! Encryption: TLS 1.3 in which both sides show the ed25519 key that names them.
//!
//! There are no certificates: each side sends its raw public key (RFC 7250) and signs the
//! handshake with it. Whose key it is, and whether that is a member, is looked at afterwards by
//! whoever holds the connection, before anything is said on it.

use maelstrom_gossip::NodeId;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key},
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
        UnixTime, alg_id,
    },
    server::{
        AlwaysResolvesServerRawPublicKeys,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, public_key_to_spki},
};
use std::{fmt, sync::Arc};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What stands before the seed of an ed25519 key in PKCS #8 (RFC 8410).
const PKCS8_BEFORE_SEED: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Named in every handshake, and looked at by nobody.
const SERVER_NAME: &str = "layers";

/// The two sides of a handshake, with one identity.
#[derive(Clone)]
pub(crate) struct Tls {
    me: NodeId,
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) connector: TlsConnector,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.me).finish()
    }
}

impl Tls {
    /// The identity of an ed25519 key's seed.
    pub(crate) fn new(seed: &[u8; 32]) -> Result<Tls, Error> {
        let mut provider = ring::default_provider();
        // The fastest first, where processors have instructions for AES.
        provider.cipher_suites = vec![
            ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
            ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        let provider = Arc::new(provider);
        let pkcs8 = [&PKCS8_BEFORE_SEED[..], seed].concat();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8));
        let key = provider.key_provider.load_private_key(key)?;
        let public = key
            .public_key()
            .ok_or_else(|| Error::General("a key without a public half".to_owned()))?;
        let me = node_of(&public)
            .ok_or_else(|| Error::General("a key that is not of ed25519".to_owned()))?;
        let shown = CertificateDer::from(public.to_vec());
        let key = Arc::new(CertifiedKey::new(vec![shown], key));
        let verifier = Arc::new(Verifier(provider.clone()));
        let version = [&rustls::version::TLS13];
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&version)?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                key.clone(),
            )));
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&version)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
        server.send_tls13_tickets = 0;
        Ok(Tls {
            me,
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }

    /// Whose seed it is.
    pub(crate) fn me(&self) -> NodeId {
        self.me
    }

    /// What the other side is called in a handshake: its key tells who it is.
    pub(crate) fn server_name() -> ServerName<'static> {
        ServerName::try_from(SERVER_NAME).unwrap_or_else(|_| unreachable!("it is a plain name"))
    }
}

/// Who showed this key, if it is one of ed25519.
pub(crate) fn node_of(shown: &[u8]) -> Option<NodeId> {
    let (_, key) = shown.split_last_chunk::<32>()?;
    let whole = public_key_to_spki(&alg_id::ED25519, key);
    (*whole == *shown).then(|| NodeId::from_bytes(*key))
}

/// Lets everybody show a key, and checks that they have its secret half.
#[derive(Debug)]
struct Verifier(Arc<CryptoProvider>);

impl Verifier {
    fn is_key(shown: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), Error> {
        match node_of(shown) {
            Some(_) if more.is_empty() => Ok(()),
            _ => Err(Error::General("it showed no ed25519 key".to_owned())),
        }
    }

    fn verify(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
    }

    fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Verifier::is_key(shown, more).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Verifier::no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Verifier::is_key(shown, more).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Verifier::no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_of_ed25519_name_nodes() {
        let tls = Tls::new(&[3; 32]).unwrap();
        let shown = public_key_to_spki(&alg_id::ED25519, tls.me().as_bytes());
        assert_eq!(node_of(&shown), Some(tls.me()));
        let other = public_key_to_spki(&alg_id::ECDSA_P256, tls.me().as_bytes());
        assert_eq!(node_of(&other), None);
        for length in 0..shown.len() {
            assert_eq!(node_of(&shown[..length]), None);
        }
        let long = [&[0][..], &shown].concat();
        assert_eq!(node_of(&long), None);
    }
}
