//! TLS: whose certificates are trusted, and who this client is.
//!
//! Certificates are always checked, and so is the name in them: there is no switch against it.

use std::path::{Path, PathBuf};
use std::sync::Once;

use redis::{Client, ClientTlsConfig, ConnectionInfo, TlsCertificates};

/// Files in PEM format. They are read at each connection, so that renewed ones count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authorities whose certificates are trusted; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// This client's certificate with its chain, and its key, for servers that want one.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A file of [`Tls`] that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {why}", file.display())]
pub struct BadTls {
    /// Which.
    pub file: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl Tls {
    /// Reads the files once and says what is wrong with them. A key that every user of the machine
    /// may read is refused.
    ///
    /// # Errors
    /// [`BadTls`].
    pub fn check(&self) -> Result<(), BadTls> {
        if let Some((_, key)) = &self.client {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(key).map_err(|e| bad(key, &e))?.permissions().mode();
            if mode & 0o004 != 0 {
                return Err(bad(key, &"everyone may read this key; take that right away (chmod o-r)"));
            }
        }
        let certificates = self.read()?;
        // Parsed by the client it is for, at an address that is never contacted.
        use redis::IntoConnectionInfo as _;
        let nowhere =
            redis::ConnectionAddr::TcpTls { host: "localhost".to_owned(), port: 1, insecure: false, tls_params: None };
        let first = self.ca.as_ref().or(self.client.as_ref().map(|(certificate, _)| certificate));
        let file = first.cloned().unwrap_or_default();
        let made = nowhere.into_connection_info().and_then(|info| Client::build_with_tls(info, certificates));
        made.map(drop).map_err(|e| bad(&file, &e))
    }

    pub(crate) fn read(&self) -> Result<TlsCertificates, BadTls> {
        let bytes = |path: &Path| std::fs::read(path).map_err(|e| bad(path, &e));
        let client_tls = match &self.client {
            Some((certificate, key)) => {
                Some(ClientTlsConfig { client_cert: bytes(certificate)?, client_key: bytes(key)? })
            }
            None => None,
        };
        Ok(TlsCertificates { client_tls, root_cert: self.ca.as_deref().map(bytes).transpose()? })
    }
}

fn bad(file: &Path, why: &dyn std::fmt::Display) -> BadTls {
    BadTls { file: file.to_owned(), why: why.to_string() }
}

/// A client for one server, with the certificates as they are now.
pub(crate) fn client(info: ConnectionInfo, tls: Option<&Tls>) -> Result<Client, redis::RedisError> {
    let Some(tls) = tls else { return Client::open(info) };
    Client::build_with_tls(info, certificates(tls)?)
}

/// The certificates as they are now, for the client's library.
pub(crate) fn certificates(tls: &Tls) -> Result<TlsCertificates, redis::RedisError> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Fails when the process has chosen one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    tls.read().map_err(|e| {
        redis::RedisError::from((redis::ErrorKind::InvalidClientConfig, "certificate file", e.to_string()))
    })
}
