//! Colours and sizes. The palettes are the ones traders know from TradingView's default
//! themes; translucent colours are mixed beforehand, which keeps the image's palette small.

use crate::args::{ChartArgs, Palette, Theme};
use crate::scene::Color;

/// The colours of one theme.
#[derive(Debug, Clone)]
pub struct Style {
    /// Behind everything.
    pub background: Color,
    /// Symbol, title, axis labels.
    pub text: Color,
    /// Interval, names in legends.
    pub muted: Color,
    /// Grid lines.
    pub grid: Color,
    /// Lines between panels and axes.
    pub border: Color,
    /// Bars that close at or above their open.
    pub up: Color,
    /// Bars that close below their open.
    pub down: Color,
    /// Overlays, in order.
    pub series: [Color; 10],
    /// Opacity of volume columns.
    volume_part: f32,
}

impl Style {
    /// The colours of `theme`.
    #[must_use]
    pub fn of(theme: Theme) -> &'static Self {
        match theme {
            Theme::Light => &LIGHT,
            Theme::Dark => &DARK,
        }
    }

    /// The colours that `args` ask for: their theme, palette and single colours.
    #[must_use]
    pub fn for_args(args: &ChartArgs) -> Self {
        let mut style = Self::of(args.theme).clone();
        (style.up, style.down) = match (args.palette, args.theme) {
            (Palette::Classic, _) => (style.up, style.down),
            (Palette::ColorBlind, Theme::Light) => (Color::rgb(0x00_72_b2), Color::rgb(0xe0_7b_00)),
            (Palette::ColorBlind, Theme::Dark) => (Color::rgb(0x56_b4_e9), Color::rgb(0xe6_9f_00)),
            (Palette::EastAsian, _) => (style.down, style.up),
        };
        let asked = &args.colors;
        for (place, color) in [
            (&mut style.up, asked.up),
            (&mut style.down, asked.down),
            (&mut style.background, asked.background),
            (&mut style.text, asked.text),
            (&mut style.grid, asked.grid),
        ] {
            *place = color.map_or(*place, |hex| hex.0);
        }
        style
    }

    /// The colour of text on `ground`: white, or near-black where white could not be read.
    #[must_use]
    pub fn on(ground: Color) -> Color {
        // Relative luminance without gamma; above it white has less than 2.5 : 1 of contrast.
        let light = 0.2126 * f32::from(ground.r) + 0.7152 * f32::from(ground.g) + 0.0722 * f32::from(ground.b);
        if light > 165.0 { Color::rgb(0x13_17_22) } else { Color::rgb(0xff_ff_ff) }
    }

    /// `color` as seen through it: for shaded areas.
    #[must_use]
    pub const fn pale(color: Color, opacity: u8) -> Color {
        Color { a: opacity, ..color }
    }

    /// The colour of a bar.
    #[must_use]
    pub fn bar(&self, rising: bool) -> Color {
        if rising { self.up } else { self.down }
    }

    /// The colour of a volume column.
    #[must_use]
    pub fn volume(&self, rising: bool) -> Color {
        self.bar(rising).over(self.background, self.volume_part)
    }
}

static LIGHT: Style = Style {
    background: Color::rgb(0xff_ff_ff),
    text: Color::rgb(0x13_17_22),
    muted: Color::rgb(0x6a_6d_78),
    grid: Color::rgb(0xec_ee_f3),
    border: Color::rgb(0xd9_dc_e3),
    up: Color::rgb(0x08_99_81),
    down: Color::rgb(0xf2_36_45),
    series: [
        Color::rgb(0x29_62_ff),
        Color::rgb(0xf5_7c_00),
        Color::rgb(0x9c_27_b0),
        Color::rgb(0x00_97_a7),
        Color::rgb(0xe9_1e_63),
        Color::rgb(0x6d_4c_41),
        Color::rgb(0x3f_51_b5),
        Color::rgb(0x68_9f_38),
        Color::rgb(0xc2_96_00),
        Color::rgb(0x54_6e_7a),
    ],
    volume_part: 0.42,
};

static DARK: Style = Style {
    background: Color::rgb(0x13_17_22),
    text: Color::rgb(0xd1_d4_dc),
    muted: Color::rgb(0x8c_90_9c),
    grid: Color::rgb(0x1f_24_30),
    border: Color::rgb(0x36_3a_46),
    up: Color::rgb(0x08_99_81),
    down: Color::rgb(0xf2_36_45),
    series: [
        Color::rgb(0x5b_8c_ff),
        Color::rgb(0xff_98_00),
        Color::rgb(0xce_74_dd),
        Color::rgb(0x26_c6_da),
        Color::rgb(0xff_6f_9f),
        Color::rgb(0xbc_9a_8d),
        Color::rgb(0x9f_a8_da),
        Color::rgb(0x9c_cc_65),
        Color::rgb(0xff_d5_4f),
        Color::rgb(0x90_a4_ae),
    ],
    volume_part: 0.5,
};
