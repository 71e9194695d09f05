//! Signing in with an API key: the browser then holds a session, never the key.

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use maud::html;

use super::actions::{self, to};
use super::view;
use crate::Shared;
use crate::problem::Problem;
use crate::session;

/// `GET /login?back=PATH`.
pub(super) async fn form(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(&query.unwrap_or_default()).unwrap_or_default();
    let back = pairs.into_iter().find(|(name, _)| name == "back").map_or_else(|| "/".to_owned(), |(_, back)| back);
    page(&shared, &back, false)
}

fn page(shared: &Shared, back: &str, wrong: bool) -> Response {
    let base = shared.options.base_path.as_str();
    view::bare(
        base,
        "Sign in",
        &html! {
            form class="login" method="post" action={ (base) "/login" } {
                img src={ (base) "/ui/assets/icon.svg" } alt="" width="48" height="48";
                h1 { "Windlass" }
                @if wrong { p class="alarm" role="alert" { "This key is not valid." } }
                input type="hidden" name="back" value=(back);
                label { "API key " input type="password" name="key" autocomplete="current-password" required autofocus; }
                button { "Sign in" }
                p class="quiet" { "A key is made by " code { "windlass keys create" } "." }
            }
        },
    )
}

/// `POST /login`: begins a session when the key is valid.
pub(super) async fn login(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let form = actions::read(&shared, &headers, body).await?;
    let one = |wanted: &str| form.iter().find(|(name, _)| name == wanted).map_or("", |(_, value)| value.as_str());
    let (key, back) = (one("key"), one("back"));
    let Some(cookie) = session::begin(&shared, key.trim(), &headers).await else {
        return Ok(page(&shared, back, true));
    };
    let mut response = to(&shared, back);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// `POST /logout`.
pub(super) async fn logout(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    actions::read(&shared, &headers, body).await?;
    session::end(&shared, &headers).await;
    let mut response = to(&shared, "/login");
    let gone = HeaderValue::from_str(&session::cookie(&shared, "", 0, false));
    if let Ok(gone) = gone {
        response.headers_mut().insert(header::SET_COOKIE, gone);
    }
    Ok(response)
}
