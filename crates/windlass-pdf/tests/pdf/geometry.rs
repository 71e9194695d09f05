//! Where cards, marks and labels lie on the sheets of every set, to the pixel at 300 ppi.

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use serde_json::json;
use windlass_pdf::layout::{LAYOUTS, Layout, Rect};

use crate::fixtures::encode;
use crate::job::Job;
use crate::tools::{Rendered, arg, assert_sound, render, tool_text};

/// The layouts that are looked at: all tables, and every ninth computed row.
fn layouts() -> Vec<&'static Layout> {
    let spec = LAYOUTS.iter().filter(|l| l.set == "spec").step_by(9);
    LAYOUTS.iter().filter(|l| l.set != "spec").chain(spec).collect()
}

fn is_dark(page: &Rendered, x: f64, y: f64) -> bool {
    page.at(x as usize, y as usize)[1] < 128
}

/// Fails unless ink begins and ends at the rectangle's edges, within a pixel; `probe` is where
/// along each edge it is looked at, as a part of its length.
#[track_caller]
fn assert_box(page: &Rendered, rect: Rect, probe: f64, of: &Layout) {
    let (x, y) = (rect.x + rect.width * probe, rect.y + rect.height * probe);
    let (right, bottom) = (rect.right(), rect.bottom());
    let inside = [(rect.x + 1.5, y), (right - 1.5, y), (x, rect.y + 1.5), (x, bottom - 1.5)];
    let outside = [(rect.x - 1.5, y), (right + 1.5, y), (x, rect.y - 1.5), (x, bottom + 1.5)];
    for (x, y) in inside {
        assert!(is_dark(page, x, y), "{}: no ink at {x},{y} of {rect:?}", of.template);
    }
    for (x, y) in outside {
        assert!(!is_dark(page, x, y), "{}: ink at {x},{y} outside {rect:?}", of.template);
    }
}

/// §8.3 and §8.4: 19 combinations of v1, the set of the API, 22 rows of spec, and exact.
#[test]
fn cards_marks_and_labels_lie_where_the_data_file_says_on_every_layout() {
    let picture = RgbImage::from_pixel(74, 104, Rgb([40, 90, 60]));
    let picture = encode(&DynamicImage::from(picture), ImageFormat::Png);
    for layout in layouts() {
        let job = Job::new();
        let front = job.blob(&picture);
        let (pdf, result) = job.default_pdf(json!({
            "cards": [{"front": front, "copies": layout.slots()}],
            "layout": {"set": layout.set, "paper": layout.paper, "card": layout.card, "variant": layout.variant},
            "sides": "fronts",
            "bleed": "none",
        }));
        assert_eq!(result["template"], layout.template.as_str());
        let page = render(&pdf, 1, 300);
        for slot in 0..layout.slots() {
            assert_box(&page, layout.slot(slot), 0.5, layout);
        }
        if layout.set != "exact" {
            for mark in marks_without_corners(layout) {
                assert_box(&page, mark, 0.5, layout);
            }
        }
        check_page(&pdf, layout, &result);
    }
}

/// The marks; of an L only the part that the other bar does not touch.
fn marks_without_corners(layout: &Layout) -> Vec<Rect> {
    let marks = layout.marks(3);
    let alone = |mark: &&Rect| marks.iter().filter(|other| other.inset(-2.0, -2.0).overlaps(mark)).count() == 1;
    marks.iter().filter(alone).copied().collect()
}

fn check_page(pdf: &std::path::Path, layout: &Layout, result: &serde_json::Value) {
    let info = tool_text("pdfinfo", "poppler-utils", &[arg(pdf)]);
    let size = info.lines().find_map(|l| l.strip_prefix("Page size:")).unwrap().trim();
    let mut numbers = size.split_whitespace().filter_map(|w| w.parse::<f64>().ok());
    for expected in [layout.page.0 * 0.24, layout.page.1 * 0.24] {
        let found = numbers.next().unwrap();
        assert!((found - expected).abs() <= 0.01, "{size}, not {expected}");
    }
    let words = tool_text("pdftotext", "poppler-utils", &["-bbox", arg(pdf), "-"]);
    let labelled = result["warnings"].as_array().unwrap().iter().all(|w| w["code"] != "label_left_out");
    assert_eq!(words.contains(&format!(">{}<", layout.template)), labelled, "{}: {words}", layout.template);
    for line in words.lines().filter(|l| l.contains("<word")) {
        let value = |name: &str| {
            let text = line.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap();
            text.parse::<f64>().unwrap()
        };
        assert!(value("xMin") > 0.0 && value("yMin") > 0.0, "{line}");
        assert!(value("xMax") < layout.page.0 * 0.24 && value("yMax") < layout.page.1 * 0.24, "{line}");
    }
    assert_sound(pdf);
}

/// The peer's layouts of its tables have room for the label on every paper, tabloid too.
#[test]
fn registration_4_marks_all_four_corners() {
    let job = Job::new();
    let front = job.blob(&encode(&RgbImage::from_pixel(9, 9, Rgb([9, 90, 200])).into(), ImageFormat::Png));
    let (pdf, _) = job.default_pdf(json!({
        "cards": [{"front": front}],
        "layout": {"set": "spec", "registration": 4},
        "sides": "fronts",
    }));
    let page = render(&pdf, 1, 300);
    let (width, height) = (3300.0, 2550.0);
    for (x, y) in [(118.0, 118.0), (width - 118.0, 118.0), (118.0, height - 118.0), (width - 118.0, height - 118.0)] {
        assert!(is_dark(&page, x, y), "no mark at {x},{y}");
    }
    assert!(!is_dark(&page, 150.0, 150.0), "the square of pattern 3 is there");
}
