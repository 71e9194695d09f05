//! Measures `pdf.card_sheet` and `pdf.report` for docs/performance.md, one case a process:
//! `cargo run --release -p windlass-pdf --example sheets -- CASE`.
//!
//! Prints wall and processor time of one run, the growth of memory over it, and the size of the file.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool that prints")]

use std::path::Path;
use std::time::{Duration, Instant};

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use windlass_jobs::{Done, Outcome};
use windlass_pdf::{CardSheet, CardSheetArgs, Report, ReportArgs};
use windlass_worker::{IsolatedKind, RunContext};

const CASES: &str = "embed-none embed-edge embed-edge-1500 raster raster-1500 png large report";

struct Quiet;

impl RunContext for Quiet {
    fn progress(&self, _percent: f32, _message: &str) {}
    fn cancelled(&self) -> bool {
        false
    }
    fn remaining(&self) -> Duration {
        Duration::from_secs(300)
    }
    fn attempt(&self) -> u32 {
        1
    }
}

/// A picture with the spectrum of a photograph: noise at every scale, coarse ones stronger.
fn picture(seed: u64, width: u32, height: u32) -> RgbImage {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        f64::from((state >> 40) as u32) / f64::from(1 << 24) - 0.5
    };
    let mut sum = vec![[128.0; 3]; (width * height) as usize];
    for (divisor, strength) in [(150, 200.0), (50, 90.0), (16, 45.0), (5, 24.0), (2, 12.0)] {
        let small = RgbImage::from_fn(width.div_ceil(divisor), height.div_ceil(divisor), |_, _| {
            Rgb([(); 3].map(|()| (128.0 + random() * 255.0) as u8))
        });
        let large = image::imageops::resize(&small, width, height, FilterType::Triangle);
        for (sum, pixel) in sum.iter_mut().zip(large.pixels()) {
            for (sum, value) in sum.iter_mut().zip(pixel.0) {
                *sum += (f64::from(value) - 128.0) / 255.0 * strength;
            }
        }
    }
    RgbImage::from_fn(width, height, |x, y| Rgb(sum[(y * width + x) as usize].map(|v| v.clamp(0.0, 255.0) as u8)))
}

fn encoded(image: RgbImage, png: bool) -> Vec<u8> {
    let image = DynamicImage::from(image);
    let mut out = std::io::Cursor::new(Vec::new());
    if png {
        image.write_to(&mut out, ImageFormat::Png).unwrap();
    } else {
        image.write_with_encoder(JpegEncoder::new_with_quality(&mut out, 90)).unwrap();
    }
    out.into_inner()
}

fn blob(dir: &Path, bytes: &[u8]) -> String {
    let digest = hex::encode(Sha256::digest(bytes));
    std::fs::write(dir.join("in").join(&digest), bytes).unwrap();
    format!("sha256:{digest}")
}

/// Sixty-four cards and one back, duplex.
fn deck(dir: &Path, (width, height): (u32, u32), png: bool, more: Value) -> CardSheetArgs {
    let make = |n| blob(dir, &encoded(picture(n, width, height), png));
    let cards: Vec<Value> = (0..64).map(|n| json!({ "front": make(n) })).collect();
    let mut args = json!({ "cards": cards, "back": make(99) });
    for (name, value) in more.as_object().unwrap() {
        args[name] = value.clone();
    }
    serde_json::from_value(args).unwrap()
}

fn rows(count: usize) -> Value {
    (0..count)
        .map(|i| json!([i, format!("Article number {i} with a name"), "pcs", i % 7, format!("{}.50", i * 3)]))
        .collect()
}

/// Resident memory now and at most, in MiB.
fn memory() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    };
    (of("VmRSS"), of("VmHWM"))
}

/// Processor time of this process, in seconds.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn measure<K: IsolatedKind>(case: &str, kind: &K, args: K::Args, dir: &Path) {
    // The most so far is forgotten: making the pictures took more than laying them does.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let (before, _) = memory();
    let (cpu, started) = (processor(), Instant::now());
    let outcome = kind.run(args, dir, &Quiet);
    let (wall, cpu, (_, most)) = (started.elapsed(), processor() - cpu, memory());
    let Outcome::Done(Done { value, artifacts, .. }) = outcome else { panic!("{outcome:?}") };
    let bytes: u64 = artifacts.iter().map(|a| std::fs::metadata(dir.join(&a.path)).unwrap().len()).sum();
    println!(
        "{case}: wall {:.3} s, cpu {cpu:.2} s, memory +{:.0} MiB ({most:.0} in all), file {:.2} MiB, {} pages, ms {}",
        wall.as_secs_f64(),
        most - before,
        bytes as f64 / 1_048_576.0,
        value["pages"],
        value["ms"],
    );
    if let Some(keep) = std::env::var_os("KEEP") {
        std::fs::copy(dir.join(&artifacts[0].path), keep).unwrap();
    }
}

fn main() {
    let case = std::env::args().nth(1).unwrap_or_default();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    let dir = dir.path();
    let (small, large) = ((750, 1050), (1500, 2100));
    let args = match case.as_str() {
        "embed-none" => deck(dir, small, false, json!({"bleed": "none"})),
        "embed-edge" => deck(dir, small, false, json!({})),
        "embed-edge-1500" => deck(dir, large, false, json!({})),
        "raster" => deck(dir, small, false, json!({"mode": "raster"})),
        "raster-1500" => deck(dir, large, false, json!({"mode": "raster"})),
        // Over 200 MiB of output, to see what holding it takes.
        "large" => deck(dir, (1800, 2520), true, json!({"png": "lossless", "bleed": "none", "max_source_ppi": 2400})),
        "png" => deck(dir, small, true, json!({"png": "lossless", "bleed": "none"})),
        "report" => {
            let columns = ["No", "Article", "Unit", "Count", "Price"].map(|header| json!({ "header": header }));
            let args = json!({
                "footer": {"right": "{page}/{pages}"},
                "blocks": [{"type": "heading", "text": "Invoice"}, {"type": "table", "columns": columns, "rows": rows(500)}],
            });
            let args = || serde_json::from_value::<ReportArgs>(args.clone()).unwrap();
            measure("report, first in its process", &Report, args(), dir);
            return measure("report", &Report, args(), dir);
        }
        _ => panic!("one of {CASES}"),
    };
    measure(&case, &CardSheet, args, dir);
}
