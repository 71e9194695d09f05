//! Reports: what is set where, read back with poppler.

use std::time::Instant;

use image::DynamicImage;
use serde_json::{Value, json};
use windlass_jobs::Outcome;
use windlass_pdf::Report;

use crate::fixtures::{card, exif, jpeg, with_segment};
use crate::job::Job;
use crate::tools::{arg, assert_sound, is_near, render, tool_text};

/// A table of so many rows, as an invoice has.
fn rows(count: usize) -> Value {
    let row =
        |i: usize| json!([i + 1, format!("Article number {i} with a name"), "pcs", i % 7 + 1, format!("{}.50", i * 3)]);
    (0..count).map(row).collect()
}

fn invoice(count: usize) -> Value {
    json!({
        "title": "Invoice 42",
        "author": "Windlass",
        "lang": "en",
        "header": {"left": "{title}", "right": "{{customer}}"},
        "footer": {"center": "page {page} of {pages}"},
        "data": {"customer": "Łódź Ltd"},
        "blocks": [
            {"type": "heading", "text": "Invoice for {{customer}}"},
            {"type": "paragraph", "runs": [
                {"text": "Please pay "}, {"text": "soon", "bold": true}, {"text": ", see "},
                {"text": "our terms", "link": "https://example.com/terms?a=(1)"}, {"text": "."},
                {"text": " Thank you.", "italic": true},
            ]},
            {"type": "table", "rows": rows(count), "columns": [
                {"header": "No", "align": "right", "width_mm": 14},
                {"header": "Article"},
                {"header": "Unit", "align": "center"},
                {"header": "Count", "align": "right"},
                {"header": "Price", "align": "right"},
            ]},
        ],
    })
}

fn text(pdf: &std::path::Path) -> String {
    tool_text("pdftotext", "poppler-utils", &["-layout", arg(pdf), "-"])
}

#[test]
fn a_long_table_repeats_its_header_and_splits_no_row() {
    let job = Job::new();
    let (pdf, result) = job.run_kind(&Report, invoice(500));
    assert_sound(&pdf);
    let pages: Vec<String> = text(&pdf).split('\u{c}').filter(|p| !p.trim().is_empty()).map(str::to_owned).collect();
    assert_eq!(result["pages"], pages.len());
    assert!((9..=14).contains(&pages.len()), "{} pages", pages.len());
    let mut seen = 0;
    for (i, page) in pages.iter().enumerate() {
        assert_eq!(page.matches("Article ").count() - page.matches("Article number").count(), 1, "page {i}: {page}");
        assert!(page.contains(&format!("page {} of {}", i + 1, pages.len())), "{page}");
        assert!(page.contains("Invoice 42") && page.contains("Łódź Ltd"), "{page}");
        seen += page.matches("Article number").count();
    }
    assert_eq!(seen, 500, "every row once");
    let info = tool_text("pdfinfo", "poppler-utils", &[arg(&pdf)]);
    assert!(info.contains("Invoice 42") && info.contains("595.276 x 841.89 pts (A4)"), "{info}");
    let fonts = tool_text("pdffonts", "poppler-utils", &[arg(&pdf)]);
    assert_eq!(fonts.lines().skip(2).filter(|l| l.contains("yes yes yes")).count(), 2, "{fonts}");
}

/// The bound is ten times that of a release build (docs/performance.md): this is a debug build.
#[test]
fn five_hundred_rows_are_set_at_once() {
    let job = Job::new();
    job.run_kind(&Report, invoice(500));
    let started = Instant::now();
    job.run_kind(&Report, invoice(500));
    let took = started.elapsed();
    assert!(took.as_millis() < 600, "{took:?}");
}

#[test]
fn links_open_their_address_where_their_words_stand() {
    let job = Job::new();
    let (pdf, _) = job.run_kind(&Report, invoice(3));
    let document = tool_text("qpdf", "qpdf", &["--qdf", "--object-streams=disable", arg(&pdf), "-"]);
    assert!(document.contains(r"(https://example.com/terms?a=(1))") || document.contains(r"\(1\)"), "no address");
    assert!(document.contains("/Lang (en)"));
    let words = tool_text("pdftotext", "poppler-utils", &["-bbox", arg(&pdf), "-"]);
    let word = words.lines().find(|l| l.contains(">terms<") || l.contains(">terms.<")).unwrap();
    let value = |name: &str| {
        word.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().parse::<f64>().unwrap()
    };
    let rect: Vec<f64> = document
        .split("/Rect [")
        .nth(1)
        .unwrap()
        .split(']')
        .next()
        .unwrap()
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    let middle = ((value("xMin") + value("xMax")) / 2.0, 841.89 - (value("yMin") + value("yMax")) / 2.0);
    assert!(
        rect[0] < middle.0 && middle.0 < rect[2] && rect[1] < middle.1 && middle.1 < rect[3],
        "{rect:?} {middle:?}"
    );
}

/// GOOG as a chart, its levels and its last bars as tables.
fn analysis() -> Value {
    let candles = windlass_chart::csv::candles_from_csv(windlass_chart::GOOG_DAILY_CSV).unwrap();
    let chart = json!({
        "symbol": "GOOG", "interval": "1d", "candles": candles, "visible_bars": 120,
        "overlays": [{"kind": "sma", "period": 20}], "panels": [{"kind": "volume"}], "theme": "light",
    });
    json!({"blocks": [
        {"type": "heading", "text": "GOOG"},
        {"type": "chart", "chart": chart, "caption": "Daily bars"},
        {"type": "paragraph", "text": "After the chart."},
    ]})
}

#[test]
fn a_chart_is_drawn_as_vectors_and_its_letters_are_text() {
    let job = Job::new();
    let (pdf, _) = job.run_kind(&Report, analysis());
    assert_sound(&pdf);
    let pictures = tool_text("pdfimages", "poppler-utils", &["-list", arg(&pdf)]);
    assert_eq!(pictures.lines().count(), 2, "a picture in a chart of vectors: {pictures}");
    let text = text(&pdf);
    assert!(text.matches("GOOG").count() >= 2 && text.contains("SMA") && text.contains("After the chart."), "{text}");
    let page = render(&pdf, 1, 72);
    let (width, _) = page.size();
    let coloured = (0..width).filter(|x| {
        (100..350).any(|y| {
            let [r, g, b] = page.at(*x, y);
            r.abs_diff(g) > 60 || g.abs_diff(b) > 60
        })
    });
    assert!(coloured.count() > width / 2, "no candles across the page");
}

#[test]
fn pictures_stand_upright_with_their_caption() {
    let job = Job::new();
    let mut stored = DynamicImage::from(card(9, 4.0));
    stored.apply_orientation(image::metadata::Orientation::Rotate270);
    let blob = job.blob(&with_segment(&jpeg(&stored), 0xe1, &exif(6)));
    let (pdf, _) = job.run_kind(
        &Report,
        json!({"blocks": [
            {"type": "image", "blob": blob, "width_mm": 63, "caption": "a card"},
            {"type": "image", "blob": blob, "width_mm": 400},
        ]}),
    );
    assert_sound(&pdf);
    assert!(text(&pdf).contains("a card"));
    let page = render(&pdf, 1, 72);
    // 18 mm and 20 mm margins, 63 × 88 mm: the arrow of the card points up.
    assert!(is_near(page.at_mm((18.0 + 31.5, 20.0 + 40.0)), [0; 3], 60));
    assert!(is_near(page.at_mm((18.0 + 20.5, 20.0 + 40.0)), [255; 3], 60));
}

#[test]
fn what_does_not_fit_a_page_is_refused_by_its_path() {
    let job = Job::new();
    let code = |blocks: Value| match job.outcome_of(&Report, json!({"blocks": blocks})) {
        Outcome::Fatal(error) => (error.code, error.message),
        other => panic!("{other:?}"),
    };
    let (found, message) = code(json!([{"type": "table", "columns": [{"header": "a", "width_mm": 300}], "rows": []}]));
    assert!(found == "table_too_wide" && message.starts_with("/blocks/0/columns"), "{found} {message}");
    let high = "line\n".repeat(400);
    let (found, message) = code(json!([{"type": "table", "columns": [{"header": "a"}], "rows": [["x"], [high]]}]));
    assert!(found == "row_too_high" && message.starts_with("/blocks/0/rows/1"), "{found} {message}");
    let (found, _) = code(json!(vec![json!({"type": "page_break"}); 2_100]));
    assert_eq!(found, "too_many_pages");
}

#[test]
fn equal_reports_give_equal_bytes() {
    let bytes = || {
        let job = Job::new();
        let (pdf, _) = job.run_kind(&Report, analysis());
        std::fs::read(pdf).unwrap()
    };
    assert_eq!(bytes(), bytes());
}
