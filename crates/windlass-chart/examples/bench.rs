//! Draws the reference chart many times on one thread, and says what each took of the processor:
//! `cargo run --release -p windlass-chart --example bench -- fast 1000`.
//!
//! The last line is one JSON object, which `tests/bench/charts/run.py` reads.

use std::io::Write as _;

use serde_json::json;
use windlass_chart::args::{Effort, Overlay, PanelKind};
use windlass_chart::{ChartArgs, GOOG_DAILY_CSV, csv, render_file};

/// The chart of every comparison: 1200 × 800, 200 bars, two averages, volume, RSI.
fn reference(effort: Effort) -> Result<ChartArgs, Box<dyn std::error::Error>> {
    let mut args = ChartArgs::new("GOOG", "1d".parse()?, csv::candles_from_csv(GOOG_DAILY_CSV)?);
    args.visible_bars = Some(200);
    args.overlays = vec![Overlay::Sma { period: 20 }, Overlay::Sma { period: 50 }];
    args.panels = vec![PanelKind::Volume {}.into(), PanelKind::Rsi { period: 14, bands: [30.0, 70.0] }.into()];
    args.effort = Some(effort);
    Ok(args)
}

/// A line of `/proc/self/status`, in KiB.
fn status_kib(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// Processor time of this thread, in seconds, from `/proc/self/schedstat`.
fn cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let effort = if words.next().as_deref() == Some("balanced") { Effort::Balanced } else { Effort::Fast };
    let count: usize = words.next().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let args = reference(effort)?;
    let (mut draw_s, mut encode_s, mut bytes, mut after_100_kib) = (0.0, 0.0, 0, 0);
    let sha256 = windlass_store::Digest::of(&render_file(&args)?.file).hex();
    let begun = cpu_s();
    for index in 0..count {
        let drawn = render_file(&args)?;
        draw_s += drawn.draw_time.as_secs_f64();
        encode_s += drawn.encode_time.as_secs_f64();
        bytes = drawn.file.len();
        if index == 99 {
            after_100_kib = status_kib("VmHWM:");
        }
    }
    let spent = cpu_s() - begun;
    let line = json!({
        "charts": count,
        "cpu_ms_per_chart": spent * 1e3 / count as f64,
        "charts_per_cpu_s": count as f64 / spent,
        "draw_ms": draw_s * 1e3 / count as f64,
        "encode_ms": encode_s * 1e3 / count as f64,
        "file_bytes": bytes,
        "sha256": sha256,
        "peak_kib_after_100": after_100_kib,
        "peak_kib": status_kib("VmHWM:"),
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
