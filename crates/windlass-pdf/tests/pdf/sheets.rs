//! Where cards and marks lie, which way up, and that equal jobs give equal files.

use std::collections::HashSet;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use windlass_jobs::Outcome;
use windlass_pdf::layout::{self, Layout, PX_PER_MM, Rect};
use windlass_pdf::{CardSheet, CardSheetArgs};
use windlass_worker::IsolatedKind;

use crate::fixtures::{self, CARD_MM, FRAME_MM, frame_color, jpeg_card, png_card};
use crate::job::{Job, cards};
use crate::tools::{Rendered, arg, assert_sound, images, is_near, render, slot_mm, tool_text};

fn letter() -> &'static Layout {
    layout::find("exact", "letter", "standard", "default").unwrap()
}

/// The number of the card in a slot, read from its bits; `None` if no card lies there that way up.
fn read_card(page: &Rendered, slot: Rect, turned: bool) -> Option<u8> {
    let dark = |(x, y): (f64, f64)| {
        let (x, y) = if turned { (CARD_MM.0 - x, CARD_MM.1 - y) } else { (x, y) };
        is_near(page.at_mm((slot.x + x, slot.y + y)), [0; 3], 60)
    };
    if !fixtures::ARROW_INSIDE_MM.into_iter().all(dark) || fixtures::ARROW_OUTSIDE_MM.into_iter().any(dark) {
        return None;
    }
    Some((0..8).filter(|bit| dark(fixtures::bit_centre_mm(*bit))).map(|bit| 1 << bit).sum())
}

/// The cards of a page, slot by slot.
fn read_page(page: &Rendered, layout: &Layout, turned: bool) -> Vec<Option<u8>> {
    (0..layout.slots()).map(|slot| read_card(page, slot_mm(layout, slot), turned)).collect()
}

/// The distance of the nearest pixel of this colour on a walk, in pixels from its start.
fn walk_to(page: &Rendered, color: [u8; 3], from: (usize, usize), step: (isize, isize)) -> (usize, usize) {
    let (mut x, mut y) = from;
    while !is_near(page.at(x, y), color, 40) {
        x = x.checked_add_signed(step.0).expect("the frame is on the page");
        y = y.checked_add_signed(step.1).expect("the frame is on the page");
    }
    (x, y)
}

/// Fails unless the frame of the card in a slot begins and ends where the layout says, to 0.1 mm.
#[track_caller]
fn assert_edges(page: &Rendered, slot: Rect, color: [u8; 3]) {
    let (middle_x, middle_y) = (page.px(slot.x + slot.width / 2.0), page.px(slot.y + slot.height / 2.0));
    let (left, top) = (page.px(slot.x - 0.9), page.px(slot.y - 0.9));
    let (right, bottom) = (page.px(slot.x + slot.width + 0.9), page.px(slot.y + slot.height + 0.9));
    let found = [
        page.mm(walk_to(page, color, (left, middle_y), (1, 0)).0),
        page.mm(walk_to(page, color, (right, middle_y), (-1, 0)).0 + 1),
        page.mm(walk_to(page, color, (middle_x, top), (0, 1)).1),
        page.mm(walk_to(page, color, (middle_x, bottom), (0, -1)).1 + 1),
    ];
    let expected = [slot.x, slot.x + slot.width, slot.y, slot.y + slot.height];
    for (found, expected) in found.into_iter().zip(expected) {
        assert!((found - expected).abs() <= 0.1, "{found} mm, not {expected} mm");
    }
    // The inner edge of the frame shows that the picture is scaled evenly, not just placed.
    let inner = page.at_mm((slot.x + FRAME_MM + 0.15, slot.y + slot.height / 2.0));
    let frame = page.at_mm((slot.x + FRAME_MM - 0.15, slot.y + slot.height / 2.0));
    assert!(is_near(inner, [255; 3], 40) && is_near(frame, color, 40), "{inner:?} {frame:?}");
}

#[test]
fn every_card_edge_is_where_the_layout_says_to_a_tenth_of_a_millimetre() {
    let job = Job::new();
    let fronts = cards((0..8).map(|n| job.blob(&png_card(n, 10.0))));
    let (pdf, _) = job.pdf(json!({"cards": fronts, "sides": "fronts"}));
    let page = render(&pdf, 1, 600);
    for n in 0..8 {
        assert_edges(&page, slot_mm(letter(), n.into()), frame_color(n));
    }
    assert_marks(&page, letter());
}

/// Fails unless there is a hairline at each mark and nothing else outside the cards.
fn assert_marks(page: &Rendered, layout: &Layout) {
    let mut marked = HashSet::new();
    for mark in layout.marks(3) {
        let middle = ((mark.x + mark.width / 2.0) / PX_PER_MM, (mark.y + mark.height / 2.0) / PX_PER_MM);
        let (x, y) = (page.px(middle.0), page.px(middle.1));
        let is_upright = mark.width < mark.height;
        let across = |i: usize| if is_upright { (x + i - 8, y) } else { (x, y + i - 8) };
        let dark: Vec<usize> = (0..17).filter(|i| page.at(across(*i).0, across(*i).1)[0] < 200).collect();
        // 0.25 pt are 2.1 pixels at 600 ppi; 2 pixels aside are 0.085 mm.
        assert!((1..=3).contains(&dark.len()) && dark.iter().all(|i| (6..=10).contains(i)), "{mark:?}: {dark:?}");
        marked.insert(across(dark[0]));
    }
    assert_eq!(marked.len(), layout.marks(3).len(), "every mark is a line of its own");
    let first = slot_mm(layout, 0);
    let last = slot_mm(layout, layout.slots() - 1);
    let (left, top) = (first.x, first.y);
    let (right, bottom) = (last.x + last.width, last.y + last.height);
    // The ring around the grid and the gutters stay clear, and so does the edge of the paper.
    for clear in [
        (left - 0.9, top - 0.9, left - 0.1, bottom + 0.9),
        (right + 0.1, top - 0.9, right + 0.9, bottom + 0.9),
        (left - 0.9, top - 0.9, right + 0.9, top - 0.1),
        (left - 0.9, bottom + 0.1, right + 0.9, bottom + 0.9),
        (left, first.y + first.height + 0.1, right, first.y + first.height + 2.0 - 0.1),
        (0.0, 0.0, left - 5.2, layout.page.1 / PX_PER_MM),
        (0.0, 0.0, layout.page.0 / PX_PER_MM, top - 5.2),
    ] {
        assert!(page.is_white(clear), "{clear:?}");
    }
}

#[test]
fn marks_can_be_left_out() {
    let job = Job::new();
    let front = job.blob(&png_card(5, 4.0));
    let (pdf, _) = job.pdf(json!({"cards": cards([front]), "sides": "fronts", "marks": false}));
    let page = render(&pdf, 1, 100);
    assert!(page.is_white((0.0, 0.0, 10.5, 215.9)));
    assert!(page.is_white((0.0, 0.0, 279.4, 18.7)));
    assert!(page.is_white((74.2, 0.0, 279.4, 215.9)));
}

#[test]
fn pages_have_the_size_of_their_paper_and_ask_to_be_printed_at_it() {
    for (paper, size) in [("letter", "792 x 612 pts (letter)"), ("a4", "841.89 x 595.276 pts (A4)")] {
        let job = Job::new();
        let front = job.blob(&jpeg_card(1, 4.0));
        let (pdf, result) = job.pdf(json!({
            "cards": [{"front": front, "copies": 9}],
            "layout": {"paper": paper},
            "output": {"title": "Łódź 日本", "author": "A. Maker"},
        }));
        let info = tool_text("pdfinfo", "poppler-utils", &[arg(&pdf)]);
        let field = |name: &str| {
            let line = info.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {info}"));
            line.split_once(':').unwrap().1.trim().to_owned()
        };
        assert_eq!(field("Page size"), size);
        assert_eq!(field("Pages"), "4");
        assert_eq!(field("Title"), "Łódź 日本");
        assert_eq!(field("Author"), "A. Maker");
        assert!(!info.contains("CreationDate"), "{info}");
        assert_eq!(result["template"], format!("{paper}_standard_exact_v1"));
        let bytes = std::fs::read(&pdf).unwrap();
        assert_eq!(result["bytes"], bytes.len());
        let has = |text: &[u8]| bytes.windows(text.len()).any(|w| w == text);
        assert!(has(b"/PrintScaling/None") && has(b"/Duplex/DuplexFlipLongEdge"));
        assert_sound(&pdf);
    }
}

#[test]
fn backs_lie_behind_their_fronts_and_stand_on_their_heads() {
    let job = Job::new();
    let common = job.blob(&jpeg_card(63, 4.0));
    let fronts: Vec<Value> = (0..9)
        .map(|n| {
            let own = (n % 3 == 1).then(|| job.blob(&jpeg_card(n + 20, 4.0)));
            json!({"front": job.blob(&png_card(n, 4.0)), "back": own})
        })
        .collect();
    let (pdf, result) = job.pdf(json!({"cards": fronts, "back": common}));
    assert_eq!((&result["pages"], &result["sheets"], &result["cards"]), (&json!(4), &json!(2), &json!(9)));
    assert_eq!(result["warnings"], json!([]));

    let page = |n: usize| render(&pdf, n, 50);
    let some = |cards: [u8; 8]| cards.map(Some).to_vec();
    assert_eq!(read_page(&page(1), letter(), false), some([0, 1, 2, 3, 4, 5, 6, 7]));
    assert_eq!(read_page(&page(2), letter(), true), some([24, 63, 63, 27, 63, 21, 63, 63]));
    let alone = |at: usize, card: u8| (0..8).map(|slot| (slot == at).then_some(card)).collect::<Vec<_>>();
    assert_eq!(read_page(&page(3), letter(), false), alone(0, 8));
    assert_eq!(read_page(&page(4), letter(), true), alone(4, 63));
    // Slots without a card are empty, not just unreadable.
    let empty = slot_mm(letter(), 1);
    assert!(page(3).is_white((empty.x, empty.y, empty.x + empty.width, empty.y + empty.height)));
    assert_sound(&pdf);
}

#[test]
fn a_skipped_slot_is_empty_on_both_sides() {
    let job = Job::new();
    let fronts = cards((0..7).map(|n| job.blob(&png_card(n, 4.0))));
    let back = job.blob(&png_card(40, 4.0));
    let (pdf, result) = job.pdf(json!({"cards": fronts, "back": back, "skip": [4]}));
    assert_eq!((&result["slots_per_sheet"], &result["pages"]), (&json!(7), &json!(2)));
    let expected = [Some(0), Some(1), Some(2), Some(3), None, Some(4), Some(5), Some(6)];
    assert_eq!(read_page(&render(&pdf, 1, 50), letter(), false), expected);
    let backs: Vec<Option<u8>> = (0..8).map(|slot| (slot != 0).then_some(40)).collect();
    assert_eq!(read_page(&render(&pdf, 2, 50), letter(), true), backs);
}

#[test]
fn cards_without_any_back_get_an_empty_place_with_marks_and_a_warning() {
    let job = Job::new();
    let fronts = cards((0..2).map(|n| job.blob(&png_card(n, 4.0))));
    let (pdf, result) = job.pdf(json!({"cards": fronts}));
    assert_eq!(result["pages"], 2);
    assert_eq!(result["warnings"][0]["code"], "no_back");
    assert_eq!(result["warnings"][0]["message"], "2 of 2 cards have no back");
    let page = render(&pdf, 2, 600);
    assert!(page.is_white((10.0, 18.2, 269.4, 197.7)));
    assert_marks(&page, letter());
}

#[test]
fn each_distinct_picture_is_stored_once() {
    let job = Job::new();
    let back = job.blob(&jpeg_card(60, 4.0));
    let fronts: Vec<Value> =
        (0..12).map(|n| json!({"front": job.blob(&jpeg_card(n, 4.0)), "copies": 1 + n % 2})).collect();
    let (pdf, result) = job.pdf(json!({"cards": fronts, "back": back}));
    let uses = images(&pdf);
    let objects: HashSet<&str> = uses.iter().map(|i| i.object.as_str()).collect();
    assert_eq!((result["pictures"].as_u64(), objects.len()), (Some(13), 13));
    let drawn = tool_text("mutool", "mupdf-tools", &["trace", arg(&pdf)]);
    assert_eq!(drawn.matches("<fill_image ").count(), 2 * 18);
}

#[test]
fn inputs_name_each_picture_once_in_order_of_first_mention() {
    let name = |n: u8| format!("sha256:{}", format!("{n:02x}").repeat(32));
    let args: CardSheetArgs = serde_json::from_value(json!({
        "cards": [{"front": name(9), "back": name(2)}, {"front": name(1)}, {"front": name(9)}],
        "back": name(2),
    }))
    .unwrap();
    let inputs = CardSheet.inputs(&args);
    assert_eq!(inputs.blobs, [9, 2, 1].map(|n| name(n)[7..].to_owned()));
    assert!(inputs.peak_memory_bytes > 3 * 25 * 1024 * 1024);
}

#[test]
fn progress_rises_page_by_page_to_the_end() {
    let job = Job::new();
    let front = job.blob(&png_card(1, 2.0));
    job.pdf(json!({"cards": [{"front": front, "copies": 20}]}));
    let progress = job.ctx.progress.lock().unwrap();
    assert_eq!(progress.len(), 7);
    assert!(progress.windows(2).all(|w| w[0].0 < w[1].0), "{progress:?}");
    assert_eq!(progress[2].1, "page 3 of 6");
    assert!((progress[6].0 - 100.0).abs() < f32::EPSILON);
    assert_eq!(job.left_behind(), ["cards.pdf"]);
}

#[test]
fn a_cancelled_run_stops_and_leaves_nothing() {
    let mut job = Job::new();
    job.ctx.cancel_at = Some(3);
    let front = job.blob(&png_card(1, 2.0));
    let outcome = job.run(json!({"cards": [{"front": front, "copies": 20}]}));
    assert!(matches!(outcome, Outcome::Cancel { .. }), "{outcome:?}");
    assert_eq!(job.left_behind(), [""; 0]);
}

/// A job with every sort of stored picture, and the digest of its file.
fn digest_of_mixed_job() -> String {
    let job = Job::new();
    let jpeg = fixtures::with_segment(&jpeg_card(3, 4.0), 0xe2, &profile_segment());
    let rgba = image::DynamicImage::from(fixtures::card(4, 4.0)).to_rgba8().into();
    let fronts = cards([
        job.blob(&jpeg),
        job.blob(&png_card(5, 4.0)),
        job.blob(&fixtures::encode(&rgba, image::ImageFormat::WebP)),
    ]);
    let back = job.blob(&jpeg_card(6, 4.0));
    let (pdf, _) = job.pdf(json!({"cards": fronts, "back": back, "output": {"title": "deck"}}));
    hex::encode(Sha256::digest(std::fs::read(pdf).unwrap()))
}

fn profile_segment() -> Vec<u8> {
    [b"ICC_PROFILE\0\x01\x01".as_slice(), &fixtures::icc(b"RGB ")].concat()
}

#[test]
fn equal_jobs_give_equal_bytes_in_one_process_and_in_another() {
    const CHILD: &str = "WINDLASS_PDF_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        println!("digest={}", digest_of_mixed_job());
        return;
    }
    let here = digest_of_mixed_job();
    assert_eq!(here, digest_of_mixed_job());
    let name = "sheets::equal_jobs_give_equal_bytes_in_one_process_and_in_another";
    let child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(said.contains(&format!("digest={here}")), "{said}");
}

#[test]
fn two_cards_that_change_places_give_another_file() {
    let job = Job::new();
    let [a, b] = [1, 2].map(|n| job.blob(&png_card(n, 2.0)));
    let file = |fronts: [&String; 2]| {
        let (pdf, _) = job.pdf(json!({"cards": cards(fronts.map(Clone::clone)), "sides": "fronts"}));
        std::fs::read(pdf).unwrap()
    };
    assert_ne!(file([&a, &b]), file([&b, &a]));
}
