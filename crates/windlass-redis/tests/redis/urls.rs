//! URL forms (compat.md §2) and what is refused (B36).

use proptest::prelude::*;
use windlass_redis::Options;

fn shown(url: &str) -> String {
    Options::from_url(url).unwrap_or_else(|e| panic!("{e}")).shown()
}

#[test]
fn every_form_is_read() {
    let check = |url: &str, expected: &str| assert_eq!(shown(url), expected, "{url}");
    check("redis://localhost", "redis://localhost:6379/0");
    check("redis://localhost/", "redis://localhost:6379/0");
    check("redis://localhost:6380/3", "redis://localhost:6380/3");
    check("redis://:pw@localhost", "redis://:***@localhost:6379/0");
    check("redis://app:pw@localhost/1", "redis://app:***@localhost:6379/1");
    check("redis://app:p@ss/w:rd#1?x@localhost/1", "redis://app:***@localhost:6379/1");
    check("redis://[::1]:6380/2", "redis://[::1]:6380/2");
    check("redis://:pw@[fe80::1]", "redis://:***@[fe80::1]:6379/0");
    check("rediss://localhost", "rediss://localhost:6379/0");
    check("redis+sentinel://a,b:1,[::1]/svc/2", "redis+sentinel://a:26379,b:1,[::1]:26379/svc/2");
    check(
        "rediss+sentinel://u:pw@a/svc?sentinel_username=s&sentinel_password=geheim",
        "rediss+sentinel://u:***@a:26379/svc/0",
    );
    check("redis+cluster://a,b:7000", "redis+cluster://a:6379,b:7000");
    check("rediss+cluster://:pw@a/0", "rediss+cluster://:***@a:6379");
    assert!(Options::from_url("redis+cluster://a").unwrap().is_cluster());
    assert!(Options::from_url("rediss://a").unwrap().is_tls());
}

/// B36: what is wrong is said, and how it is right; the password is not.
#[test]
fn b36_bad_urls_are_explained() {
    let check = |url: &str, part: &str| {
        let error = Options::from_url(url).map(|options| options.shown()).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(part) && !text.contains("geheim"), "{url}: {text}");
    };
    check("https://u:geheim@eu1-redis.example:6379", "redis://host:port/db");
    check("localhost:6379", "redis://");
    check("geheim", "redis://");
    check("", "redis://");
    check("rediss://:geheim@localhost#insecure", "certificates are always checked");
    check("redis://:geheim@localhost:notaport", "1 to 65535");
    check("redis://:geheim@localhost:0", "1 to 65535");
    check("redis://:geheim@localhost:65536", "1 to 65535");
    check("redis://:geheim@", "a host is missing");
    check("redis://:geheim@ho st", "no host name");
    check("redis://:geheim@localhost/first", "a database is a number");
    check("redis://geheim@localhost", ":password@");
    check("redis://:geheim@::1", "brackets");
    check("redis://:geheim@[nope]", "IPv6");
    check("redis://:geheim@a,b", "several hosts");
    check("redis://:geheim@a?db=1", "behind a ?");
    check("redis+sentinel://:geheim@a", "service is missing");
    check("redis+sentinel://:geheim@a/s?password=geheim", "sentinel_password");
    check("redis+cluster://:geheim@a/1", "database 0 alone");
    check("redis+magic://:geheim@a", "redis+sentinel://");
}

/// Every byte that is not plain, as `%XX`.
fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric();
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

proptest! {
    /// A password means the same escaped and raw, and never shows; host, port and database are what
    /// was written. The parts alone give the same as the URL.
    #[test]
    fn a_url_is_its_parts(
        user in "[a-z0-9_-]{0,12}",
        password in "\\PC{0,24}",
        host in prop_oneof!["[a-z][a-z0-9-]{0,20}(\\.[a-z]{1,5})?", Just("[::1]".to_owned()), Just("10.0.0.7".to_owned())],
        port in 1..=u16::MAX,
        db in 0..100_u16,
    ) {
        let by_parts = Options::from_parts(&host, port, &user, Some(&password), db);
        let by_escape = Options::from_url(&format!("redis://{user}:{}@{host}:{port}/{db}", escaped(&password))).unwrap();
        prop_assert!(by_escape.same_login(&by_parts) && by_escape.same_place(&by_parts), "{by_escape:?} {by_parts:?}");
        // A raw one may hold anything but what reads as an escape.
        if !password.contains('%') {
            let raw = Options::from_url(&format!("redis://{user}:{password}@{host}:{port}/{db}")).unwrap();
            prop_assert!(raw.same_login(&by_parts) && raw.same_place(&by_parts), "{raw:?} {by_parts:?}");
        }
        let expected = format!("redis://{user}:***@{host}:{port}/{db}");
        prop_assert_eq!(by_parts.shown(), expected);
    }

    /// No text makes the reader panic, and a secret in it is not said.
    #[test]
    fn any_text_is_read_or_refused(before in "[a-z+]{0,10}", user in "[a-z]{0,5}", rest in "\\PC{0,40}") {
        let url = format!("{before}://{user}:geheim@{rest}");
        let text = match Options::from_url(&url) {
            Ok(options) => format!("{options:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!text.contains("geheim"), "{}", text);
    }
}
