//! The main job, as a newcomer runs it.

use crate::harness::Home;

/// `windlass demo --once`: a PDF and a chart from a queue, then the same from the result cache.
#[test]
fn the_demo_makes_a_pdf_and_a_chart_and_then_takes_them_from_the_cache() {
    let home = Home::embedded();
    let shown = home.json(&["demo", "--once"]);
    for round in ["first", "second"] {
        for (i, kind) in ["pdf.card_sheet", "chart.render", "pdf.report"].iter().enumerate() {
            assert_eq!((&shown[round][i]["kind"], &shown[round][i]["status"]), (&(*kind).into(), &"success".into()));
            assert_eq!(shown[round][i]["cached"], round == "second", "{shown:#}");
        }
    }
    let pdf = std::fs::read(home.path().join("windlass-demo/cards.pdf")).unwrap();
    assert!(pdf.starts_with(b"%PDF-1.7"));
    let png = std::fs::read(home.path().join("windlass-demo/chart.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
    assert_eq!(shown["first"][0]["result"]["value"]["pages"], 14);
    // Another demo is not the first one's echo.
    assert_eq!(home.json(&["demo", "--once"])["first"][0]["cached"], false);
}

/// Plain lines where there is no terminal: no escape codes, files named.
#[test]
fn without_a_terminal_the_demo_prints_plain_lines() {
    let ran = Home::embedded().run(&["demo", "--once"]);
    assert!(ran.status.success(), "{ran:?}");
    assert!(!ran.stdout.contains('\u{1b}'), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("windlass-demo/cards.pdf") && ran.stdout.contains("from the result cache"),
        "{}",
        ran.stdout
    );
    // Each line names the file that it tells of.
    for (file, fact) in [("cards.pdf", "52 cards"), ("chart.png", "200 bars"), ("report.pdf", "stock analysis")] {
        let line = ran.stdout.lines().find(|line| line.contains(&format!("windlass-demo/{file}")));
        assert!(line.is_some_and(|line| line.contains(fact)), "{}", ran.stdout);
    }
    assert_eq!(ran.stderr, "");
}
