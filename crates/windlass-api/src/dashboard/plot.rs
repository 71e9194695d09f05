//! Small charts as SVG: one or two series over the last ten minutes.

use maud::{Markup, html};
use windlass_jobs::Timestamp;

/// The drawing, in its own units.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 120.0;
/// The time across it, in ms.
const SPAN_MS: f64 = 600_000.0;

/// A series: its name, its class in the style sheet, its values by time.
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) class: &'static str,
    pub(super) values: Vec<(Timestamp, f64)>,
}

/// A chart that ends at `now`; `write` turns a value into text.
pub(super) fn chart(title: &str, now: Timestamp, series: &[Series], write: impl Fn(f64) -> String) -> Markup {
    let most = series.iter().flat_map(|s| &s.values).map(|(_, value)| *value).fold(0.0, f64::max);
    let top = round_up(most);
    let last = |s: &Series| s.values.last().map_or(0.0, |(_, value)| *value);
    html! {
        figure class="chart" {
            figcaption {
                strong { (title) }
                @for s in series {
                    span class={ "key " (s.class) } { (s.name) " " b { (write(last(s))) } }
                }
            }
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img"
                aria-label=(format!("{title} over the last ten minutes, at most {}", write(most))) {
                @for part in 0..=2 {
                    @let y = f64::from(part) * HEIGHT / 2.0;
                    line class="grid" x1="0" x2=(WIDTH) y1=(y) y2=(y) {}
                }
                @for s in series {
                    @if let Some((area, line)) = paths(&s.values, now, top) {
                        path class={ "area " (s.class) } d=(area) {}
                        path class={ "line " (s.class) } d=(line) {}
                    }
                }
            }
            div class="axis" { span { "10 min ago" } span { "up to " (write(top)) } span { "now" } }
        }
    }
}

/// The filled and the open path of a series; `None` without two points.
fn paths(values: &[(Timestamp, f64)], now: Timestamp, top: f64) -> Option<(String, String)> {
    #[expect(clippy::cast_precision_loss, reason = "ten minutes in ms")]
    let x = |at: Timestamp| WIDTH - (now.0 - at.0) as f64 / SPAN_MS * WIDTH;
    let shown: Vec<_> = values.iter().map(|(at, value)| (x(*at), HEIGHT - value / top * HEIGHT)).collect();
    let inside: Vec<_> = shown.into_iter().filter(|(x, _)| *x >= 0.0).collect();
    let [(first, _), .., (last, _)] = inside.as_slice() else { return None };
    let line = inside.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" L");
    Some((format!("M{first:.1},{HEIGHT} L{line} L{last:.1},{HEIGHT} Z"), format!("M{line}")))
}

/// The next of 1, 2, 5, 10, 20, … that holds `most`.
fn round_up(most: f64) -> f64 {
    let ladder = (0..19).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power)));
    let mut steps = ladder.filter(|step| *step >= most);
    steps.next().unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_ends_at_a_round_number() {
        for (most, top) in [(0.0, 1.0), (1.0, 1.0), (1.1, 2.0), (34.0, 50.0), (99.0, 100.0), (101.0, 200.0)] {
            assert!((round_up(most) - top).abs() < 1e-9, "{most}");
        }
    }

    #[test]
    fn a_line_ends_at_the_right_edge_and_needs_two_points() {
        let now = Timestamp(1_000_000);
        assert_eq!(paths(&[(now, 1.0)], now, 1.0), None);
        let (_, line) = paths(&[(Timestamp(700_000), 0.0), (now, 1.0)], now, 2.0).expect("two points");
        assert_eq!(line, "M300.0,120.0 L600.0,60.0");
        let old = paths(&[(Timestamp(0), 1.0), (Timestamp(10), 1.0)], now, 1.0);
        assert_eq!(old, None, "older than the chart");
    }
}
