//! Many charts as one picture or one document.

use serde_json::json;
use windlass_chart::{BookArgs, ChartArgs, ChartBook, Output};
use windlass_jobs::Outcome;
use windlass_worker::IsolatedKind;

use crate::goog;
use crate::runs::Watcher;

fn book(charts: usize, output: Output) -> BookArgs {
    let chart = |index: usize| ChartArgs { symbol: format!("GOOG {index}"), ..goog(60 + index as u32) };
    let charts: Vec<ChartArgs> = (0..charts).map(chart).collect();
    let args = json!({ "charts": charts, "output": output, "title": "All of them" });
    serde_json::from_value(args).expect("good args")
}

fn run(args: BookArgs, watcher: &Watcher) -> (Outcome, Vec<u8>) {
    let dir = tempfile::tempdir().expect("a directory");
    let outcome = ChartBook::default().run(args, dir.path(), watcher);
    let file = match &outcome {
        Outcome::Done(done) => std::fs::read(dir.path().join(&done.artifacts[0].path)).expect("the file"),
        _ => Vec::new(),
    };
    (outcome, file)
}

#[test]
fn a_sheet_holds_every_chart() {
    let watcher = Watcher::default();
    let (outcome, file) = run(book(5, Output::Sheet), &watcher);
    let Outcome::Done(done) = outcome else { panic!("{outcome:?}") };
    assert_eq!((&done.value["charts"], &done.value["pages"]), (&json!(5), &json!(1)));
    let image = image::load_from_memory(&file).expect("it decodes");
    // Three columns and two rows of 480 × 320, blank of 12 between and around, a title of 44.
    assert_eq!((image.width(), image.height()), (3 * 492 + 12, 2 * 332 + 12 + 44));
    let seen = watcher.seen.into_inner().expect("no panic held it");
    assert!(seen.is_sorted() && seen.len() == 7 && seen.last() == Some(&100.0), "{seen:?}");
}

#[test]
fn a_document_has_a_page_for_each_chart() {
    let (outcome, file) = run(book(3, Output::Pdf), &Watcher::default());
    assert!(matches!(outcome, Outcome::Done(done) if done.value["pages"] == json!(3)));
    assert!(file.starts_with(b"%PDF-1.4") && file.ends_with(b"%%EOF\n"));
    let text = String::from_utf8_lossy(&file);
    assert_eq!(text.matches("/Type /Page ").count(), 3);
    assert!(text.contains("/MediaBox [0 0 900 600]"), "1200 × 800 pixels are 900 × 600 points");
    assert!(!text.contains("/Image"), "all vectors");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("book.pdf");
    std::fs::write(&path, &file).expect("written");
    let checked = std::process::Command::new("qpdf").arg("--check").arg(&path).output();
    let checked = checked.expect("qpdf is there: tests/run installs it");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn a_wrong_chart_is_named() {
    let check = |args: serde_json::Value, expected: &[&str]| {
        let args: BookArgs = serde_json::from_value(args).expect("the form is right");
        let found = args.check();
        let lines: Vec<_> = found.iter().map(|v| format!("{} {}", v.path, v.code)).collect();
        assert_eq!(lines, expected, "{found:?}");
    };
    let good = serde_json::to_value(book(2, Output::Sheet)).expect("JSON");
    check(good.clone(), &[]);
    let mut wrong = good.clone();
    wrong["charts"][1]["symbol"] = json!("{x}");
    check(wrong, &["/charts/1/symbol symbol_invalid"]);
    let mut wrong = good.clone();
    wrong["charts"][0]["format"] = json!("jpeg");
    check(wrong, &["/charts/0/format not_in_a_book"]);
    let mut wrong = good;
    wrong["charts"] = json!([]);
    wrong["cell_width_px"] = json!(20_000);
    check(wrong, &["/charts out_of_range", "/cell_width_px out_of_range"]);
}

#[test]
fn a_cancelled_book_stops_between_charts() {
    let watcher = Watcher { cancelled: true, ..Watcher::default() };
    assert!(matches!(run(book(3, Output::Sheet), &watcher).0, Outcome::Cancel { .. }));
}
