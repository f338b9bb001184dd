//! Which certificates a registry may show: the system's authorities, those of certs.d, and those of the call.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::RegistryError;

/// Where distributions keep their authorities.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whom to trust, and who we are, for one registry.
pub(super) struct Trust<'a> {
    /// Host and port.
    pub(super) registry: &'a str,
    /// The directory with one folder a registry.
    pub(super) certs_d: &'a Path,
    /// Of the call.
    pub(super) ca_pem: &'a [u8],
    /// Of the configuration.
    pub(super) ca_file: Option<&'a Path>,
    /// Take any certificate.
    pub(super) skip_verify: bool,
}

impl Trust<'_> {
    /// A client configuration.
    pub(super) fn client_config(&self) -> Result<ClientConfig, RegistryError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut extra = Vec::new();
        if !self.ca_pem.is_empty() {
            let bad = || RegistryError::BadCertificates("the given PEM".into());
            extra.extend(parse(self.ca_pem).ok_or_else(bad)?);
        }
        let dir = self.certs_d.join(self.registry);
        for path in files(&dir, "crt").into_iter().chain(self.ca_file.map(Path::to_path_buf)) {
            extra.extend(certificates(&path)?);
        }
        let verifier: Arc<dyn ServerCertVerifier> = if self.skip_verify {
            Arc::new(Anything(Arc::clone(&provider)))
        } else {
            verifier(extra, &provider)?
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| RegistryError::BadCertificates(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        match files(&dir, "cert").first() {
            None => Ok(builder.with_no_client_auth()),
            Some(cert) => {
                let key = cert.with_extension("key");
                let bad = |path: &Path| RegistryError::BadCertificates(path.display().to_string());
                let private = PrivateKeyDer::from_pem_file(&key).map_err(|_| bad(&key))?;
                builder.with_client_auth_cert(certificates(cert)?, private).map_err(|_| bad(cert))
            }
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let bad = || RegistryError::BadCertificates(path.display().to_string());
    std::fs::read(path).ok().and_then(|pem| parse(&pem)).ok_or_else(bad)
}

fn parse(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    certificates.ok().filter(|c| !c.is_empty())
}

/// `<certs.d>/<host:port>/*.<extension>`, docker's layout: authorities are `*.crt`, our own certificate is `*.cert` with its
/// `*.key` beside it.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries: io::Result<std::fs::ReadDir> = std::fs::read_dir(dir);
    let mut files: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    files
}

fn verifier(
    extra: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, RegistryError> {
    let mut roots = RootCertStore::empty();
    let configured = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bundle =
        configured.into_iter().chain(SYSTEM.iter().map(PathBuf::from)).find_map(|p| std::fs::read(p).ok());
    if let Some(certificates) = bundle.as_deref().and_then(parse) {
        roots.add_parsable_certificates(certificates);
    }
    roots.add_parsable_certificates(extra.iter().cloned());
    if roots.is_empty() {
        // Nothing can be trusted then; the error comes with the first connection and says why.
        return Ok(Arc::new(Pinned { inner: None, named: extra, provider: Arc::clone(provider) }));
    }
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|e| RegistryError::BadCertificates(e.to_string()))?;
    Ok(Arc::new(Pinned { inner: Some(inner), named: extra, provider: Arc::clone(provider) }))
}

/// webpki, plus: a certificate that was itself named as trusted is, even if it is its own authority (the usual result
/// of `openssl req -x509`), which webpki refuses and docker accepts.
#[derive(Debug)]
struct Pinned {
    inner: Option<Arc<WebPkiServerVerifier>>,
    named: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let verified =
            self.inner.as_ref().ok_or_else(unknown).and_then(|v| {
                v.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            });
        match verified {
            Err(_) if self.named.iter().any(|p| p.as_ref() == end_entity.as_ref()) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Any certificate, for registries that the person called insecure.
#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

impl ServerCertVerifier for Anything {
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
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
