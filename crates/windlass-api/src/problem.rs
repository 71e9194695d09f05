//! Errors as RFC 9457 problem JSON: every code once, with its status, title and page.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// Lists every code with its status and title; its page is `docs/errors/<code>.md`.
macro_rules! codes {
    ($($variant:ident $code:literal $status:ident $title:literal)*) => {
        /// What went wrong, as a stable word a program can branch on.
        ///
        /// *Shape*: the member `code` of a problem; `GET /docs/errors/{code}` answers its page.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $variant,)*
        }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The HTTP status it comes with.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// The same sentence every time.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// Its page: what it means and what to do, as Markdown.
            #[must_use]
            pub const fn page(self) -> &'static str {
                match self {
                    $(Self::$variant => include_str!(concat!("../../../docs/errors/", $code, ".md")),)*
                }
            }
        }
    };
}

codes! {
    JsonInvalid "json_invalid" BAD_REQUEST "The body is not acceptable JSON"
    BodyUnreadable "body_unreadable" BAD_REQUEST "The body could not be read to its end"
    TaskCancelFailed "task_cancel_failed" BAD_REQUEST "The task cannot be cancelled any more"
    Unauthorized "unauthorized" UNAUTHORIZED "A valid API key is needed"
    HostRefused "host_refused" FORBIDDEN "The Host header names another host"
    ScopeMissing "scope_missing" FORBIDDEN "The key does not allow this"
    TenantRefused "tenant_refused" FORBIDDEN "A key of a tenant may not do this"
    OriginRefused "origin_refused" FORBIDDEN "The request comes from another site"
    NotFound "not_found" NOT_FOUND "There is nothing at this path"
    TaskNotFound "task_not_found" NOT_FOUND "There is no such task"
    ScheduleNotFound "schedule_not_found" NOT_FOUND "There is no such schedule"
    ArtifactNotFound "artifact_not_found" NOT_FOUND "The task has no such artifact"
    ImageNotFound "image_not_found" NOT_FOUND "There is no such image"
    BlobNotFound "blob_not_found" NOT_FOUND "There is no such blob"
    KeyNotFound "key_not_found" NOT_FOUND "There is no value under this key"
    SessionNotFound "session_not_found" NOT_FOUND "There is no such session"
    ApiKeyNotFound "api_key_not_found" NOT_FOUND "There is no such API key"
    SymbolNotFound "symbol_not_found" NOT_FOUND "There is no such instrument"
    PriceNotFound "price_not_found" NOT_FOUND "There is no price yet"
    PositionNotFound "position_not_found" NOT_FOUND "There is no such position"
    AccountNotFound "account_not_found" NOT_FOUND "There is no such account"
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED "The path does not know this method"
    BodyTimeout "body_timeout" REQUEST_TIMEOUT "The body came too slowly"
    ScheduleExists "schedule_exists" CONFLICT "There is a schedule of this name"
    ScheduleManaged "schedule_managed" CONFLICT "The schedule is not changed here"
    TooManySchedules "too_many_schedules" CONFLICT "There are as many schedules as there may be"
    TooManyKeys "too_many_keys" CONFLICT "There are as many API keys as there may be"
    TaskNotCompleted "task_not_completed" CONFLICT "The task has not ended yet"
    TaskNotFailed "task_not_failed" CONFLICT "The task has not failed"
    TaskFailed "task_failed" CONFLICT "The task failed"
    TaskCancelled "task_cancelled" CONFLICT "The task was cancelled"
    IdempotencyConflict "idempotency_conflict" CONFLICT "The idempotency key came with another body"
    AlreadyClosed "already_closed" CONFLICT "The position is closed already"
    VersionChanged "version_changed" CONFLICT "The position changed meanwhile"
    CloseRefused "close_refused" CONFLICT "The position's own application does not let it close"
    NoFreshPrice "no_fresh_price" CONFLICT "There is no price that is fresh enough"
    LockHeld "lock_held" CONFLICT "Somebody else holds the lock"
    LockLost "lock_lost" CONFLICT "The token does not hold the lock any more"
    NotANumber "not_a_number" CONFLICT "The value cannot be counted up"
    ResultExpired "result_expired" GONE "The result is no longer kept"
    BodyTooLarge "body_too_large" PAYLOAD_TOO_LARGE "The body is over the limit"
    BatchTooLarge "batch_too_large" PAYLOAD_TOO_LARGE "The batch has too many jobs"
    UrlTooLong "url_too_long" URI_TOO_LONG "The URL is over the limit"
    MediaTypeUnsupported "media_type_unsupported" UNSUPPORTED_MEDIA_TYPE "The body's media type is not taken here"
    EncodingUnsupported "encoding_unsupported" UNSUPPORTED_MEDIA_TYPE "The body's content encoding is not taken"
    ScheduleInvalid "schedule_invalid" UNPROCESSABLE_ENTITY "Something is wrong with a schedule"
    JobInvalid "job_invalid" UNPROCESSABLE_ENTITY "Something is wrong with a job"
    UnknownField "unknown_field" UNPROCESSABLE_ENTITY "A field is not known"
    UnknownKind "unknown_kind" UNPROCESSABLE_ENTITY "The kind is not known"
    ArgsInvalid "args_invalid" UNPROCESSABLE_ENTITY "Something is wrong with a job's args"
    BlobMissing "blob_missing" UNPROCESSABLE_ENTITY "A blob that a job needs is not stored"
    DigestMismatch "digest_mismatch" UNPROCESSABLE_ENTITY "The body is not what its name says"
    BodyInvalid "body_invalid" UNPROCESSABLE_ENTITY "Something is wrong with the body"
    NameInvalid "name_invalid" UNPROCESSABLE_ENTITY "A name cannot be used"
    PositionInvalid "position_invalid" UNPROCESSABLE_ENTITY "Something is wrong with a position"
    QueryInvalid "query_invalid" UNPROCESSABLE_ENTITY "Something is wrong with the query"
    IdempotencyKeyInvalid "idempotency_key_invalid" UNPROCESSABLE_ENTITY "The idempotency key cannot be one"
    CursorInvalid "cursor_invalid" UNPROCESSABLE_ENTITY "The cursor is not one of this listing"
    QueueFull "queue_full" TOO_MANY_REQUESTS "The queue holds as many jobs as it may"
    QuotesFull "quotes_full" TOO_MANY_REQUESTS "As many quotes wait as may"
    RateLimited "rate_limited" TOO_MANY_REQUESTS "The key asks too often"
    TooManyStreams "too_many_streams" TOO_MANY_REQUESTS "Too many event streams are open"
    SyncTimeout "sync_timeout" GATEWAY_TIMEOUT "The job is not done within the time a request waits"
    Internal "internal" INTERNAL_SERVER_ERROR "The server made a mistake"
    QueueUnavailable "queue_unavailable" SERVICE_UNAVAILABLE "The queue does not answer"
    StoreFull "store_full" SERVICE_UNAVAILABLE "The queue's store has no room"
    StoreUnavailable "store_unavailable" SERVICE_UNAVAILABLE "The artifact store does not answer"
    MarketUnavailable "market_unavailable" SERVICE_UNAVAILABLE "The tables of the market do not answer"
    WorkerNotReady "worker_not_ready" SERVICE_UNAVAILABLE "The worker takes no jobs"
    WorkerDead "worker_dead" SERVICE_UNAVAILABLE "The worker should be started again"
    Busy "busy" SERVICE_UNAVAILABLE "Too many uploads at once"
    BlobQuotaFull "blob_quota_full" INSUFFICIENT_STORAGE "Uploaded blobs take as much room as they may"
    StorageFull "storage_full" INSUFFICIENT_STORAGE "The artifact store has no room"
}

/// An answer that says what went wrong. The gate writes it, with the request's id, as
///
/// *Shape*: `{"type": "/docs/errors/<code>", "title", "status", "detail", "code",
/// "request_id", "error", …}`; `error` repeats `detail` for clients of the replaced systems.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    code: Code,
    /// In place of the code's own.
    status: Option<StatusCode>,
    detail: String,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem; `detail` is for a person and never holds a secret.
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, status: None, detail: detail.into(), members: Map::new(), headers: Vec::new() }
    }

    /// Its code.
    pub(crate) const fn code(&self) -> Code {
        self.code
    }

    /// The HTTP status it is answered with.
    pub(crate) fn status_code(&self) -> StatusCode {
        self.status.unwrap_or(self.code.status())
    }

    /// What is wrong, for a person.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// With a member of its own.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// With another HTTP status than its code's: the replaced systems had their own.
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// With a header.
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With the advice to come back after some seconds.
    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        self.header(header::RETRY_AFTER, seconds.into())
    }

    /// The answer. `type` is relative, so that it leads to the page this very server serves.
    pub(crate) fn render(self, request_id: &str) -> Response {
        let status = self.status_code();
        let mut body = json!({
            "type": format!("/docs/errors/{}", self.code.as_str()),
            "title": self.code.title(),
            "status": status.as_u16(),
            "detail": self.detail,
            "code": self.code.as_str(),
            "request_id": request_id,
            "error": self.detail,
        });
        if let Value::Object(body) = &mut body {
            body.extend(self.members);
        }
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response.headers_mut().extend(self.headers);
        response
    }
}

impl Problem {
    /// The answer as a page of the dashboard.
    pub(crate) fn render_page(self, base_path: &str, has_market: bool, request_id: &str) -> Response {
        let title = self.code.title();
        let mut response = crate::dashboard::problem_page(base_path, has_market, title, &self.detail, request_id);
        *response.status_mut() = self.status.unwrap_or(self.code.status());
        response.headers_mut().extend(self.headers);
        response
    }
}

impl IntoResponse for Problem {
    /// Only carries the problem to the gate, which renders it.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status_code();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<windlass_broker::Error> for Problem {
    fn from(error: windlass_broker::Error) -> Self {
        use windlass_broker::Error as E;
        tracing::warn!(error = %chain(&error), "broker call failed");
        match error {
            E::Unavailable { .. } | E::Denied { .. } => {
                Self::new(Code::QueueUnavailable, "the queue does not answer at the moment").retry_after(1)
            }
            E::Full { .. } => Self::new(Code::StoreFull, "the queue's store has no room at the moment").retry_after(5),
            E::QueueFull { queue, max_waiting } => {
                let detail = format!("queue {queue} holds {max_waiting} waiting jobs, as many as it may");
                Self::new(Code::QueueFull, detail).retry_after(5)
            }
            E::Unexpected { .. } => Self::new(Code::Internal, "the queue answered something unexpected"),
        }
    }
}

impl From<windlass_store::Error> for Problem {
    fn from(error: windlass_store::Error) -> Self {
        use windlass_store::Error as E;
        tracing::warn!(error = %chain(&error), "artifact store call failed");
        match error {
            E::QuotaFull { max, .. } => {
                let detail = format!("uploaded blobs together may take {max} bytes; the oldest unused ones go first");
                return Self::new(Code::BlobQuotaFull, detail).retry_after(60);
            }
            E::TooLarge { max, .. } => {
                return Self::new(Code::BodyTooLarge, format!("at most {max} bytes are kept of one thing"));
            }
            full if full.is_full() => {
                return Self::new(Code::StorageFull, "the artifact store has no room at the moment").retry_after(60);
            }
            _ => {}
        }
        Self::new(Code::StoreUnavailable, "the artifact store does not answer at the moment").retry_after(1)
    }
}

/// An error with all its sources, for the log.
pub(crate) use windlass_jobs::chain;
