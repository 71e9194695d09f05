//! What all pages have in common: the frame, assets, and how values are written.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use windlass_jobs::{State as JobState, Timestamp};

use super::{Body, html as answer};
use crate::Shared;
use crate::problem::{Code, Problem};

/// The page that is in the menu only where something is traded.
const POSITIONS: &str = "/positions";
/// The pages of the menu: path, name.
const MENU: [(&str, &str); 9] = [
    ("/", "Overview"),
    ("/queues", "Queues"),
    ("/tasks", "Tasks"),
    ("/workers", "Workers"),
    ("/schedules", "Schedules"),
    (POSITIONS, "Positions"),
    ("/images", "Images"),
    ("/caches", "Caches"),
    ("/settings", "Settings"),
];

/// A whole page.
pub(super) fn whole(shared: &Shared, uri: &Uri, headers: &HeaderMap, body: &Body) -> Response {
    let base = shared.options.base_path.as_str();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let live = match uri.path() {
        "/" => format!("{base}/ui/live/overview{query}"),
        path => format!("{base}/ui/live{path}{query}"),
    };
    let live = (!body.done).then_some(live);
    let signed_in = crate::session::is_brought(headers);
    let at = At { base, path: uri.path(), has_market: shared.dashboard.has_market(), signed_in };
    answer(frame(&at, &body.title, live.as_deref(), &body.content))
}

/// Where a page is, and for whom.
struct At<'a> {
    base: &'a str,
    path: &'a str,
    /// Something is traded here.
    has_market: bool,
    signed_in: bool,
}

fn frame(at: &At<'_>, title: &str, live: Option<&str>, content: &Markup) -> Markup {
    let At { base, path, has_market, signed_in } = *at;
    let is_at = |at: &str| if at == "/" { path == "/" } else { path.starts_with(at) };
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(base, title, true))
            body {
                a class="skip" href="#content" { "To the content" }
                header {
                    a class="brand" href={ (base) "/" } {
                        img src={ (base) "/ui/assets/icon.svg" } alt="" width="24" height="24";
                        "Windlass"
                    }
                    nav aria-label="Pages" {
                        @for (at, name) in MENU.iter().filter(|(at, _)| *at != POSITIONS || has_market) {
                            a href={ (base) (at) } aria-current=[is_at(at).then_some("page")] { (name) }
                        }
                    }
                    form class="search" action={ (base) "/tasks" } role="search" {
                        input type="search" name="id" placeholder="Task id" aria-label="Find a task by its id";
                    }
                    @if signed_in { (button(&format!("{base}/logout"), "Sign out", &[], false)) }
                    span id="live" class="sign" title="How live this page is" aria-live="polite" {}
                }
                main id="content" data-live=[live] tabindex="-1" { (content) }
            }
        }
    }
}

/// A page that says what went wrong.
pub(crate) fn problem_page(base: &str, has_market: bool, title: &str, detail: &str, request_id: &str) -> Response {
    let content = html! {
        section class="problem" {
            h1 { (title) }
            p { (detail) }
            p class="quiet" { "Request " code { (request_id) } }
            p { a href={ (base) "/" } { "To the overview" } }
        }
    };
    answer(frame(&At { base, path: "", has_market, signed_in: false }, title, None, &content))
}

/// A page without the menu, for those who are not let in yet.
pub(super) fn bare(base: &str, title: &str, content: &Markup) -> Response {
    answer(html! {
        (DOCTYPE)
        html lang="en" {
            (head(base, title, false))
            body class="bare" { main { (content) } }
        }
    })
}

fn head(base: &str, title: &str, scripts: bool) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " · Windlass" }
            link rel="icon" href={ (base) "/ui/assets/icon.svg" };
            link rel="stylesheet" href={ (base) "/ui/assets/dashboard.css" };
            @if scripts {
                script src={ (base) "/ui/assets/idiomorph-0.8.0.min.js" } defer {}
                script src={ (base) "/ui/assets/live.js" } defer {}
            }
        }
    }
}

/// The files the pages load, compiled in.
const ASSETS: [(&str, &str, &str); 4] = [
    ("dashboard.css", "text/css; charset=utf-8", include_str!("../../assets/dashboard.css")),
    ("live.js", "text/javascript; charset=utf-8", include_str!("../../assets/live.js")),
    ("idiomorph-0.8.0.min.js", "text/javascript; charset=utf-8", include_str!("../../assets/idiomorph-0.8.0.min.js")),
    ("icon.svg", "image/svg+xml", include_str!("../../assets/icon.svg")),
];

/// `GET /ui/assets/{file}`: a browser asks each time whether it has changed, by its ETag.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let Some((_, media_type, text)) = ASSETS.iter().find(|(known, ..)| *known == name) else {
        return Err(Problem::new(Code::NotFound, "there is no such asset"));
    };
    let etag = format!("\"{}\"", windlass_store::Digest::of(text.as_bytes()).hex());
    let fresh = headers.get(header::IF_NONE_MATCH).is_some_and(|given| given.as_bytes() == etag.as_bytes());
    let mut response = if fresh {
        axum::http::StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, *media_type)], *text).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    Ok(response)
}

/// A span in its largest two units: `850 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub(super) fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let two = |large: u64, unit: &str, small: u64, part: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {part}"),
    };
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// An instant as `3 s ago` or `in 2 min`, with the instant itself at hand.
pub(super) fn moment(at: Timestamp) -> Markup {
    let now = Timestamp::now();
    let ms = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let text = match (at.0 - now.0).abs() {
        0..1000 => "now".to_owned(),
        _ if at > now => format!("in {}", span(ms(at.since(now)) / 1000 * 1000)),
        _ => format!("{} ago", span(ms(now.since(at)) / 1000 * 1000)),
    };
    html! { time datetime=(at) title=(at) { (text) } }
}

/// A whole number with thin spaces between thousands.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// Bytes in the largest unit that leaves at least one: `512 B`, `1.5 MB`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}

/// A rate with as many digits as help.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0/s".to_owned(),
        r if r < 10.0 => format!("{r:.1}/s"),
        r => format!("{r:.0}/s"),
    }
}

/// A state as a coloured word.
pub(super) fn state(state: JobState) -> Markup {
    html! { span class={ "state " (state.as_str()) } { (state.as_str()) } }
}

/// A form of one button that posts to `to`, with hidden fields.
pub(super) fn button(to: &str, label: &str, fields: &[(&str, &str)], danger: bool) -> Markup {
    html! {
        form method="post" action=(to) class="inline" {
            @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
            button class=[danger.then_some("danger")] { (label) }
        }
    }
}

/// The note above a page whose figures are old.
pub(super) fn away(away: bool) -> Markup {
    if away {
        html! { p class="alarm" role="alert" { "The queue does not answer. What is shown is what was last known." } }
    } else {
        PreEscaped(String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_numbers_and_bytes_are_short() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1000, "1 s"),
            (61_000, "1 min 1 s"),
            (3_600_000, "1 h"),
            (7_500_000, "2 h 5 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(ms), text);
        }
        assert_eq!(number(7), "7");
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_500_000), "1.5 MB");
        assert_eq!(rate(0.25), "0.2/s");
    }
}
