//! throwaway
use image::{Rgb, RgbImage};
use sha2::{Digest, Sha256};
use std::path::Path;
use windlass_pdf::*;
use windlass_worker::{IsolatedKind, RunContext};
struct Ctx;
impl RunContext for Ctx {
    fn progress(&self, _: f32, _: &str) {}
    fn cancelled(&self) -> bool {
        false
    }
    fn remaining(&self) -> std::time::Duration {
        std::time::Duration::from_secs(1)
    }
    fn attempt(&self) -> u32 {
        1
    }
}
fn noise(x: u32, y: u32, s: u32) -> f64 {
    let mut h = x.wrapping_mul(374761393) ^ y.wrapping_mul(668265263) ^ s.wrapping_mul(2246822519);
    h = (h ^ (h >> 13)).wrapping_mul(1274126177);
    f64::from((h ^ (h >> 16)) & 255) / 255.0
}
fn smooth(x: f64, y: f64, s: u32) -> f64 {
    let (xi, yi) = (x as u32, y as u32);
    let (fx, fy) = (x.fract(), y.fract());
    let a = noise(xi, yi, s) * (1.0 - fx) + noise(xi + 1, yi, s) * fx;
    let b = noise(xi, yi + 1, s) * (1.0 - fx) + noise(xi + 1, yi + 1, s) * fx;
    a * (1.0 - fy) + b * fy
}
fn card(n: u32, w: u32, h: u32, back: bool) -> RgbImage {
    RgbImage::from_fn(w, h, |px, py| {
        let (x, y) = (f64::from(px) * 750.0 / f64::from(w), f64::from(py) * 1050.0 / f64::from(h));
        let f: f64 = [(60.0, 0.5), (25.0, 0.25), (8.0, 0.15), (2.0, 0.1)]
            .iter()
            .enumerate()
            .map(|(i, (s, a))| smooth(x / s, y / s, n * 7 + i as u32) * a)
            .sum();
        let hue = |k: f64| ((f64::from(n) * 0.7 + k).sin() * 0.5 + 0.5) * 200.0;
        let art = [hue(0.0) * f + 55.0 * f, hue(2.1) * f + 40.0, hue(4.2) * f + 30.0];
        let edge = x < 30.0 || y < 30.0 || x > 720.0 || y > 1020.0;
        if edge {
            return Rgb([18, 16, 14]);
        }
        if back {
            let d = ((x - 375.0).powi(2) + ((y - 525.0) * 0.8).powi(2)).sqrt();
            let ring = (d as u32 / 40) % 2 == 0 && d < 300.0;
            let up = y < 300.0 && (x - 375.0).abs() < (y - 120.0) * 0.5;
            if up {
                return Rgb([250, 220, 120]);
            }
            return if ring { Rgb([120, 70, 30]) } else { Rgb([(80.0 + 60.0 * f) as u8, (45.0 + 30.0 * f) as u8, 20]) };
        }
        let title = (50.0..110.0).contains(&y);
        let text = (660.0..1000.0).contains(&y);
        if title || text {
            let line = if title {
                ((70.0..92.0).contains(&y))
                    && (60.0..300.0 + f64::from(n % 7) * 30.0).contains(&x)
                    && (x as u32 % 18 < 13)
            } else {
                (y as u32 - 660) % 40 > 18
                    && (y as u32 - 660) % 40 < 34
                    && (60.0..690.0 - f64::from((y as u32 / 40 * 37 + n * 13) % 200)).contains(&x)
                    && (x as u32 % 14 < 10)
                    && y > 680.0
            };
            return if line { Rgb([30, 26, 20]) } else { Rgb([232, 224, 204]) };
        }
        Rgb(art.map(|v| v.clamp(0.0, 255.0) as u8))
    })
}
fn main() {
    let count: u32 = std::env::args().nth(1).unwrap().parse().unwrap();
    let kind = std::env::args().nth(2).unwrap();
    let dir = std::path::PathBuf::from(std::env::args().nth(3).unwrap());
    std::fs::create_dir_all(dir.join("in")).unwrap();
    let put = |image: RgbImage, png: bool| {
        let mut b = Vec::new();
        if png {
            image.write_with_encoder(image::codecs::png::PngEncoder::new(&mut b)).unwrap()
        } else {
            image.write_with_encoder(image::codecs::jpeg::JpegEncoder::new_with_quality(&mut b, 88)).unwrap()
        }
        let d = hex::encode(Sha256::digest(&b));
        std::fs::write(dir.join("in").join(&d), &b).unwrap();
        (format!("sha256:{d}"), b.len())
    };
    let mut total = 0;
    let cards: Vec<CardArgs> = (0..count)
        .map(|n| {
            let (front, len) = put(card(n, 750, 1050, false), kind == "png" || (kind == "mixed" && n % 3 == 0));
            total += len;
            let back = (kind == "mixed" && n % 5 == 4).then(|| put(card(n + 100, 750, 1050, true), false).0);
            CardArgs { front, back, copies: 1 }
        })
        .collect();
    let (back, len) = put(card(99, 750, 1050, true), false);
    let args = CardSheetArgs { cards, back: Some(back), ..Default::default() };
    let t = std::time::Instant::now();
    let outcome = CardSheet.run(args, Path::new(&dir), &Ctx);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let hwm = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    println!("{:?} source {} {hwm}\n{outcome:?}", t.elapsed(), total + len);
}
