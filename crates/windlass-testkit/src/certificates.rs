//! A private authority, a server's certificate and a client's, in a folder that goes with its test.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// When a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// For decades.
    Now,
    /// Until a day long gone.
    Past,
}

/// An authority of this test's own, and what it has signed: PEM files.
///
/// The server's certificate is for the name `localhost` alone, not for an address.
#[derive(Debug)]
pub struct Certificates {
    dir: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    /// Makes all of them.
    ///
    /// # Panics
    /// When the temp dir cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("windlass-tls-").tempdir().expect("a temp dir can be made");
        let mut params = params("windlass test authority", &[], Validity::Now);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, key()).expect("a certificate signs itself");
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).expect("the temp dir is writable");
        let made = Self { dir, ca };
        made.renew_server("localhost", Validity::Now);
        made.sign("client", "windlass test client", &[], Validity::Now);
        made
    }

    /// Signs a new certificate for the server, over the old one. A server that runs goes on with
    /// what it has read.
    pub fn renew_server(&self, name: &str, validity: Validity) {
        self.sign("server", name, &[name], validity);
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The authority's certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The server's certificate.
    #[must_use]
    pub fn server_certificate(&self) -> PathBuf {
        self.dir.path().join("server.pem")
    }

    /// Its key.
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        self.dir.path().join("server.key")
    }

    /// A client's certificate.
    #[must_use]
    pub fn client_certificate(&self) -> PathBuf {
        self.dir.path().join("client.pem")
    }

    /// Its key, which nobody else may read.
    #[must_use]
    pub fn client_key(&self) -> PathBuf {
        self.dir.path().join("client.key")
    }

    fn sign(&self, file: &str, common_name: &str, names: &[&str], validity: Validity) {
        let key = key();
        let signed = params(common_name, names, validity).signed_by(&key, &self.ca).expect("the authority signs");
        let path = self.dir.path().join(file);
        std::fs::write(path.with_extension("pem"), signed.pem()).expect("the temp dir is writable");
        let key_file = path.with_extension("key");
        std::fs::write(&key_file, key.serialize_pem()).expect("the temp dir is writable");
        std::fs::set_permissions(key_file, std::fs::Permissions::from_mode(0o600)).expect("it is this user's file");
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}

fn params(common_name: &str, names: &[&str], validity: Validity) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("the names are DNS names");
    params.distinguished_name.push(DnType::CommonName, common_name);
    (params.not_before, params.not_after) = match validity {
        Validity::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2060, 1, 1)),
        Validity::Past => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
    };
    params
}
