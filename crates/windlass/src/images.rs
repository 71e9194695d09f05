//! Settings of the image store: its own names, those of the system it replaces, and the three
//! presets of `ENVIRONMENT`.
//!
//! A single variable beats the preset, the preset beats the default.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use windlass_chart::{Defaults, Format};
use windlass_redis::Link;
use windlass_store::images::{Evict, FileImages, ImageOptions, Images, OldFolder, RedisImages};

use crate::settings::{Found, Settings};

/// A call to the image store takes no longer than this; then files are used.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Everything about images that a process can be told.
#[derive(Debug, Clone)]
pub(crate) struct ImageSettings {
    /// Age, sizes, sweep: `REDIS_IMAGE_MAX_AGE_HOURS` (0.01–8,760, default 24),
    /// `REDIS_IMAGE_MAX_SIZE_MB` (1–16,777,216, default 1,000),
    /// `REDIS_IMAGE_CLEANUP_INTERVAL_MINUTES` (1–10,080, default 60), `REDIS_IMAGE_ENABLE_CLEANUP`
    /// (default true), `WINDLASS_IMAGE_MAX_KB` (1–1,048,576, default 8,192), `WINDLASS_IMAGE_EVICT`
    /// (oldest, lru, largest; default oldest), `WINDLASS_IMAGE_FILES_MAX_MB` (1–16,777,216, default
    /// as on Redis).
    pub(crate) options: ImageOptions,
    /// A Redis of their own: `WINDLASS_IMAGE_REDIS_URL`, default the queue's.
    redis: Option<windlass_redis::Options>,
    /// Where they are while Redis is away: `WINDLASS_IMAGE_DIR`, default `images` in the data
    /// directory.
    dir: Option<PathBuf>,
    /// Image files of a former system: `WINDLASS_IMAGE_OLD_DIR`.
    old_dir: Option<PathBuf>,
    /// The font for letters of charts that the embedded Inter lacks: `WINDLASS_CHART_FONT`, a TrueType
    /// or OpenType file. Default none: such letters are refused.
    pub(crate) font: Option<PathBuf>,
    /// What charts get that do not say: `REDIS_IMAGE_FORMAT` (PNG, JPEG, WEBP, SVG in any case;
    /// default PNG) and `REDIS_IMAGE_QUALITY` (1–100, default 85).
    pub(crate) defaults: Defaults,
}

/// Age in hours, MiB, minutes between sweeps, quality, format.
type Preset = (f64, u64, u64, u8, Format);

/// The numbers of `compat.md` §1.
fn preset(found: &Found) -> anyhow::Result<Preset> {
    let allowed = "development, staging or production";
    let known = |name: &String| ["development", "staging", "production"].contains(&name.to_lowercase().as_str());
    let name = found.parse::<String>("ENVIRONMENT", allowed, known)?.unwrap_or_default();
    Ok(match name.to_lowercase().as_str() {
        "staging" => (12.0, 500, 30, 85, Format::Png),
        "production" => (6.0, 200, 15, 80, Format::Jpeg),
        _ => (24.0, 1000, 60, 85, Format::Png),
    })
}

/// `true`, `1`, `yes`, `on` and their opposites, in any case.
fn flag(text: &str) -> Option<bool> {
    match text.trim().to_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn format(found: &Found, preset: Format) -> anyhow::Result<Format> {
    let Some(text) = found.text("REDIS_IMAGE_FORMAT") else { return Ok(preset) };
    Ok(match text.trim().to_lowercase().as_str() {
        "png" => Format::Png,
        "jpeg" | "jpg" => Format::Jpeg,
        "webp" => Format::Webp,
        "svg" => Format::Svg,
        _ => return Err(anyhow!("REDIS_IMAGE_FORMAT is {text:?}; PNG, JPEG, WEBP or SVG is allowed")),
    })
}

/// Sets the second font of this process, where one is named.
fn second_font(found: &Found) -> anyhow::Result<Option<PathBuf>> {
    let Some(path) = found.text("WINDLASS_CHART_FONT").map(PathBuf::from) else { return Ok(None) };
    use_font(&path).map_err(|e| anyhow!("WINDLASS_CHART_FONT is {path:?}: {e:#}"))?;
    Ok(Some(path))
}

/// Reads a font file and has charts use it.
pub(crate) fn use_font(path: &Path) -> anyhow::Result<()> {
    let file = std::fs::read(path).context("it cannot be read")?;
    Ok(windlass_chart::font::set_second(file)?)
}

impl ImageSettings {
    /// The Redis that only images use.
    pub(crate) const fn own_redis(&self) -> Option<&windlass_redis::Options> {
        self.redis.as_ref()
    }

    /// Reads them from what was found.
    pub(crate) fn read(found: &Found) -> anyhow::Result<Self> {
        let (age_hours, size_mb, interval_min, quality, preset_format) = preset(found)?;
        let mib = |name: &str| found.parse::<u64>(name, "1 to 16777216", |mib| (1..=16_777_216).contains(mib));
        let hours = found.parse::<f64>("REDIS_IMAGE_MAX_AGE_HOURS", "0.01 to 8760", |h| (0.01..=8760.0).contains(h))?;
        let minutes = |m: &u64| (1..=10_080).contains(m);
        let minutes = found.parse("REDIS_IMAGE_CLEANUP_INTERVAL_MINUTES", "1 to 10080", minutes)?;
        let cleanup = match found.text("REDIS_IMAGE_ENABLE_CLEANUP") {
            None => true,
            Some(text) => {
                flag(text).ok_or_else(|| anyhow!("REDIS_IMAGE_ENABLE_CLEANUP is {text:?}; true or false is allowed"))?
            }
        };
        let image_kb =
            found.parse::<u64>("WINDLASS_IMAGE_MAX_KB", "1 to 1048576", |kb| (1..=1_048_576).contains(kb))?;
        let evict = found.parse::<Evict>("WINDLASS_IMAGE_EVICT", "oldest, lru or largest", |_| true)?;
        let max_total_bytes = mib("REDIS_IMAGE_MAX_SIZE_MB")?.unwrap_or(size_mb) << 20;
        let usual = ImageOptions::default();
        let options = ImageOptions {
            max_age: Duration::from_secs_f64(hours.unwrap_or(age_hours) * 3600.0),
            max_total_bytes,
            max_image_bytes: image_kb.map_or(usual.max_image_bytes, |kb| kb << 10),
            cleanup_interval: Duration::from_secs(minutes.unwrap_or(interval_min) * 60),
            cleanup,
            evict: evict.unwrap_or_default(),
            max_file_bytes: mib("WINDLASS_IMAGE_FILES_MAX_MB")?.map_or(max_total_bytes, |mib| mib << 20),
        };
        let asked = found.parse::<u8>("REDIS_IMAGE_QUALITY", "1 to 100", |q| (1..=100).contains(q))?;
        let format = format(found, preset_format)?;
        if asked.is_some() && format == Format::Png {
            tracing::info!("REDIS_IMAGE_QUALITY has no effect on PNG, which is exact; jobs that ask for JPEG have it");
        }
        let redis = crate::redis_settings::of_store("WINDLASS_IMAGE_REDIS_URL", found)?;
        Ok(Self {
            options,
            redis,
            dir: found.text("WINDLASS_IMAGE_DIR").map(PathBuf::from),
            old_dir: found.text("WINDLASS_IMAGE_OLD_DIR").map(PathBuf::from),
            font: second_font(found)?,
            defaults: Defaults { format, quality: Some(asked.unwrap_or(quality)) },
        })
    }

    /// The folder of a former system's files.
    pub(crate) fn old_folder(&self) -> Option<OldFolder> {
        self.old_dir.as_ref().map(|dir| OldFolder::new(dir, self.options.max_age))
    }

    /// Opens the store. A Redis is not contacted yet.
    pub(crate) fn open(&self, settings: &Settings) -> anyhow::Result<Arc<Images>> {
        let dir = self.dir.clone().unwrap_or_else(|| settings.data_dir.join("images"));
        let files = FileImages::new(&dir, self.options.clone());
        let redis = match self.redis.as_ref().or(settings.redis.as_ref()) {
            Some(options) => {
                let mut options = options.clone();
                options.connect_timeout = options.connect_timeout.min(TIMEOUT);
                options.response_timeout = options.response_timeout.min(TIMEOUT);
                Some(RedisImages::new(Link::new(options)?, &settings.queue_prefix, self.options.clone()))
            }
            None => None,
        };
        Ok(Arc::new(Images::new(redis, files, self.options.clone())))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn read(env: &[(&str, &str)]) -> anyhow::Result<ImageSettings> {
        let dir = tempfile::tempdir().unwrap();
        let env: HashMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        ImageSettings::read(&Found::read(dir.path(), None, &|name| env.get(name).cloned())?)
    }

    /// Hours, MiB, minutes, quality, format.
    #[track_caller]
    fn check(env: &[(&str, &str)], expected: (u64, u64, u64, u8, Format)) {
        let ImageSettings { options, defaults, .. } = read(env).unwrap();
        let found = (
            options.max_age.as_secs() / 3600,
            options.max_total_bytes >> 20,
            options.cleanup_interval.as_secs() / 60,
            defaults.quality.unwrap(),
            defaults.format,
        );
        assert_eq!(found, expected, "{env:?}");
    }

    #[test]
    fn a_variable_beats_the_preset_and_the_preset_the_default() {
        check(&[], (24, 1000, 60, 85, Format::Png));
        check(&[("ENVIRONMENT", "development")], (24, 1000, 60, 85, Format::Png));
        check(&[("ENVIRONMENT", "Staging")], (12, 500, 30, 85, Format::Png));
        check(&[("ENVIRONMENT", "production")], (6, 200, 15, 80, Format::Jpeg));
        let own = [
            ("ENVIRONMENT", "production"),
            ("REDIS_IMAGE_MAX_AGE_HOURS", "48"),
            ("REDIS_IMAGE_MAX_SIZE_MB", "64"),
            ("REDIS_IMAGE_CLEANUP_INTERVAL_MINUTES", "5"),
            ("REDIS_IMAGE_QUALITY", "70"),
            ("REDIS_IMAGE_FORMAT", "WebP"),
        ];
        check(&own, (48, 64, 5, 70, Format::Webp));
        assert!(read(&[]).unwrap().options.cleanup);
        assert!(!read(&[("REDIS_IMAGE_ENABLE_CLEANUP", "False")]).unwrap().options.cleanup);
    }

    #[test]
    fn foreign_variables_are_ignored_and_bad_ones_named() {
        check(&[("ZERODHA_API_KEY", "x")], (24, 1000, 60, 85, Format::Png));
        for (name, value, allowed) in [
            ("ENVIRONMENT", "prod", "staging"),
            ("REDIS_IMAGE_FORMAT", "gif", "WEBP"),
            ("REDIS_IMAGE_QUALITY", "0", "1 to 100"),
            ("REDIS_IMAGE_MAX_AGE_HOURS", "never", "8760"),
            ("REDIS_IMAGE_ENABLE_CLEANUP", "perhaps", "true or false"),
            ("WINDLASS_IMAGE_EVICT", "random", "lru"),
            ("WINDLASS_IMAGE_REDIS_URL", "https://u:geheim@x", "***"),
        ] {
            let text = format!("{:#}", read(&[(name, value)]).unwrap_err());
            assert!(text.contains(name) && text.contains(allowed) && !text.contains("geheim"), "{text}");
        }
    }
}
