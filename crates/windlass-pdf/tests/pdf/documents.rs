//! `pdf.offset`, `pdf.merge` and `pdf.calibration`, on our own files and on foreign ones.

use serde_json::{Value, json};
use windlass_jobs::Outcome;
use windlass_pdf::{Calibration, Merge, Offset};

use crate::fixtures::{jpeg_card, png_card};
use crate::job::Job;
use crate::tools::{arg, assert_sound, images, render, tool_text};

/// A duplex sheet of eight cards.
fn sheet(job: &Job, more: Value) -> Vec<u8> {
    let front = job.blob(&png_card(3, 6.0));
    let mut args = json!({"cards": [{"front": front, "copies": 8}]});
    if more["sides"] != "fronts" {
        args["back"] = job.blob(&jpeg_card(9, 6.0)).into();
    }
    for (name, value) in more.as_object().unwrap() {
        args[name] = value.clone();
    }
    let (pdf, _) = job.default_pdf(args);
    std::fs::read(pdf).unwrap()
}

/// §8.13: only backs move; what leaves the page does not come in at the other edge.
#[test]
fn an_offset_moves_every_second_page_and_renders_nothing_anew() {
    let job = Job::new();
    let before = sheet(&job, json!({}));
    let blob = job.blob(&before);
    let plain = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(plain.path(), &before).unwrap();
    let (pdf, result) = job.run_kind(&Offset, json!({"pdf": blob, "x": 60, "y": -150}));
    assert_eq!((&result["pages"], &result["moved"]), (&json!(2), &json!(1)));
    assert_sound(&pdf);
    let was = |n| render(plain.path(), n, 100);
    let is = |n| render(&pdf, n, 100);
    assert_eq!(was(1).differing(&is(1), 0, (0, 0)), 0.0, "fronts are untouched");
    assert!(is(2).differing(&was(2), 40, (20, -50)) < 0.01);
    assert!(is(2).is_white((0.0, 0.0, 60.0 / 300.0 * 25.4 - 0.3, 215.9)));
    let same = |a: &std::path::Path, b: &std::path::Path| {
        let sizes = |p| images(p).into_iter().map(|i| (i.page, i.encoding)).collect::<Vec<_>>();
        sizes(a) == sizes(b)
    };
    assert!(same(plain.path(), &pdf), "pictures stay as they are");
}

/// §8.13: the old service moved every second front.
#[test]
fn sheets_without_backs_are_left_alone() {
    let job = Job::new();
    let args = json!({"sides": "fronts", "cards": [{"front": job.blob(&png_card(3, 4.0)), "copies": 16}]});
    let before = sheet(&job, args);
    let blob = job.blob(&before);
    let (_, result) = job.run_kind(&Offset, json!({"pdf": blob, "x": 60}));
    assert_eq!((&result["pages"], &result["moved"]), (&json!(2), &json!(0)));
    assert_eq!(result["warnings"][0]["code"], "no_backs");
}

/// A foreign file: attributes above the page, a page that is turned and stands in the tree twice, an
/// odd box.
fn foreign(rotate: i32) -> Vec<u8> {
    let content = "0 0 1 rg 110 210 50 20 re f";
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!(
            "<< /Type /Pages /Kids [3 0 R 3 0 R] /Count 2 /MediaBox [100 200 400 400] /Rotate {rotate} /Resources << >> >>"
        ),
        "<< /Type /Page /Parent 2 0 R /Contents [4 0 R] >>".to_owned(),
        format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()),
    ];
    let mut out = "%PDF-1.4\n".to_owned();
    let mut places = Vec::new();
    for (i, object) in objects.iter().enumerate() {
        places.push(out.len());
        out += &format!("{} 0 obj\n{object}\nendobj\n", i + 1);
    }
    let start = out.len();
    out += "xref\n0 5\n0000000000 65535 f \n";
    places.iter().for_each(|at| out += &format!("{at:010} 00000 n \n"));
    out += &format!("trailer << /Size 5 /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n");
    out.into_bytes()
}

/// The bounding box of blue ink, in points from the top left of the page as it is seen.
fn blue(pdf: &std::path::Path) -> (f64, f64, f64, f64) {
    let page = render(pdf, 1, 72);
    let (width, height) = page.size();
    let (mut left, mut top, mut right, mut bottom) = (width, height, 0, 0);
    for y in 0..height {
        for x in 0..width {
            if page.at(x, y)[0] < 128 {
                (left, right) = (left.min(x), right.max(x + 1));
                (top, bottom) = (top.min(y), bottom.max(y + 1));
            }
        }
    }
    (left as f64, top as f64, right as f64, bottom as f64)
}

/// Right and down are the reader's, whichever way the page is turned.
#[test]
fn an_offset_goes_right_and_down_on_turned_pages_too() {
    for rotate in [0, 90, 180, 270] {
        let job = Job::new();
        let bytes = foreign(rotate);
        let plain = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(plain.path(), &bytes).unwrap();
        let before = blue(plain.path());
        // Towards the middle, so that all of it stays on the page.
        let (width, height) = if rotate % 180 == 0 { (300.0, 200.0) } else { (200.0, 300.0) };
        let x: f64 = if before.0 < width / 2.0 { 50.0 } else { -50.0 };
        let y: f64 = if before.1 < height / 2.0 { 100.0 } else { -100.0 };
        let (pdf, _) = job.run_kind(&Offset, json!({"pdf": job.blob(&bytes), "x": x, "y": y, "pages": "all"}));
        let after = blue(&pdf);
        let (dx, dy) = (after.0 - before.0, after.1 - before.1);
        assert!(
            (dx - x * 0.24).abs() <= 1.01 && (dy - y * 0.24).abs() <= 1.01,
            "turned by {rotate}: {dx} {dy} for {x} {y}"
        );
    }
}

#[test]
fn merged_files_keep_their_pages_in_order() {
    let job = Job::new();
    let (a, b) = (sheet(&job, json!({})), foreign(0));
    let (a, b) = (job.blob(&a), job.blob(&b));
    let args = json!({"pdfs": [b, a, b], "title": "Łódź", "author": "me"});
    let (pdf, result) = job.run_kind(&Merge, args.clone());
    assert_eq!((&result["pages"], &result["parts"]), (&json!(6), &json!(3)));
    assert_sound(&pdf);
    let info = tool_text("pdfinfo", "poppler-utils", &["-l", "6", arg(&pdf)]);
    assert!(info.contains("Łódź") && info.lines().filter(|l| l.contains("300 x 200 pts")).count() == 4, "{info}");
    assert_eq!(images(&pdf).iter().map(|i| i.page).collect::<std::collections::BTreeSet<_>>(), [3, 4].into());
    let first = std::fs::read(&pdf).unwrap();
    let (again, _) = job.run_kind(&Merge, args);
    assert_eq!(first, std::fs::read(again).unwrap(), "equal jobs give equal bytes");
}

#[test]
fn parts_can_begin_on_the_front_of_a_sheet() {
    let job = Job::new();
    let (three, _) = job.run_kind(&Merge, json!({"pdfs": [job.blob(&foreign(0))]}));
    let odd = sheet(&job, json!({"sides": "fronts"}));
    let args = json!({"pdfs": [job.blob(&odd), job.blob(&std::fs::read(three).unwrap())], "start_on_front": true});
    let (pdf, result) = job.run_kind(&Merge, args);
    assert_eq!(result["pages"], 4);
    assert!(render(&pdf, 2, 50).is_white((0.0, 0.0, 279.4, 215.9)));
    assert_sound(&pdf);
}

#[test]
fn what_is_no_pdf_is_refused_by_name() {
    let job = Job::new();
    let check = |bytes: &[u8], code: &str| {
        let blob = job.blob(bytes);
        for outcome in
            [job.outcome_of(&Offset, json!({"pdf": blob, "x": 5})), job.outcome_of(&Merge, json!({"pdfs": [blob]}))]
        {
            match outcome {
                Outcome::Fatal(error) => {
                    assert_eq!(error.code, code, "{error}");
                    assert!(error.message.starts_with("/pdf"), "{error}");
                }
                other => panic!("{other:?}"),
            }
        }
    };
    check(b"", "pdf_unreadable");
    check(b"hello", "pdf_unreadable");
    check(&png_card(1, 1.0), "pdf_unreadable");
    check(b"%PDF-1.7\nnothing else", "pdf_unreadable");
    let whole = foreign(0);
    check(&whole[..whole.len() / 2], "pdf_unreadable");
    let dir = tempfile::tempdir().unwrap();
    let (plain, locked) = (dir.path().join("a.pdf"), dir.path().join("b.pdf"));
    std::fs::write(&plain, &whole).unwrap();
    tool_text("qpdf", "qpdf", &["--encrypt", "a", "b", "256", "--", arg(&plain), arg(&locked)]);
    check(&std::fs::read(&locked).unwrap(), "pdf_encrypted");
}

/// A damaged byte anywhere is an error or a file, never a crash.
#[test]
fn no_damaged_file_upsets_the_reader() {
    let whole = foreign(90);
    for at in (0..whole.len()).step_by(3) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x15;
        let job = Job::new();
        match job.outcome_of(&Offset, json!({"pdf": job.blob(&damaged), "x": 5})) {
            Outcome::Done(_) | Outcome::Fatal(_) => {}
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn a_calibration_sheet_steps_by_one_px300_a_square() {
    let job = Job::new();
    let (pdf, result) = job.run_kind(&Calibration, json!({"paper": "letter"}));
    assert_eq!((&result["columns"], &result["rows"]), (&json!(29), &json!(21)));
    assert_sound(&pdf);
    let (front, back) = (render(&pdf, 1, 300), render(&pdf, 2, 300));
    // The middle square is at the same place; the third to the right is 3 px300 further on the back.
    let dark = |page: &crate::tools::Rendered, x: usize| page.at(x, 1275)[0] < 200;
    assert!(dark(&front, 1650) && dark(&back, 1650));
    let left_edge = |page: &crate::tools::Rendered| (1900..2000).find(|x| dark(page, *x)).unwrap();
    assert_eq!(left_edge(&back) - left_edge(&front), 3);
}
