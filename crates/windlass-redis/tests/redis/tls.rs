//! F31: TLS with an authority of one's own, client certificates, and all that can be wrong with them.

use windlass_redis::{Cause, Class, Error, Link, Options, Tls};
use windlass_testkit::{Certificates, RedisServer, Validity};

use crate::{get, impatient, link, set};

fn with(certificates: &Certificates, port: u16, host: &str, client: bool) -> Link {
    let options = Options::from_parts(host, port, "", None, 0);
    let client = client.then(|| (certificates.client_certificate(), certificates.client_key()));
    Link::new(impatient(options.with_tls(Tls { ca: Some(certificates.ca()), client }))).unwrap()
}

async fn refusal(link: &Link) -> Error {
    link.ping().await.expect_err("the connection is refused")
}

#[tokio::test]
async fn f31_an_own_authority_and_a_client_certificate() {
    let certificates = Certificates::new();
    let server = RedisServer::builder().tls(&certificates).arg("tls-auth-clients", "yes").start();
    let known = with(&certificates, server.port(), "localhost", true);
    set(&known, "k", "over TLS").await.unwrap();
    assert_eq!(get(&known, "k").await, "over TLS");
    assert_eq!(known.shown(), format!("rediss://localhost:{}/0", server.port()));
    let mut messages = windlass_redis::subscribe(&known, "c".to_owned());
    assert_eq!(messages.recv().await, Some(windlass_redis::Message::Subscribed));

    let unknown = with(&certificates, server.port(), "localhost", false);
    assert_eq!(refusal(&unknown).await.cause(), Cause::ClientCertificate);
}

/// Each of them is refused with its reason, and none of them falls back to plain text.
#[tokio::test]
async fn f31_what_is_wrong_with_a_certificate_is_said() {
    let certificates = Certificates::new();
    let server = RedisServer::builder().tls(&certificates).start();
    let port = server.port();
    let check = async |link: Link, cause: Cause| {
        let error = refusal(&link).await;
        assert_eq!(error.cause(), cause, "{error:?}");
        assert_ne!(error.class(), Class::Bug);
        assert!(error.to_string().contains(cause.what().unwrap()), "{error}");
    };
    check(with(&certificates, port, "127.0.0.1", false), Cause::WrongName).await;
    check(with(&Certificates::new(), port, "localhost", false), Cause::UnknownIssuer).await;
    check(link(&format!("rediss://localhost:{port}")), Cause::UnknownIssuer).await;
    check(link(&format!("redis://localhost:{port}")), Cause::PlainToTls).await;

    // What a plain Redis makes of a greeting depends on its bytes: mostly it waits for the rest.
    let plain = RedisServer::start();
    let deaf = refusal(&with(&certificates, plain.port(), "localhost", false)).await;
    assert!(matches!(deaf.cause(), Cause::TlsToPlain | Cause::Timeout), "{deaf:?}");
    let port = plain.port();
    drop(plain);
    check(link(&format!("redis://localhost:{port}")), Cause::Refused).await;

    certificates.renew_server("another.example", Validity::Now);
    server.restart();
    check(with(&certificates, server.port(), "localhost", false), Cause::WrongName).await;
    certificates.renew_server("localhost", Validity::Past);
    server.restart();
    let expired = with(&certificates, server.port(), "localhost", false);
    check(expired.clone(), Cause::Expired).await;

    // The same link goes to work once the certificate is renewed.
    certificates.renew_server("localhost", Validity::Now);
    server.restart();
    windlass_testkit::wait_until(crate::SOON, "the renewed certificate is taken", || async {
        expired.ping().await.is_ok()
    })
    .await;
}

/// A new authority in the same file counts at the next connection.
#[tokio::test]
async fn f31_renewed_files_of_the_client_are_picked_up() {
    let (old, new) = (Certificates::new(), Certificates::new());
    let server = RedisServer::builder().tls(&new).arg("tls-auth-clients", "yes").start();
    let link = with(&old, server.port(), "localhost", true);
    assert_eq!(refusal(&link).await.cause(), Cause::UnknownIssuer);
    let replace = |from: std::path::PathBuf, to: std::path::PathBuf| std::fs::copy(from, to).unwrap();
    replace(new.ca(), old.ca());
    replace(new.client_certificate(), old.client_certificate());
    replace(new.client_key(), old.client_key());
    windlass_testkit::wait_until(crate::SOON, "the new files are read", || async { link.ping().await.is_ok() }).await;
}

/// The server's name is told, so that one address may serve many.
#[tokio::test]
async fn f31_the_name_is_sent_ahead() {
    use tokio::io::AsyncReadExt as _;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = link(&format!("rediss://localhost:{}", listener.local_addr().unwrap().port()));
    let asking = tokio::spawn(async move { link.ping().await });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut hello = vec![0; 4096];
    let n = stream.read(&mut hello).await.unwrap();
    assert!(hello[..n].windows(9).any(|bytes| bytes == b"localhost"));
    drop(stream);
    assert!(asking.await.unwrap().is_err());
}

/// B36: a key that everyone may read stops the start, and so does a file that is no certificate.
#[test]
fn b36_files_are_looked_at() {
    use std::os::unix::fs::PermissionsExt as _;
    let certificates = Certificates::new();
    let client = Some((certificates.client_certificate(), certificates.client_key()));
    let tls = Tls { ca: Some(certificates.ca()), client };
    tls.check().unwrap();
    std::fs::set_permissions(certificates.client_key(), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(tls.check().unwrap_err().to_string().contains("everyone may read this key"));
    std::fs::set_permissions(certificates.client_key(), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(certificates.client_key(), "no key").unwrap();
    assert!(tls.check().is_err());
    let missing = Tls { ca: Some("/nowhere/ca.pem".into()), client: None };
    assert!(missing.check().unwrap_err().to_string().contains("/nowhere/ca.pem"));
}
