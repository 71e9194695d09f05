//! F30: users, rotated passwords and dropped users.

use windlass_redis::{Cause, Class, Link, Options, cmd};
use windlass_testkit::{RedisServer, wait_until};

use crate::{SOON, impatient, link, set};

async fn acl(admin: &Link, words: &[&str]) {
    let mut command = cmd("ACL");
    command.arg("SETUSER").arg(words);
    admin.call(&command).await.unwrap();
}

#[tokio::test]
async fn f30_a_dropped_and_a_changed_user_are_explained_and_come_back() {
    let server = RedisServer::start();
    let admin = link(&server.url());
    acl(&admin, &["app", "on", ">geheim", "~a:*", "+set", "+ping", "+get"]).await;
    let as_app = |password: &str| {
        Link::new(impatient(Options::from_parts("127.0.0.1", server.port(), "app", Some(password), 0))).unwrap()
    };
    let app = as_app("geheim");
    set(&app, "a:1", "1").await.unwrap();
    let error = set(&app, "b:1", "1").await.unwrap_err();
    assert_eq!((error.class(), error.cause()), (Class::Denied, Cause::NoPermission));
    let error = app.call(&cmd("FLUSHALL")).await.unwrap_err();
    assert_eq!(error.cause(), Cause::NoPermission);
    let wrong = as_app("falsch").ping().await.unwrap_err();
    assert_eq!((wrong.class(), wrong.cause()), (Class::Denied, Cause::WrongPassword), "{wrong:?}");
    assert!(!format!("{wrong} {wrong:?}").contains("falsch"));

    let mut drop_user = cmd("ACL");
    drop_user.arg("DELUSER").arg("app");
    admin.call(&drop_user).await.unwrap();
    wait_until(SOON, "the dropped user is refused", || async {
        app.ping().await.is_err_and(|e| e.cause() == Cause::WrongPassword)
    })
    .await;
    acl(&admin, &["app", "on", ">geheim", "~a:*", "+set", "+ping", "+get"]).await;
    wait_until(SOON, "the user is back", || async { app.ping().await.is_ok() }).await;

    acl(&admin, &["default", "resetpass", ">geheim"]).await;
    let nameless = link(&server.url()).ping().await.unwrap_err();
    assert_eq!((nameless.class(), nameless.cause()), (Class::Denied, Cause::NoAuth), "{nameless:?}");
}
