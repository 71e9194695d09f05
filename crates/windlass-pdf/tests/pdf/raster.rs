//! Mode raster beside mode embed, and page images.

use image::ImageReader;
use serde_json::{Value, json};

use crate::fixtures::{frame_color, jpeg_card};
use crate::job::Job;
use crate::tools::{Rendered, images, is_near, render, render_mupdf};

/// Eight cards with a common back.
fn deck(job: &Job) -> Value {
    let fronts: Vec<Value> = (0..8).map(|n| json!({"front": job.blob(&jpeg_card(n, 12.0))})).collect();
    json!({"cards": fronts, "back": job.blob(&jpeg_card(60, 12.0))})
}

fn with(mut args: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        args[name] = value.clone();
    }
    args
}

/// §8.2: at most 3 % of pixels differ between the modes with poppler, which rounds turned pictures
/// by a pixel; less with MuPDF.
#[test]
fn both_modes_put_the_same_pixels_on_paper() {
    let job = Job::new();
    let (embed, _) = job.default_pdf(deck(&job));
    let pages: Vec<[Rendered; 2]> = [1, 2].map(|n| [render(&embed, n, 300), render_mupdf(&embed, n, 300)]).into();
    let (raster, _) = job.default_pdf(with(deck(&job), json!({"mode": "raster", "quality": 95})));
    for (n, [poppler, mupdf]) in pages.iter().enumerate() {
        let page = render(&raster, n + 1, 300);
        assert!(page.differing(poppler, 40, (0, 0)) <= 0.03, "page {n}: {}", page.differing(poppler, 40, (0, 0)));
        assert!(page.differing(mupdf, 40, (0, 0)) <= 0.01, "page {n}: {}", page.differing(mupdf, 40, (0, 0)));
    }
}

#[test]
fn equal_back_pages_are_stored_once() {
    let job = Job::new();
    let (front, back) = (job.blob(&jpeg_card(1, 4.0)), job.blob(&jpeg_card(2, 4.0)));
    let args = json!({"cards": [{"front": front, "copies": 24}], "back": back, "mode": "raster", "ppi": 72});
    let (pdf, result) = job.default_pdf(args);
    assert_eq!((&result["pages"], &result["mode"]), (&json!(6), &json!("raster")));
    let objects: std::collections::HashSet<String> = images(&pdf).into_iter().map(|i| i.object).collect();
    assert_eq!(objects.len(), 4, "3 fronts with their own labels and 1 back");
}

#[test]
fn pages_come_as_pictures_of_the_size_of_the_page() {
    for (format, quality) in [("png", 75), ("jpg", 75), ("webp", 75)] {
        let job = Job::new();
        let args =
            with(deck(&job), json!({"mode": "raster", "ppi": 150, "quality": quality, "output": {"format": format}}));
        let (files, result) = job.files(job.run_as_it_is(args));
        assert_eq!(files.len(), 2);
        assert!(files[1].ends_with(format!("page2.{format}")), "{files:?}");
        let sum: u64 = files.iter().map(|f| std::fs::metadata(f).unwrap().len()).sum();
        assert_eq!(result["bytes"], sum);
        let page = ImageReader::open(&files[0]).unwrap().with_guessed_format().unwrap().decode().unwrap().to_rgb8();
        let page = Rendered::from_rgb(&page, 150.0);
        assert_eq!(page.size(), (1650, 1275));
        // The frame of the first card, 2 mm inside of it.
        assert!(is_near(page.at_mm((13.9, 60.0)), frame_color(0), 16), "{format}: {:?}", page.at_mm((13.9, 60.0)));
    }
}

/// §8.8.
#[test]
fn another_quality_is_another_file() {
    let job = Job::new();
    let of = |quality: u32| {
        let (pdf, _) = job.default_pdf(with(deck(&job), json!({"mode": "raster", "ppi": 72, "quality": quality})));
        std::fs::read(pdf).unwrap()
    };
    let (coarse, fine) = (of(75), of(95));
    assert!(coarse.len() < fine.len());
    assert_eq!(coarse, of(75));
}
