//! What can be wrong with levels, positions, lines, zones, markers and patterns.

use windlass_jobs::Violation;

use super::check::{MAX_PRICE, at_most, check_text};
use super::{ChartArgs, Line, Marker, MarkerAt, Position, PositionSide, PriceMode, Zone};
use crate::pattern;

const MAX_LEVELS: usize = 20;
const MAX_MARKERS: usize = 200;
const MAX_LABEL_CHARS: usize = 32;
/// Years 1 to 9999, as the bars' own times.
const TIMES_MS: std::ops::RangeInclusive<f64> = -62_132_400_000_000.0..=253_399_000_000_000.0;

/// Checks everything a trader put on the chart.
pub(super) fn check(args: &ChartArgs, found: &mut Vec<Violation>) {
    let counts = [
        ("/levels", args.levels.len()),
        ("/positions", args.positions.len()),
        ("/lines", args.lines.len()),
        ("/zones", args.zones.len()),
    ];
    for (path, count) in counts {
        at_most(path, count, MAX_LEVELS, found);
    }
    at_most("/markers", args.markers.len(), MAX_MARKERS, found);
    let mut check = Marks { positive: args.price_scale.mode == PriceMode::Log, found };
    for (index, level) in args.levels.iter().enumerate().take(MAX_LEVELS) {
        check.price(format!("/levels/{index}/price"), level.price);
        check.label(&format!("/levels/{index}/label"), level.label.as_deref());
    }
    for (index, position) in args.positions.iter().enumerate().take(MAX_LEVELS) {
        check.position(&format!("/positions/{index}"), position);
    }
    for (index, line) in args.lines.iter().enumerate().take(MAX_LEVELS) {
        check.line(&format!("/lines/{index}"), line);
    }
    for (index, zone) in args.zones.iter().enumerate().take(MAX_LEVELS) {
        check.zone(&format!("/zones/{index}"), zone);
    }
    for (index, marker) in args.markers.iter().enumerate().take(MAX_MARKERS) {
        check.marker(&format!("/markers/{index}"), marker);
    }
    check.patterns(&args.patterns);
}

struct Marks<'a> {
    /// Whether prices must be above nothing, as a logarithmic axis needs it.
    positive: bool,
    found: &'a mut Vec<Violation>,
}

impl Marks<'_> {
    fn say(&mut self, path: impl Into<String>, code: &str, message: impl Into<String>) {
        self.found.push(Violation::new(path, code, message));
    }

    fn price(&mut self, path: String, price: f64) {
        if !price.is_finite() || price.abs() > MAX_PRICE {
            self.say(path, "out_of_range", format!("{price} is not a price up to {MAX_PRICE:e}"));
        } else if self.positive && price <= 0.0 {
            self.say(path, "not_positive", format!("{price} has no place on a logarithmic axis"));
        }
    }

    fn time(&mut self, path: String, t: f64) {
        if !TIMES_MS.contains(&t) {
            self.say(path, "time_invalid", format!("{t} is not a time in ms UTC"));
        }
    }

    fn times(&mut self, path: &str, from: Option<f64>, to: Option<f64>) {
        for (name, t) in [("from", from), ("to", to)] {
            if let Some(t) = t {
                self.time(format!("{path}/{name}"), t);
            }
        }
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            self.say(format!("{path}/to"), "not_rising", "to is not after from");
        }
    }

    fn label(&mut self, path: &str, label: Option<&str>) {
        check_text(path, label, MAX_LABEL_CHARS, self.found);
    }

    fn position(&mut self, path: &str, position: &Position) {
        let Position { side, entry, stop_loss, take_profit, from, to } = *position;
        for (name, price) in [("entry", entry), ("stop_loss", stop_loss), ("take_profit", take_profit)] {
            self.price(format!("{path}/{name}"), price);
        }
        let ordered = match side {
            PositionSide::Long => stop_loss < entry && entry < take_profit,
            PositionSide::Short => take_profit < entry && entry < stop_loss,
        };
        if !ordered {
            let message = "the entry does not lie between stop loss and take profit on this side";
            self.say(path, "position_invalid", message);
        }
        self.times(path, from, to);
    }

    fn line(&mut self, path: &str, line: &Line) {
        for (name, spot) in [("from", line.from), ("to", line.to)] {
            self.time(format!("{path}/{name}/t"), spot.t);
            self.price(format!("{path}/{name}/price"), spot.price);
        }
        if line.from.t > line.to.t {
            self.say(format!("{path}/to/t"), "not_rising", "the line ends before it begins");
        }
    }

    fn zone(&mut self, path: &str, zone: &Zone) {
        self.price(format!("{path}/low"), zone.low);
        self.price(format!("{path}/high"), zone.high);
        if zone.low.partial_cmp(&zone.high) != Some(std::cmp::Ordering::Less) {
            self.say(format!("{path}/high"), "out_of_range", "high is not above low");
        }
        self.times(path, zone.from, zone.to);
        self.label(&format!("{path}/label"), zone.label.as_deref());
    }

    fn marker(&mut self, path: &str, marker: &Marker) {
        self.time(format!("{path}/t"), marker.t);
        match (marker.at, marker.price) {
            (MarkerAt::Price, None) => {
                self.say(format!("{path}/price"), "price_missing", "a marker at a price needs one");
            }
            (MarkerAt::Price, Some(price)) => self.price(format!("{path}/price"), price),
            (_, Some(_)) => {
                self.say(format!("{path}/price"), "price_unused", "only a marker with \"at\": \"price\" has a price");
            }
            (_, None) => {}
        }
        self.label(&format!("{path}/text"), marker.text.as_deref());
    }

    fn patterns(&mut self, names: &[String]) {
        at_most("/patterns", names.len(), pattern::COUNT, self.found);
        for (index, name) in names.iter().enumerate().take(pattern::COUNT) {
            if pattern::find(name).is_none() {
                let shown: String = name.chars().take(32).collect();
                let message = format!("{shown:?} is none of TA-Lib's {} candlestick patterns", pattern::COUNT);
                self.say(format!("/patterns/{index}"), "unknown_pattern", message);
            }
        }
    }
}
