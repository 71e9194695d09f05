//! Image files that a former system left in a folder: `SYMBOL_INTERVAL_….png` and the like.
//! They are read, counted and cleaned; nothing is written there.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use windlass_jobs::Timestamp;

use super::model::Removed;
use crate::artifacts::file::{blocking, read_if_there};
use crate::{Error, Result};

/// File endings, and what they are.
const ENDINGS: [(&str, &str); 4] = [("png", "png"), ("jpg", "jpeg"), ("jpeg", "jpeg"), ("webp", "webp")];

/// The folder.
#[derive(Debug, Clone)]
pub struct OldFolder {
    dir: PathBuf,
    max_age: Duration,
}

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldFile {
    /// Its name in the folder.
    pub name: String,
    /// The symbol its name begins with.
    pub symbol: String,
    /// The interval that follows.
    pub interval: String,
    /// `png`, `jpeg` or `webp`.
    pub format: &'static str,
    /// Its size.
    pub bytes: u64,
    /// When it was written.
    pub created_at: Timestamp,
}

/// Whether a word is an interval as those systems wrote it: `1d`, `15m`, `1day`, `1wk`, `day`.
fn is_interval(word: &str) -> bool {
    let letters = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = word.len() - letters.len();
    let known =
        ["m", "min", "minute", "h", "hour", "d", "day", "w", "wk", "week", "mo", "mon", "month", "M", "W", "D", "H"];
    digits <= 4 && known.contains(&letters) && (digits > 0 || letters.len() > 2)
}

/// Symbol and interval of a file's stem: `NIFTY 50_1d_20240120` is `NIFTY 50` and `1d`. The
/// symbol may hold underscores; the interval is the first word behind it that is one, else the
/// second word.
fn parts(stem: &str) -> Option<(String, String)> {
    let words: Vec<&str> = stem.split('_').collect();
    let found = words.iter().skip(1).position(|word| is_interval(word)).map(|index| index + 1);
    let at = found.or((words.len() >= 3).then_some(1))?;
    let symbol = words[..at].join("_");
    (!symbol.is_empty()).then(|| (symbol, words[at].to_owned()))
}

impl OldFolder {
    /// The files of `dir`; cleaning takes those older than `max_age`.
    #[must_use]
    pub fn new(dir: &Path, max_age: Duration) -> Self {
        Self { dir: dir.to_owned(), max_age }
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its image files, newest first; of other files nothing is said. Links are not followed.
    ///
    /// # Errors
    /// [`Error::File`]; a folder that is not there is empty.
    pub async fn list(&self) -> Result<Vec<OldFile>> {
        let dir = self.dir.clone();
        blocking(move || read(&dir)).await
    }

    /// A file's bytes, by its name.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn bytes(&self, name: &str) -> Result<Option<Bytes>> {
        // Only names that the list would show: nothing leads out of the folder.
        let path = self.dir.join(name);
        if Path::new(name).file_name().and_then(|n| n.to_str()) != Some(name) || file(&path).is_none() {
            return Ok(None);
        }
        Ok(blocking(move || read_if_there(&path)).await?.map(Bytes::from))
    }

    /// Deletes files for which `wanted` holds.
    ///
    /// # Errors
    /// [`Error::File`] when the folder cannot be read; a file that stays does not count.
    pub async fn remove(&self, wanted: impl Fn(&OldFile) -> bool + Send + 'static) -> Result<Removed> {
        let dir = self.dir.clone();
        blocking(move || {
            let mut removed = Removed::default();
            for old in read(&dir)?.iter().filter(|old| wanted(old)) {
                if std::fs::remove_file(dir.join(&old.name)).is_ok() {
                    removed += Removed { images: 1, bytes: old.bytes };
                }
            }
            Ok(removed)
        })
        .await
    }

    /// Deletes the files that are older than the limit.
    ///
    /// # Errors
    /// As [`OldFolder::remove`].
    pub async fn clean(&self) -> Result<Removed> {
        let (now, max_age) = (Timestamp::now(), self.max_age);
        self.remove(move |old| now.since(old.created_at) > max_age).await
    }
}

fn read(dir: &Path) -> Result<Vec<OldFile>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::File { path: dir.to_owned(), source }),
    };
    let mut files: Vec<OldFile> = entries.filter_map(|entry| file(&entry.ok()?.path())).collect();
    files.sort_by(|a, b| (b.created_at, &b.name).cmp(&(a.created_at, &a.name)));
    Ok(files)
}

fn file(path: &Path) -> Option<OldFile> {
    let facts = std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    let format = ENDINGS.iter().find(|(known, _)| *known == ending)?.1;
    let (symbol, interval) = parts(path.file_stem()?.to_str()?)?;
    let since = facts.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let name = path.file_name()?.to_str()?.to_owned();
    let created_at = Timestamp(windlass_jobs::millis(since));
    Some(OldFile { name, symbol, interval, format, bytes: facts.len(), created_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let check = |stem: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(symbol, interval)| (symbol.to_owned(), interval.to_owned()));
            assert_eq!(parts(stem), expected, "{stem}");
        };
        check("RELIANCE_1d_20240120_103000", Some(("RELIANCE", "1d")));
        check("NIFTY 50_15m_1705746600", Some(("NIFTY 50", "15m")));
        check("M&M_day_x", Some(("M&M", "day")));
        check("BRK_B_1wk_20240120", Some(("BRK_B", "1wk")));
        check("TCS_intraday_5", Some(("TCS", "intraday")));
        check("logo", None);
        check("_1d_x", None);
    }

    #[tokio::test]
    async fn files_are_read_and_cleaned_and_nothing_else_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let put = |name: &str, age_h: u64| {
            let path = dir.path().join(name);
            std::fs::write(&path, b"picture").expect("written");
            let at = SystemTime::now() - Duration::from_secs(age_h * 3600);
            std::fs::File::open(&path).and_then(|file| file.set_modified(at)).expect("dated");
        };
        put("TCS_1d_a.png", 30);
        put("TCS_1d_b.JPG", 1);
        put("notes.txt", 99);
        put("logo.png", 99);
        let folder = OldFolder::new(dir.path(), Duration::from_secs(24 * 3600));
        let names = |files: Vec<OldFile>| files.into_iter().map(|old| old.name).collect::<Vec<_>>();
        assert_eq!(names(folder.list().await.expect("read")), ["TCS_1d_b.JPG", "TCS_1d_a.png"]);
        assert_eq!(folder.bytes("TCS_1d_a.png").await.expect("read").as_deref(), Some(b"picture".as_slice()));
        for outside in ["../x_1d_y.png", "notes.txt", "", "/etc/passwd"] {
            assert_eq!(folder.bytes(outside).await.expect("no error"), None, "{outside}");
        }
        assert_eq!(folder.clean().await.expect("cleaned"), Removed { images: 1, bytes: 7 });
        assert_eq!(names(folder.list().await.expect("read")), ["TCS_1d_b.JPG"]);
        assert!(dir.path().join("notes.txt").exists() && dir.path().join("logo.png").exists());
    }
}
