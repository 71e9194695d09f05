//! The routes of the card-sheet service that is replaced: `POST /api/generate`, `POST /api/offset`,
//! `GET /api/config`. Its tasks are ours: `/api/tasks/{id}`, `/result`, `DELETE`.
//!
//! Errors are problem JSON whose `code` is the old service's word. What it got wrong and this does
//! not: async generation is served, equal requests are answered from a cache whose key holds
//! order, pairing and quality, uploads travel as digests, results can be fetched from any server,
//! an offset moves pages, a cancel stops the work, and a busy server lowers nothing in silence.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};
use windlass_jobs::JobRecord;
use windlass_pdf::layout::{self, LAYOUTS};

use super::form::{Deck, plain_name};
use super::upload::{self, Upload};
use super::{MAX_WAIT, Waited, enqueue, extend, finished, wait_for};
use crate::Shared;
use crate::auth::Caller;
use crate::local::Place;
use crate::problem::{Code, Problem};

/// The set of layouts of the old service.
const SET: &str = "api";
pub(crate) const FILES: [&str; 3] = ["front_files", "back_files", "double_sided_files"];
pub(crate) const FIELDS: [&str; 16] = [
    "card_size",
    "paper_size",
    "only_fronts",
    "crop",
    "extend_corners",
    "ppi",
    "quality",
    "skip_indices",
    "name",
    "output_images",
    "load_offset",
    "use_cache",
    "stream_output",
    "async_generation",
    "x_offset",
    "y_offset",
];
/// The formats that old clients were told of; more are taken.
const EXTENSIONS: [&str; 7] = ["png", "jpg", "jpeg", "gif", "bmp", "tiff", "webp"];

/// Marks the tasks of old clients: about them the answers have the old words.
const LABELS: [(&str, &str); 1] = [("client", "card-sheets")];

/// The old service's word for a problem with one of its tasks.
pub(crate) fn about(record: &JobRecord, problem: Problem) -> Problem {
    if LABELS.iter().any(|(name, value)| record.options.labels.get(*name).map(String::as_str) != Some(*value)) {
        return problem;
    }
    match problem.code() {
        Code::TaskNotCompleted | Code::TaskFailed | Code::TaskCancelled => {
            worded(problem, "TASK_NOT_COMPLETED", StatusCode::BAD_REQUEST)
        }
        Code::ArtifactNotFound => problem.with("code", "NO_RESULT_FILE"),
        Code::ResultExpired => worded(problem, "FILE_EXPIRED", StatusCode::NOT_FOUND),
        Code::TaskCancelFailed => problem.with("code", "TASK_CANCEL_FAILED"),
        _ => problem,
    }
}

/// The old service's word for a task that is not there, when its id is one of the old service's.
pub(crate) fn about_id(id: &str, problem: Problem) -> Problem {
    let is_uuid = id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if is_uuid { problem.with("code", "TASK_NOT_FOUND") } else { problem }
}

/// The old service's word for a problem.
fn worded(problem: Problem, code: &str, status: StatusCode) -> Problem {
    problem.with("code", code).status(status)
}

fn invalid(code: &str, detail: impl Into<String>) -> Problem {
    worded(Problem::new(Code::ArgsInvalid, detail), code, StatusCode::BAD_REQUEST)
}

/// Gives a problem of ours the word that old clients know.
fn translate(problem: Problem) -> Problem {
    match problem.code() {
        Code::BodyTooLarge => problem.with("code", "FILE_TOO_LARGE"),
        Code::ArgsInvalid | Code::UnknownField | Code::JobInvalid => {
            worded(problem, "INVALID_PARAMETER", StatusCode::BAD_REQUEST)
        }
        Code::BodyUnreadable => worded(problem, "BAD_REQUEST", StatusCode::BAD_REQUEST),
        Code::MediaTypeUnsupported => worded(problem, "NO_FILES", StatusCode::BAD_REQUEST),
        Code::TaskFailed => worded(problem, "GENERATION_ERROR", StatusCode::UNPROCESSABLE_ENTITY),
        Code::ResultExpired => worded(problem, "FILE_EXPIRED", StatusCode::NOT_FOUND),
        _ => problem,
    }
}

/// `GET /api/config`.
pub(crate) async fn config(State(shared): State<Shared>) -> Response {
    let mut cards: Vec<&str> = Vec::new();
    let mut papers: Vec<&str> = Vec::new();
    let mut layouts = Map::new();
    for layout in LAYOUTS.iter().filter(|l| l.set == SET) {
        for (list, word) in [(&mut cards, &layout.card), (&mut papers, &layout.paper)] {
            if !list.contains(&word.as_str()) {
                list.push(word);
            }
        }
        let of_paper = layouts.entry(layout.paper.clone()).or_insert_with(|| json!({}));
        of_paper[&layout.card] = json!({ "template": layout.template, "slots": layout.slots() });
    }
    axum::Json(json!({
        "card_sizes": cards,
        "paper_sizes": papers,
        "layouts": layouts,
        "max_file_size": shared.options.multipart_bytes,
        "allowed_extensions": EXTENSIONS,
        "plugin_games": {},
        "bounds": { "ppi": [72, 600], "quality": [1, 100], "extend_corners": [0, 50], "offset": [-1000, 1000] },
        "optimization_features": {
            "async_generation": true,
            "streaming_output": true,
            "caching": true,
            "parallel_processing": true,
            "memory_optimization": true,
            "progress_tracking": true,
        },
    }))
    .into_response()
}

/// `POST /api/generate`.
pub(crate) async fn generate(
    State(shared): State<Shared>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let place = Place::of(&shared).await;
    let shared = &place.shared;
    let mut upload = upload::read(shared, request, &FILES, &FIELDS).await.map_err(translate)?;
    let form = Form::read(&mut upload)?;
    let name = form.name.clone();
    let wants_task = form.asynchronous;
    if wants_task {
        place.needs_queue()?;
    }
    let args = form.args(upload)?;
    let id = enqueue(shared, &caller, "pdf.card_sheet", &args, &LABELS).await.map_err(translate)?;
    if wants_task {
        return Ok(started("PDF generation started", &id));
    }
    place.mark(answer(shared, &id, name.as_deref().unwrap_or("cards")).await)
}

/// The old service's answer to a task that was started. The gate adds nothing to a success, so the
/// request's id is the task's.
fn started(message: &str, id: &windlass_jobs::JobId) -> Response {
    let body = json!({
        "success": true,
        "message": message,
        "task_id": id,
        "status_url": format!("/api/tasks/{id}"),
        "request_id": id.ulid.to_string(),
    });
    (StatusCode::ACCEPTED, axum::Json(body)).into_response()
}

async fn answer(shared: &Shared, id: &windlass_jobs::JobId, name: &str) -> Result<Response, Problem> {
    match wait_for(shared, id, MAX_WAIT).await.map_err(translate)? {
        Waited::Ended(record) => finished(shared, &record, name).await.map_err(translate),
        Waited::GoesOn => {
            let detail = "the task is not done yet; ask for it at its address";
            Err(Problem::new(Code::SyncTimeout, detail)
                .with("code", "GENERATION_ERROR")
                .with("task_id", id.to_string())
                .with("status_url", format!("/api/tasks/{id}")))
        }
    }
}

/// The options of a request, as old clients send them.
#[derive(Debug)]
struct Form {
    card: String,
    paper: String,
    only_fronts: bool,
    crop: Option<String>,
    extend_corners: i64,
    ppi: Option<i64>,
    quality: Option<i64>,
    skip: Vec<i64>,
    name: Option<String>,
    images: bool,
    use_cache: bool,
    asynchronous: bool,
    offset: (i64, i64),
}

impl Form {
    fn read(upload: &mut Upload) -> Result<Self, Problem> {
        if !upload.has_files() {
            return Err(invalid("NO_FILES", "no files were sent"));
        }
        let mut wrong = Vec::new();
        let mut text = |name: &str| upload.field(name).map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        let mut fields: Map<String, Value> = Map::new();
        for name in FIELDS {
            if let Some(text) = text(name) {
                fields.insert(name.to_owned(), text.into());
            }
        }
        let word = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut flag = |name: &str, default: bool| match word(name).map(|t| t.to_lowercase()).as_deref() {
            None => default,
            Some("true" | "1" | "on" | "yes") => true,
            Some("false" | "0" | "off" | "no") => false,
            Some(other) => {
                wrong.push(format!("{name} is {other:?}; allowed: true, false"));
                default
            }
        };
        let (only_fronts, images) = (flag("only_fronts", false), flag("output_images", false));
        let (use_cache, asynchronous) = (flag("use_cache", true), flag("async_generation", false));
        // An answer is streamed either way.
        let _streamed = flag("stream_output", false);
        if flag("load_offset", false) {
            wrong.push("load_offset: no offset is saved on the server; send x_offset and y_offset".to_owned());
        }
        let mut number = |name: &str, low: i64, high: i64| {
            let text = word(name)?;
            let value = text.parse().ok().filter(|n| (low..=high).contains(n));
            if value.is_none() {
                wrong.push(format!("{name} is {text:?}; allowed: {low} to {high}"));
            }
            value
        };
        let (ppi, quality) = (number("ppi", 72, 600), number("quality", 1, 100));
        let extend_corners = number("extend_corners", 0, 50).unwrap_or(0);
        let offset = (number("x_offset", -1000, 1000).unwrap_or(0), number("y_offset", -1000, 1000).unwrap_or(0));
        let mut skip = Vec::new();
        for part in word("skip_indices").unwrap_or_default().split(',').map(str::trim).filter(|t| !t.is_empty()) {
            match part.parse() {
                Ok(index) => skip.push(index),
                Err(_) => wrong.push(format!("skip_indices has {part:?}; allowed: numbers with commas between them")),
            }
        }
        if !wrong.is_empty() {
            return Err(invalid("INVALID_PARAMETER", format!("Invalid parameter: {}", wrong.join("; "))));
        }
        Ok(Self {
            card: word("card_size").unwrap_or_else(|| "standard".into()),
            paper: word("paper_size").unwrap_or_else(|| "letter".into()),
            only_fronts,
            crop: word("crop"),
            extend_corners,
            ppi,
            quality,
            skip,
            name: word("name"),
            images,
            use_cache,
            asynchronous,
            offset,
        })
    }

    /// The args of the job.
    fn args(self, mut upload: Upload) -> Result<Value, Problem> {
        let Some(layout) = layout::find(SET, &self.paper, &self.card, "default") else {
            let detail = format!(
                "Invalid size: there is no {:?} on {:?}; see /api/config",
                plain_name(&self.card),
                plain_name(&self.paper)
            );
            return Err(invalid("INVALID_SIZE", detail));
        };
        let fronts = upload.files("front_files");
        if fronts.is_empty() {
            return Err(invalid("NO_FRONT_IMAGES", "no front pictures were sent"));
        }
        let deck = Deck::new(fronts, upload.files("back_files"), upload.files("double_sided_files"));
        let mut deck = deck.map_err(|detail| invalid("INVALID_PARAMETER", detail))?;
        if self.only_fronts {
            if deck.has_own_backs() {
                return Err(invalid("INVALID_PARAMETER", "only_fronts excludes double_sided_files"));
            }
            // The old service left it unused in silence; nothing would be printed of it.
            deck = deck.without_back();
        }
        let mut args = Map::new();
        deck.write(&mut args);
        // A place that is not on the sheet was passed over.
        let slots = layout.slots();
        let skip: Vec<i64> = self.skip.into_iter().filter(|s| usize::try_from(*s).is_ok_and(|s| s < slots)).collect();
        extend(
            &mut args,
            json!({
                "layout": { "set": SET, "paper": self.paper, "card": self.card },
                "sides": if self.only_fronts { "fronts" } else { "duplex" },
                "order": "peer",
                "crop": { "fronts": self.crop },
                "extend_corners": { "fronts": self.extend_corners, "backs": self.extend_corners },
                "skip": skip,
                "label": { "name": self.name },
                "cache": if self.use_cache { "use" } else { "refresh" },
            }),
        );
        if !self.only_fronts {
            extend(&mut args, json!({ "offset": { "x": self.offset.0, "y": self.offset.1 } }));
        }
        // Resolution and quality mean something only for pages that are pictures.
        if self.images || self.ppi.is_some() || self.quality.is_some() {
            let (ppi, quality) = (self.ppi.unwrap_or(300), self.quality.unwrap_or(75));
            let format = if self.images { "png" } else { "pdf" };
            extend(
                &mut args,
                json!({ "mode": "raster", "ppi": ppi, "quality": quality, "output": { "format": format } }),
            );
        }
        name_all(&mut args);
        Ok(Value::Object(args))
    }
}

/// Order "peer" sorts by name; a file without one comes in the order it was sent.
fn name_all(args: &mut Map<String, Value>) {
    let Some(Value::Array(cards)) = args.get_mut("cards") else { return };
    for (index, card) in cards.iter_mut().enumerate() {
        if card.get("name").is_none() {
            card["name"] = format!("{index}").into();
        }
    }
}

/// `POST /api/offset`: `pdf_file`, `x_offset`, `y_offset` in pixels at `ppi`.
pub(crate) async fn offset(
    State(shared): State<Shared>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let fields = ["x_offset", "y_offset", "ppi", "stream_output", "async_generation"];
    let place = Place::of(&shared).await;
    let shared = &place.shared;
    let mut upload = upload::read(shared, request, &["pdf_file"], &fields).await.map_err(translate)?;
    let Some(file) = upload.files("pdf_file").into_iter().next() else {
        return Err(invalid("NO_PDF_FILE", "no PDF file was sent"));
    };
    let mut wrong = Vec::new();
    let mut number = |name: &str, default: i64, (low, high): (i64, i64)| {
        let Some(text) = upload.field(name).map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()) else {
            return default;
        };
        text.parse().ok().filter(|n| (low..=high).contains(n)).unwrap_or_else(|| {
            wrong.push(format!("{name} is {text:?}; allowed: {low} to {high}"));
            default
        })
    };
    let (x, y) = (number("x_offset", 0, (-1000, 1000)), number("y_offset", 0, (-1000, 1000)));
    let ppi = number("ppi", 300, (1, 600));
    if !wrong.is_empty() {
        return Err(invalid("INVALID_OFFSET", format!("Invalid offset parameter: {}", wrong.join("; "))));
    }
    let asynchronous = upload.field("async_generation").is_some_and(|t| t.trim().eq_ignore_ascii_case("true"));
    if asynchronous {
        place.needs_queue()?;
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 1000")]
    let px300 = |value: i64| value as f64 * 300.0 / ppi as f64;
    let args = json!({ "pdf": file.digest.to_string(), "x": px300(x), "y": px300(y) });
    let id = enqueue(shared, &caller, "pdf.offset", &args, &LABELS).await.map_err(|problem| match problem.code() {
        Code::ArgsInvalid => worded(problem, "INVALID_OFFSET", StatusCode::BAD_REQUEST),
        _ => problem,
    })?;
    if asynchronous {
        return Ok(started("PDF offset started", &id));
    }
    place.mark(answer(shared, &id, "cards_offset").await)
}
