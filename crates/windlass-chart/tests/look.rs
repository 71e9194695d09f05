//! temporary
use windlass_chart::args::*;
use windlass_chart::*;
#[test]
fn look() {
    std::fs::create_dir_all("/tmp/chart").unwrap();
    let goog = csv::candles_from_csv(GOOG_DAILY_CSV).unwrap();
    let eur =
        csv::candles_from_csv(&std::fs::read_to_string("/work/shared/data/ohlcv/EURUSD_1h.csv").unwrap()).unwrap();
    let base = |n| {
        let mut a = ChartArgs::new("GOOG", "1d".parse().unwrap(), goog.clone());
        a.visible_bars = Some(n);
        a.overlays = vec![Overlay::Sma { period: 20 }, Overlay::Sma { period: 50 }];
        a.panels = vec![Panel::Volume {}];
        a
    };
    let save = |name: &str, a: &ChartArgs| {
        let d = render_png(a).unwrap();
        println!("- {name}: {} KB draw {:?} encode {:?} {:?}", d.png.len() / 1024, d.draw_time, d.encode_time, d.notes);
        std::fs::write(format!("/tmp/chart/{name}.png"), &d.png).unwrap();
    };
    save("warm", &base(200));
    save("light", &base(200));
    let mut a = base(200);
    a.theme = Theme::Dark;
    save("dark", &a);
    a.scale = 2;
    save("dark2x", &a);
    a.effort = Effort::Fast;
    a.scale = 1;
    save("fast", &a);
    save("60", &base(60));
    save("2000", &base(2000));
    save("500", &base(500));
    save("10", &base(10));
    let mut a = base(120);
    a.title = Some("Alphabet Inc. – daily closes with 20 and 50 day averages".into());
    a.subtitle = Some("Source: Quandl WIKI, unadjusted".into());
    a.width_px = 900;
    a.height_px = 600;
    save("titled", &a);
    let mut a = ChartArgs::new("EURUSD", "1h".parse().unwrap(), eur.clone());
    a.visible_bars = Some(120);
    a.overlays = vec![Overlay::Sma { period: 24 }];
    a.panels = vec![Panel::Volume {}];
    a.time_zone = "America/New_York".into();
    a.theme = Theme::Dark;
    save("intraday", &a);
    a.price_scale.side = Side::Left;
    a.theme = Theme::Light;
    save("left", &a);
    let mut a = base(60);
    a.width_px = 160;
    a.height_px = 120;
    save("tiny", &a);
    let mut a = base(60);
    a.width_px = 400;
    a.height_px = 300;
    save("small", &a);
    let one = |p: f64| Candles {
        t: vec![1.0e12].into(),
        o: vec![p].into(),
        h: vec![p].into(),
        l: vec![p].into(),
        c: vec![p].into(),
        v: Some(vec![0.0].into()),
    };
    let mut a = ChartArgs::new("ONE", "1d".parse().unwrap(), one(1e12));
    a.panels = vec![Panel::Volume {}];
    save("one", &a);
    a.candles = one(1e-8);
    save("one_small", &a);
}
