//! TA-Lib's candlestick patterns, by name.

use ta_lib::{Core, OutRange, RetCode};

use crate::args::Candles;

type Call = fn(&Core, &Candles, &mut [i32]) -> Result<OutRange, RetCode>;

/// A pattern that can be looked for.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    /// TA-Lib's name without `CDL`, in small letters: `morningstar`.
    key: &'static str,
    /// What it is called on a chart.
    pub label: &'static str,
    call: Call,
}

/// How the deeper patterns need the second body to reach into the first: TA-Lib's defaults.
const STAR: f64 = 0.3;
const HALF: f64 = 0.5;

macro_rules! patterns {
    ($($key:literal $label:literal $call:ident $($penetration:expr)?;)*) => {
        static PATTERNS: &[Pattern] = &[$(Pattern {
            key: $key,
            label: $label,
            call: |core, bars, out| {
                core.$call(0, bars.c.len() - 1, &bars.o, &bars.h, &bars.l, &bars.c, $($penetration,)? out)
            },
        },)*];
    };
}

patterns! {
    "2crows" "Two crows" cdl2crows;
    "3blackcrows" "Three black crows" cdl3blackcrows;
    "3inside" "Three inside" cdl3inside;
    "3linestrike" "Three-line strike" cdl3linestrike;
    "3outside" "Three outside" cdl3outside;
    "3starsinsouth" "Three stars in the south" cdl3starsinsouth;
    "3whitesoldiers" "Three white soldiers" cdl3whitesoldiers;
    "abandonedbaby" "Abandoned baby" cdlabandonedbaby STAR;
    "advanceblock" "Advance block" cdladvanceblock;
    "belthold" "Belt hold" cdlbelthold;
    "breakaway" "Breakaway" cdlbreakaway;
    "closingmarubozu" "Closing marubozu" cdlclosingmarubozu;
    "concealbabyswall" "Concealing baby swallow" cdlconcealbabyswall;
    "counterattack" "Counterattack" cdlcounterattack;
    "darkcloudcover" "Dark cloud cover" cdldarkcloudcover HALF;
    "doji" "Doji" cdldoji;
    "dojistar" "Doji star" cdldojistar;
    "dragonflydoji" "Dragonfly doji" cdldragonflydoji;
    "engulfing" "Engulfing" cdlengulfing;
    "eveningdojistar" "Evening doji star" cdleveningdojistar STAR;
    "eveningstar" "Evening star" cdleveningstar STAR;
    "gapsidesidewhite" "Side-by-side white lines" cdlgapsidesidewhite;
    "gravestonedoji" "Gravestone doji" cdlgravestonedoji;
    "hammer" "Hammer" cdlhammer;
    "hangingman" "Hanging man" cdlhangingman;
    "harami" "Harami" cdlharami;
    "haramicross" "Harami cross" cdlharamicross;
    "highwave" "High wave" cdlhighwave;
    "hikkake" "Hikkake" cdlhikkake;
    "hikkakemod" "Modified hikkake" cdlhikkakemod;
    "homingpigeon" "Homing pigeon" cdlhomingpigeon;
    "identical3crows" "Identical three crows" cdlidentical3crows;
    "inneck" "In neck" cdlinneck;
    "invertedhammer" "Inverted hammer" cdlinvertedhammer;
    "kicking" "Kicking" cdlkicking;
    "kickingbylength" "Kicking by length" cdlkickingbylength;
    "ladderbottom" "Ladder bottom" cdlladderbottom;
    "longleggeddoji" "Long-legged doji" cdllongleggeddoji;
    "longline" "Long line" cdllongline;
    "marubozu" "Marubozu" cdlmarubozu;
    "matchinglow" "Matching low" cdlmatchinglow;
    "mathold" "Mat hold" cdlmathold HALF;
    "morningdojistar" "Morning doji star" cdlmorningdojistar STAR;
    "morningstar" "Morning star" cdlmorningstar STAR;
    "onneck" "On neck" cdlonneck;
    "piercing" "Piercing" cdlpiercing;
    "rickshawman" "Rickshaw man" cdlrickshawman;
    "risefall3methods" "Rising/falling three" cdlrisefall3methods;
    "separatinglines" "Separating lines" cdlseparatinglines;
    "shootingstar" "Shooting star" cdlshootingstar;
    "shortline" "Short line" cdlshortline;
    "spinningtop" "Spinning top" cdlspinningtop;
    "stalledpattern" "Stalled pattern" cdlstalledpattern;
    "sticksandwich" "Stick sandwich" cdlsticksandwich;
    "takuri" "Takuri" cdltakuri;
    "tasukigap" "Tasuki gap" cdltasukigap;
    "thrusting" "Thrusting" cdlthrusting;
    "tristar" "Tristar" cdltristar;
    "unique3river" "Unique three river" cdlunique3river;
    "upsidegap2crows" "Upside gap two crows" cdlupsidegap2crows;
    "xsidegap3methods" "Side gap three methods" cdlxsidegap3methods;
}

/// How many patterns there are.
pub const COUNT: usize = 61;

const _: () = assert!(PATTERNS.len() == COUNT, "one row for each CDL function of TA-Lib");

/// The pattern of a name in any case, with or without `CDL`, underscores and blanks.
#[must_use]
pub fn find(name: &str) -> Option<&'static Pattern> {
    if name.len() > 64 {
        return None;
    }
    let plain: String = name.chars().filter(|c| !"_- ".contains(*c)).map(|c| c.to_ascii_lowercase()).collect();
    let key = plain.strip_prefix("cdl").unwrap_or(&plain);
    PATTERNS.iter().find(|pattern| pattern.key == key)
}

impl Pattern {
    /// The bars at which it ends, with whether it speaks for rising prices.
    #[must_use]
    pub fn bars(&self, candles: &Candles) -> Vec<(usize, bool)> {
        let mut out = vec![0; candles.c.len()];
        if out.is_empty() {
            return Vec::new();
        }
        let range = (self.call)(&Core::new(), candles, &mut out);
        let Ok(OutRange { beg_idx, count, .. }) = range else { return Vec::new() };
        let signs = out.into_iter().take(count).enumerate();
        signs.filter(|(_, sign)| *sign != 0).map(|(index, sign)| (beg_idx + index, sign > 0)).collect()
    }
}
