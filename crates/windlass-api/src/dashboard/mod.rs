//! The dashboard: pages for operators, rendered here, kept live by one event stream each.
//!
//! A page and its stream are the same function: [`Page::render`]. The stream sends the page's body
//! again whenever it has changed, and a small script lays it over the one that is shown. Without
//! the script everything works, only not live. Nothing here answers anything but HTML and assets.

mod actions;
mod login;
mod overview;
mod plot;
mod positions;
mod queues;
mod sample;
mod schedules;
mod stores;
mod task;
mod tasks;
mod view;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures_util::stream;
use maud::Markup;
use tokio::sync::{OnceCell, OwnedSemaphorePermit};
use windlass_jobs::JobId;

use crate::Scope;
use crate::auth::{self, Caller};
use crate::problem::{Code, Problem};
use crate::routes::{self, Route, Sees, route};
use crate::{Inner, Shared};
use sample::Sampler;
pub(crate) use sample::{QueueSample, Sample};

/// The routes of pages, forms and assets; they are not part of the API's document.
pub(crate) const ROUTES: &[Route] = &[
    page("/", Scope::JobsRead),
    page("/queues", Scope::JobsRead),
    page("/workers", Scope::JobsRead),
    page("/tasks", Scope::JobsRead),
    page("/tasks/{id}", Scope::JobsRead),
    page("/schedules", Scope::SchedulesRead),
    page("/schedules/{name}", Scope::SchedulesRead),
    page("/positions", Scope::TradingRead),
    page("/positions/{id}", Scope::TradingRead),
    page("/images", Scope::ImagesRead),
    page("/caches", Scope::CacheRead),
    page("/settings", Scope::AdminSettings),
    page("/ui/live/{*page}", Scope::JobsRead),
    route("POST", "/ui/tasks", Scope::JobsWrite, Sees::All),
    route("POST", "/ui/queues/{queue}/{verb}", Scope::AdminQueues, Sees::All),
    route("POST", "/ui/schedules/{name}/{verb}", Scope::SchedulesWrite, Sees::All),
    route("GET", "/login", Scope::Public, Sees::Shared),
    route("POST", "/login", Scope::Public, Sees::Shared),
    route("POST", "/logout", Scope::Public, Sees::Shared),
    route("GET", "/ui/assets/{file}", Scope::Public, Sees::Shared),
];

/// A page: it shows what is everybody's, so that a tenant's key is refused.
const fn page(path: &'static str, scope: Scope) -> Route {
    route("GET", path, scope, Sees::All)
}

/// What the pages of one process share.
#[derive(Debug, Default)]
pub(crate) struct Dashboard {
    sampler: OnceCell<Arc<Sampler>>,
    /// Something is traded here.
    market: AtomicBool,
    tables: positions::Tables,
}

impl Dashboard {
    /// Begins to look at the queues, so that the first page finds a history.
    pub(crate) async fn begin(&self, shared: &Inner) {
        self.sampler(shared).await;
    }

    /// The last look at the queues.
    pub(crate) async fn latest(&self, shared: &Inner) -> Arc<Sample> {
        self.sampler(shared).await.latest().await
    }

    /// Whether the menu leads to positions: once something is traded, it does.
    fn has_market(&self) -> bool {
        self.market.load(Ordering::Relaxed)
    }

    /// Looks whether something is traded, for a moment: a page does not wait for the market's tables.
    async fn look_for_market(&self, shared: &Inner) {
        if !self.has_market()
            && let Ok(true) = tokio::time::timeout(MARKET_LOOK, shared.market.is_in_use()).await
        {
            self.market.store(true, Ordering::Relaxed);
        }
    }

    /// The looks at the queues.
    async fn sampler(&self, shared: &Inner) -> &Arc<Sampler> {
        let begin = async || Sampler::start(shared.broker.clone(), shared.shutdown.clone());
        self.sampler.get_or_init(begin).await
    }
}

/// How long a page waits for the market's tables to say whether something is traded.
const MARKET_LOOK: Duration = Duration::from_millis(200);

/// The pages' part of the router.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/", get(show))
        .route("/queues", get(show))
        .route("/workers", get(show))
        .route("/tasks", get(show))
        .route("/tasks/{id}", get(show))
        .route("/schedules", get(show))
        .route("/schedules/{name}", get(show))
        .route("/positions", get(show))
        .route("/positions/{id}", get(show))
        .route("/images", get(show))
        .route("/caches", get(show))
        .route("/settings", get(show))
        .route("/ui/live/{*page}", get(live))
        .route("/ui/tasks", post(actions::tasks))
        .route("/ui/queues/{queue}/{verb}", post(actions::queue))
        .route("/ui/schedules/{name}/{verb}", post(actions::schedule))
        .route("/login", get(login::form).post(login::login))
        .route("/logout", post(login::logout))
        .route("/ui/assets/{file}", get(view::asset))
}

/// True for a path that is answered with pages: its errors are pages too.
pub(crate) fn is_page(path: &str) -> bool {
    ROUTES.iter().any(|route| route.path == path)
}

/// What went wrong with a page, as a page: whoever is not let in is asked to sign in.
pub(crate) fn problem(shared: &Inner, uri: &Uri, problem: Problem, request_id: &str) -> Response {
    let base = shared.options.base_path.as_str();
    if problem.code() != Code::Unauthorized {
        return problem.render_page(base, shared.dashboard.has_market(), request_id);
    }
    // A form is not sent again by itself: its page is where it goes on.
    let path =
        if uri.path().starts_with("/ui/") { "/" } else { uri.path_and_query().map_or("/", |path| path.as_str()) };
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("back", path).finish();
    actions::lead(&format!("{base}/login?{query}"))
}

/// A page, read from its path and query.
#[derive(Debug, Clone, PartialEq)]
enum Page {
    Overview,
    Queues,
    Workers,
    Tasks(tasks::Wish),
    Task(JobId),
    Schedules,
    Schedule(String),
    Positions(positions::Wish),
    Position(i64),
    Images(stores::ImagesWish),
    Caches,
    Settings,
}

/// What a page shows.
struct Body {
    title: String,
    content: Markup,
    /// Nothing more will change.
    done: bool,
}

impl Body {
    fn new(title: impl Into<String>, content: Markup) -> Self {
        Self { title: title.into(), content, done: false }
    }

    /// In place of a task that was there.
    fn gone() -> Self {
        let content = maud::html! { p class="empty" { "This task was deleted, or is past retention." } };
        Self { done: true, ..Self::new("Task", content) }
    }
}

impl Page {
    fn read(path: &str, query: &str) -> Result<Self, Problem> {
        let nothing = || Problem::new(Code::NotFound, "there is no such page");
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query)
            .map_err(|_| Problem::new(Code::QueryInvalid, "the query cannot be read"))?;
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        Ok(match parts.as_slice() {
            [""] => Self::Overview,
            ["queues"] => Self::Queues,
            ["workers"] => Self::Workers,
            ["tasks"] => Self::Tasks(tasks::Wish::read(&pairs)?),
            ["tasks", id] => Self::Task(id.parse().map_err(|_| nothing())?),
            ["schedules"] => Self::Schedules,
            ["schedules", name] => Self::Schedule((*name).to_owned()),
            ["positions"] => Self::Positions(positions::Wish::read(&pairs)?),
            ["positions", id] => Self::Position(id.parse().map_err(|_| nothing())?),
            ["images"] => Self::Images(stores::ImagesWish::read(&pairs)?),
            ["caches"] => Self::Caches,
            ["settings"] => Self::Settings,
            _ => return Err(nothing()),
        })
    }

    /// The path of its route: whoever may not open the page gets no stream of it either.
    const fn route(&self) -> &'static str {
        match self {
            Self::Overview => "/",
            Self::Queues => "/queues",
            Self::Workers => "/workers",
            Self::Tasks(_) => "/tasks",
            Self::Task(_) => "/tasks/{id}",
            Self::Schedules => "/schedules",
            Self::Schedule(_) => "/schedules/{name}",
            Self::Positions(_) => "/positions",
            Self::Position(_) => "/positions/{id}",
            Self::Images(_) => "/images",
            Self::Caches => "/caches",
            Self::Settings => "/settings",
        }
    }

    async fn render(&self, shared: &Shared, caller: &Caller, sample: &Sample) -> Result<Body, Problem> {
        match self {
            Self::Overview => Ok(overview::body(shared, sample).await),
            Self::Queues => Ok(queues::body(shared, sample)),
            Self::Workers => Ok(overview::workers(shared, sample)),
            Self::Tasks(wish) => tasks::body(shared, sample, wish).await,
            Self::Task(id) => task::body(shared, id).await,
            Self::Schedules => schedules::list(shared).await,
            Self::Schedule(name) => schedules::one(shared, name).await,
            Self::Positions(wish) => positions::list(shared, caller, wish).await,
            Self::Position(id) => positions::one(shared, caller, *id).await,
            Self::Images(wish) => stores::images(shared, wish).await,
            Self::Caches => stores::caches(shared).await,
            Self::Settings => Ok(stores::settings(shared)),
        }
    }
}

/// Any page, whole.
async fn show(State(shared): State<Shared>, caller: Caller, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let page = Page::read(uri.path(), uri.query().unwrap_or_default())?;
    if let Page::Tasks(tasks::Wish { id: Some(id), .. }) = &page {
        let id: JobId = id.parse().map_err(|_| Problem::new(Code::TaskNotFound, "this is no id of a task"))?;
        return Ok(actions::to(&shared, &format!("/tasks/{id}")));
    }
    let sample = shared.dashboard.latest(&shared).await;
    shared.dashboard.look_for_market(&shared).await;
    let body = page.render(&shared, &caller, &sample).await?;
    Ok(view::whole(&shared, &uri, &headers, &body))
}

/// `GET /ui/live/{page}`: the page's body as it is now, and again each time it changes.
async fn live(State(shared): State<Shared>, caller: Caller, uri: Uri) -> Result<Response, Problem> {
    let path = uri.path().strip_prefix("/ui/live").unwrap_or_default();
    // The overview is the page without a name; a path must have one.
    let path = if path == "/overview" { "/" } else { path };
    let page = Page::read(path, uri.query().unwrap_or_default())?;
    if let Some(route) = routes::find("GET", page.route()) {
        auth::check_scope(&caller, route)?;
    }
    let Ok(permit) = Arc::clone(&shared.streams).try_acquire_owned() else {
        let detail = format!("{} event streams are open", shared.options.event_streams);
        return Err(Problem::new(Code::TooManyStreams, detail).retry_after(5));
    };
    let mut signals = None;
    if let Page::Task(id) = &page {
        signals = Some(shared.broker.watch(id).await);
    }
    let looks = shared.dashboard.sampler(&shared).await.looks();
    let live = Live { page, caller, looks, signals, seen: None, is_stale: true, shared, _permit: permit };
    let events = stream::unfold(Some(live), |live| async move {
        let mut live = live?;
        let (event, done) = live.next().await?;
        Some((Ok::<_, Infallible>(event), (!done).then_some(live)))
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    response.headers_mut().insert(NO_BUFFER, HeaderValue::from_static("no"));
    Ok(response)
}

/// How often a comment is sent, so that proxies keep the stream and a vanished client is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Tells a proxy to pass events on at once.
const NO_BUFFER: HeaderName = HeaderName::from_static("x-accel-buffering");
/// A page is sent at most so often.
const CALM: Duration = Duration::from_millis(150);

/// One open page.
struct Live {
    shared: Shared,
    page: Page,
    caller: Caller,
    looks: tokio::sync::watch::Receiver<Arc<Sample>>,
    /// Words about the job of a job's page.
    signals: Option<tokio::sync::mpsc::UnboundedReceiver<()>>,
    /// What was sent last; `None` before anything was.
    seen: Option<String>,
    /// Something may have changed since the page was last rendered.
    is_stale: bool,
    _permit: OwnedSemaphorePermit,
}

impl Live {
    /// The next event, and whether it is the last; `None` when the server stops.
    async fn next(&mut self) -> Option<(Event, bool)> {
        let shutdown = self.shared.shutdown.clone();
        loop {
            if !std::mem::take(&mut self.is_stale) {
                tokio::select! {
                    () = shutdown.cancelled() => return None,
                    () = self.word() => {}
                }
            }
            let sample = Arc::clone(&self.looks.borrow_and_update());
            let body = match self.page.render(&self.shared, &self.caller, &sample).await {
                Ok(body) => body,
                Err(problem) if problem.code() == Code::TaskNotFound => Body::gone(),
                // The queue is away: what is shown stays.
                Err(_) => continue,
            };
            let html = body.content.into_string();
            if self.seen.as_ref() != Some(&html) {
                let event = Event::default().event(if body.done { "done" } else { "page" }).data(&html);
                self.seen = Some(html);
                return Some((event, body.done));
            }
        }
    }

    /// Waits until the page may have changed.
    async fn word(&mut self) {
        match &mut self.signals {
            Some(signals) => {
                tokio::select! {
                    _ = self.looks.changed() => {}
                    Some(()) = signals.recv() => {}
                }
                tokio::time::sleep(CALM).await;
                while signals.try_recv().is_ok() {}
            }
            None => {
                let _ = self.looks.changed().await;
            }
        }
    }
}

/// What pages may load: their own script, style, pictures and documents, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// An answer in HTML.
fn html(markup: Markup) -> Response {
    let mut response = markup.into_string().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

pub(crate) use view::problem_page;
