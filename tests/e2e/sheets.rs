//! Card sheets over HTTP and from the command line, and the routes of the service they replace.
//! Defects (a) to (k) of that service each have a test that they do not come back.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use windlass_testkit::shared_redis;

use crate::harness::{Home, SOON, wait};

/// A picture of one colour, as PNG with stored blocks.
pub(crate) fn png(width: u32, height: u32, rgb: [u8; 3]) -> Vec<u8> {
    let crc = |bytes: &[u8]| {
        let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        !bytes.iter().fold(!0_u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
    };
    let row: Vec<u8> = std::iter::once(0).chain(std::iter::repeat_n(rgb, width as usize).flatten()).collect();
    let rows: Vec<u8> = std::iter::repeat_n(row, height as usize).flatten().collect();
    let mut packed = vec![0x78, 0x01];
    let last = rows.chunks(0xffff).count() - 1;
    for (i, block) in rows.chunks(0xffff).enumerate() {
        let length = block.len() as u16;
        packed.push(u8::from(i == last));
        packed.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
        packed.extend(block);
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in &rows {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    packed.extend((b << 16 | a).to_be_bytes());
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([8, 2, 0, 0, 0]);
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, body) in [(b"IHDR", &header), (b"IDAT", &packed), (b"IEND", &Vec::new())] {
        out.extend((body.len() as u32).to_be_bytes());
        let part = [kind.as_slice(), body].concat();
        out.extend(&part);
        out.extend(crc(&part).to_be_bytes());
    }
    out
}

pub(crate) fn card(n: u8) -> Vec<u8> {
    png(63, 88, [40 + n * 20, 200 - n * 20, 90])
}

/// A multipart form.
#[derive(Default)]
struct Form(Vec<u8>);

impl Form {
    const BOUNDARY: &str = "windlass-test-boundary";

    fn field(mut self, name: &str, value: &str) -> Self {
        let head =
            format!("--{}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n", Self::BOUNDARY);
        self.0.extend(head.as_bytes());
        self
    }

    fn file(mut self, name: &str, file: &str, bytes: &[u8]) -> Self {
        let head = format!(
            "--{}\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\n\
             content-type: application/octet-stream\r\n\r\n",
            Self::BOUNDARY
        );
        self.0.extend(head.as_bytes());
        self.0.extend(bytes);
        self.0.extend(b"\r\n");
        self
    }

    /// Sends it: status, type of the answer, its headers' `x-cached`, and its body.
    fn post(mut self, url: &str) -> Answer {
        self.0.extend(format!("--{}--\r\n", Self::BOUNDARY).as_bytes());
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let kind = format!("multipart/form-data; boundary={}", Self::BOUNDARY);
        let mut answer = agent.post(url).header("content-type", kind).send(&self.0[..]).unwrap();
        let header =
            |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let (kind, cached, name) = (header("content-type"), header("x-cached"), header("content-disposition"));
        let (status, mut body) = (answer.status().as_u16(), Vec::new());
        answer.body_mut().as_reader().read_to_end(&mut body).unwrap();
        Answer { status, kind, cached, name, body }
    }
}

struct Answer {
    status: u16,
    kind: String,
    cached: String,
    name: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    #[track_caller]
    fn pdf(self) -> Vec<u8> {
        assert_eq!(
            (self.status, self.kind.as_str()),
            (200, "application/pdf"),
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        assert!(self.body.starts_with(b"%PDF-1.7"));
        self.body
    }
}

pub(crate) fn get(url: &str) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent.get(url).call().unwrap();
    (answer.status().as_u16(), answer.body_mut().read_json().unwrap_or(Value::Null))
}

pub(crate) fn bytes(url: &str) -> (u16, Vec<u8>) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent.get(url).call().unwrap();
    let mut body = Vec::new();
    answer.body_mut().as_reader().read_to_end(&mut body).unwrap();
    (answer.status().as_u16(), body)
}

/// Three fronts and a back.
fn deck() -> Form {
    let fronts = (0..3).fold(Form::default(), |form, n| form.file("front_files", &format!("{n}.png"), &card(n)));
    fronts.file("back_files", "back.png", &card(7))
}

/// What a job was enqueued with.
fn args_of(url: &str, task: &str) -> Value {
    get(&format!("{url}/api/tasks/{task}?include=args")).1["args"].clone()
}

/// Defects (a), (e), (f), (g), (j): async generation is served, the job carries digests alone,
/// its result can be fetched, from another server too, and it knows when it was started.
#[test]
fn an_async_request_of_an_old_client_ends_in_its_pdf_on_any_server() {
    let home = Home::on(shared_redis());
    let (_up, url) = home.serve(&["up"]);
    let answer = deck().field("async_generation", "true").field("name", "my deck").post(&format!("{url}/api/generate"));
    assert_eq!(answer.status, 202);
    let started = answer.json();
    assert_eq!((&started["success"], &started["message"]), (&json!(true), &json!("PDF generation started")));
    assert!(started["request_id"].is_string());
    let task = started["task_id"].as_str().unwrap();
    let at = format!("{url}{}", started["status_url"].as_str().unwrap());
    wait(SOON, "the sheet is made", || get(&at).1["status"] == "success");
    let (_, record) = get(&at);
    assert!(record["started_at"].is_string() && record["completed_at"].is_string(), "{record:#}");
    assert_eq!(record["progress"], 100.0);
    let args = args_of(&url, task);
    assert!(args.to_string().len() < 2_000 && args["cards"][0]["front"].as_str().unwrap().starts_with("sha256:"));
    let other = Home::clone_of(&home);
    let (_api, elsewhere) = other.serve(&["api"]);
    let (status, pdf) = bytes(&format!("{elsewhere}/api/tasks/{task}/result"));
    assert_eq!(status, 200);
    assert!(pdf.starts_with(b"%PDF-1.7"));
}

/// Defects (b), (c), (d), (k): an equal request comes from the cache; another quality, another order
/// and another pairing do not; and what was asked for is what is made.
#[test]
fn the_cache_answers_equal_requests_and_only_those() {
    let home = Home::embedded();
    let (_up, url) = home.serve(&["up"]);
    let generate = format!("{url}/api/generate");
    let first = deck().post(&generate);
    assert_eq!((first.cached.as_str(), first.name.as_str()), ("false", "attachment; filename=\"cards.pdf\""));
    let first = first.pdf();
    let second = deck().field("use_cache", "true").post(&generate);
    assert_eq!(second.cached, "true", "an equal request is made again");
    assert_eq!(second.pdf(), first);
    let again = deck().field("use_cache", "false").post(&generate);
    assert_eq!(again.cached, "false");
    assert_eq!(again.pdf(), first, "equal jobs give equal bytes");

    let of_quality = |quality: &str| deck().field("quality", quality).field("ppi", "72").post(&generate);
    assert_eq!(of_quality("75").cached, "false");
    assert_eq!(of_quality("95").cached, "false", "quality is part of the key");
    assert_eq!(of_quality("75").cached, "true");

    let pair = |a: &str, b: &str| {
        let form = Form::default().file("front_files", a, &card(0)).file("front_files", b, &card(1));
        form.file("double_sided_files", "1.png", &card(5)).post(&generate)
    };
    assert_eq!(pair("1.png", "2.png").cached, "false");
    assert_eq!(pair("2.png", "1.png").cached, "false", "which front has the back is part of the key");

    let started = deck().field("ppi", "600").field("quality", "91").field("async_generation", "true").post(&generate);
    let args = args_of(&url, started.json()["task_id"].as_str().unwrap());
    assert_eq!((&args["ppi"], &args["quality"], &args["mode"]), (&json!(600), &json!(91), &json!("raster")));
}

/// Defect (h): the old offset task was empty.
#[test]
fn an_offset_of_an_old_client_moves_the_backs() {
    let home = Home::embedded();
    let (_up, url) = home.serve(&["up"]);
    let pdf = deck().post(&format!("{url}/api/generate")).pdf();
    let send = |x: &str, y: &str| {
        let form = Form::default().file("pdf_file", "cards.pdf", &pdf).field("x_offset", x).field("y_offset", y);
        form.post(&format!("{url}/api/offset"))
    };
    let moved = send("30", "-10");
    assert_eq!(moved.name, "attachment; filename=\"cards_offset.pdf\"");
    assert_ne!(moved.pdf(), pdf);
    let wrong = send("2000", "x");
    assert_eq!((wrong.status, &wrong.json()["code"]), (400, &json!("INVALID_OFFSET")));
    assert!(wrong.json()["error"].as_str().unwrap().contains("y_offset"), "both are named");
    let none = Form::default().field("x_offset", "1").post(&format!("{url}/api/offset"));
    assert_eq!((none.status, &none.json()["code"]), (400, &json!("NO_PDF_FILE")));
}

/// Defect (i): a cancel ends the task, and not its record alone.
#[test]
fn a_cancel_of_an_old_client_ends_the_task() {
    let home = Home::embedded();
    let (_api, url) = home.serve(&["api"]);
    let started = deck().field("async_generation", "true").post(&format!("{url}/api/generate")).json();
    let at = format!("{url}{}", started["status_url"].as_str().unwrap());
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent.delete(&at).call().unwrap();
    let body: Value = answer.body_mut().read_json().unwrap();
    assert_eq!((&body["success"], &body["message"]), (&json!(true), &json!("Task cancelled successfully")));
    assert_eq!(get(&at).1["status"], "cancelled");
    let mut again = agent.delete(&at).call().unwrap();
    let body: Value = again.body_mut().read_json().unwrap();
    assert_eq!((again.status().as_u16(), &body["code"]), (400, &json!("TASK_CANCEL_FAILED")), "{body:#}");
    // A worker that comes later does not run it.
    let _worker = home.worker("pdf", &[]);
    let (status, problem) = get(&format!("{at}/result"));
    assert_eq!((status, &problem["code"]), (400, &json!("TASK_NOT_COMPLETED")), "{problem:#}");
}

#[test]
fn errors_of_old_clients_have_their_words_and_leave_nothing_queued() {
    let home = Home::embedded();
    let (_api, url) = home.serve(&["api"]);
    let generate = format!("{url}/api/generate");
    let check = |form: Form, status: u16, code: &str, says: &str| {
        let answer = form.post(&generate);
        let problem = answer.json();
        assert_eq!(
            (answer.status, &problem["code"], &problem["status"]),
            (status, &json!(code), &json!(status)),
            "{problem:#}"
        );
        assert!(problem["request_id"].is_string() && problem["error"].as_str().unwrap().contains(says), "{problem:#}");
    };
    check(Form::default().field("ppi", "300"), 400, "NO_FILES", "no files");
    check(Form::default().file("back_files", "b.png", &card(1)), 400, "NO_FRONT_IMAGES", "front");
    check(deck().field("card_size", "huge"), 400, "INVALID_SIZE", "huge");
    check(deck().field("paper_size", "a3").field("card_size", "tarot"), 400, "INVALID_SIZE", "tarot");
    check(deck().field("ppi", "0").field("quality", "x"), 400, "INVALID_PARAMETER", "quality");
    check(deck().field("crop", "60mm"), 400, "INVALID_PARAMETER", "crop");
    check(deck().field("load_offset", "true"), 400, "INVALID_PARAMETER", "x_offset");
    check(deck().file("double_sided_files", "9.png", &card(1)), 400, "INVALID_PARAMETER", "9.png");
    check(deck().field("nonsense", "1"), 400, "INVALID_PARAMETER", "nonsense");
    let (_, queues) = get(&format!("{url}/api/queues"));
    assert!(!queues.to_string().contains("\"pending\":1"), "{queues:#}");
    let (status, problem) = get(&format!("{url}/api/tasks/0b9f8a2c-1111-2222-3333-444455556666"));
    assert_eq!((status, &problem["code"]), (404, &json!("TASK_NOT_FOUND")));
    let (_, config) = get(&format!("{url}/api/config"));
    assert!(config["card_sizes"].as_array().unwrap().contains(&json!("tarot")), "{config:#}");
    assert_eq!(config["layouts"]["letter"]["standard"], json!({"template": "letter_standard_v4", "slots": 8}));
}

/// A picture that cannot be read is the caller's fault, told with its place.
#[test]
fn a_picture_that_cannot_be_read_is_an_answer_and_not_a_time_out() {
    let home = Home::embedded();
    let (_up, url) = home.serve(&["up"]);
    let answer = deck().file("front_files", "3.png", b"no picture").post(&format!("{url}/api/generate"));
    assert_eq!((answer.status, &answer.json()["code"]), (422, &json!("GENERATION_ERROR")));
    assert!(answer.json()["error"].as_str().unwrap().contains("/cards/3/front"), "{:#}", answer.json());
}

/// Pages as pictures come as one zip.
#[test]
fn page_pictures_of_an_old_client_come_as_a_zip() {
    let home = Home::embedded();
    let (_up, url) = home.serve(&["up"]);
    let answer = deck().field("output_images", "true").field("ppi", "72").post(&format!("{url}/api/generate"));
    assert_eq!((answer.status, answer.kind.as_str()), (200, "application/zip"));
    let file = home.file("pages.zip", &answer.body);
    let listed = Command::new("python3").args(["-m", "zipfile", "-t"]).arg(&file).output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    assert_eq!(answer.body.windows(9).filter(|w| w == b"page1.png" || w == b"page2.png").count(), 4);
}

/// With curl: files and args in one request, the result awaited.
#[test]
fn a_person_with_curl_gets_a_sheet_in_one_request() {
    let home = Home::embedded();
    let (_up, url) = home.serve(&["up"]);
    let post = |form: Form, query: &str| form.post(&format!("{url}/api/pdf/card-sheets{query}"));
    let form = || Form::default().file("fronts", "b.png", &card(1)).file("fronts", "a.png", &card(2));
    let args = json!({"layout": {"paper": "a4"}, "label": {"name": "curl"}}).to_string();
    let answer = post(form().file("back", "x.png", &card(5)).field("args", &args), "?wait=60");
    answer.pdf();
    let later = post(form(), "");
    assert_eq!(later.status, 202);
    let task = later.json();
    let sent = args_of(&url, task["task_id"].as_str().unwrap());
    assert_eq!(
        (&sent["cards"][0]["name"], &sent["order"]),
        (&json!("b.png"), &Value::Null),
        "the order is the caller's"
    );
    let wrong = post(form().field("args", r#"{"ppi": 1, "skip": [99]}"#), "");
    assert_eq!((wrong.status, &wrong.json()["violations_total"]), (422, &json!(2)), "{:#}", wrong.json());
    let wrong = post(form().field("args", r#"{"cards": []}"#), "");
    assert_eq!((wrong.status, &wrong.json()["code"]), (422, &json!("args_invalid")));
    let empty = post(Form::default(), "");
    assert_eq!((empty.status, &empty.json()["code"]), (422, &json!("args_invalid")));
}

fn folder(home: &Home) -> PathBuf {
    for n in 0..3 {
        home.file(&format!("game/front/{n}.png"), card(n));
    }
    home.file("game/back/back.png", card(7));
    home.path().join("game")
}

/// The peer's option names make a PDF, move its backs, join files, and draw a calibration sheet.
#[test]
fn the_command_line_makes_sheets_with_the_peers_options() {
    let home = Home::embedded();
    let game = folder(&home);
    let (fronts, backs) = (game.join("front"), game.join("back"));
    let (fronts, backs) = (fronts.to_str().unwrap(), backs.to_str().unwrap());
    let shown = home.json(&[
        "pdf",
        "card-sheet",
        "--front_dir_path",
        fronts,
        "--back_dir_path",
        backs,
        "-o",
        "out/deck.pdf",
        "--card_size",
        "poker",
        "--paper_size",
        "a4",
        "--crop",
        "1mm",
        "--skip",
        "0",
        "--name",
        "deck",
    ]);
    assert_eq!(shown["result"]["value"]["template"], "a4_poker_v1", "{shown:#}");
    let deck = home.path().join("out/deck.pdf");
    assert!(std::fs::read(&deck).unwrap().starts_with(b"%PDF-1.7"));
    let offset = home.json(&["pdf", "offset", "--pdf_path", "out/deck.pdf", "-x", "-5", "-y", "10"]);
    assert_eq!(offset["result"]["value"]["moved"], 1, "{offset:#}");
    let merged = home.json(&["pdf", "merge", "out/deck.pdf", "out/deck_offset.pdf", "-o", "all.pdf"]);
    assert_eq!(merged["result"]["value"]["pages"], 4);
    assert_eq!(home.json(&["pdf", "calibration", "--paper_size", "a4"])["files"], json!(["calibration.pdf"]));
    let images = home.json(&[
        "pdf",
        "card-sheet",
        "--fronts",
        fronts,
        "--output_images",
        "-o",
        "pages",
        "--ppi",
        "72",
        "--only_fronts",
    ]);
    assert_eq!(images["files"], json!(["pages/page1.png"]));

    let said = home.run(&["pdf", "card-sheet", "--fronts", fronts, "--backs", backs, "-o", "plain.pdf"]);
    assert!(
        said.status.success() && said.stdout.contains("letter_standard_v3") && said.stdout.contains("plain.pdf"),
        "{said:?}"
    );
    let wrong = home.run(&["pdf", "card-sheet", "--fronts", fronts, "--crop", "60mm", "--ppi", "7"]);
    assert!(
        !wrong.status.success() && wrong.stderr.contains("/crop/fronts") && wrong.stderr.contains("/ppi"),
        "{wrong:?}"
    );
}
