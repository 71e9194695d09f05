//! Reads a folder of pictures as a deck, laid out the way Silhouette Card Maker users do.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A deck as a folder holds it: paths only, no file is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FolderDeck {
    /// The cards in natural order of their file names (`2.png` before `10.png`).
    pub cards: Vec<FolderCard>,
    /// The common back, if there is one.
    pub back: Option<PathBuf>,
}

/// One card of a [`FolderDeck`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderCard {
    /// Its name: the path of its front below the folder of fronts.
    pub name: String,
    /// Its front.
    pub front: PathBuf,
    /// Its own back; `None` means the common one.
    pub back: Option<PathBuf>,
}

/// Why a folder is not a deck.
#[derive(Debug, Error)]
pub enum FolderError {
    /// A directory could not be read.
    #[error("reading {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no front.
    #[error("no pictures in {}", .0.display())]
    Empty(PathBuf),
    /// More than one picture lies in `back/`.
    #[error("back/ holds more than one picture: {}", names(.0))]
    SeveralBacks(Vec<PathBuf>),
    /// Pictures in `double_sided/` have no front of the same name.
    #[error("no front has the name of: {}", names(.0))]
    BackWithoutFront(Vec<PathBuf>),
}

fn names(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    names.join(", ")
}

/// Reads `dir` as a deck.
///
/// - `front/`, with its subfolders: the fronts. Without it, the files directly in `dir` are the fronts.
/// - `back/`: at most one picture, the common back.
/// - `double_sided/`: own backs, each under the name its front has below `front/`; the
///   ending may differ (`a/1.png` is the back of `a/1.jpg`) where only one front fits.
///
/// Hidden files, `.md`, `.txt` and what file managers leave behind are passed over.
///
/// # Errors
/// [`FolderError`] names every file that is in the way.
pub fn read_folder(dir: &Path) -> Result<FolderDeck, FolderError> {
    let front_dir = dir.join("front");
    let (root, fronts) = match front_dir.is_dir() {
        true => (front_dir.clone(), files(&front_dir, true)?),
        false => (dir.to_owned(), files(dir, false)?),
    };
    let (back, double) = (dir.join("back"), dir.join("double_sided"));
    deck(&root, fronts, back.is_dir().then_some(&*back), double.is_dir().then_some(&*double))
}

/// Reads folders as a deck, each named on its own; otherwise as [`read_folder`].
///
/// # Errors
/// [`FolderError`] names every file that is in the way; a folder that is named must be there.
pub fn read_deck(fronts: &Path, back: Option<&Path>, double_sided: Option<&Path>) -> Result<FolderDeck, FolderError> {
    for named in back.iter().chain(&double_sided) {
        let there = fs::read_dir(named).map(|_| ());
        there.map_err(|source| FolderError::Read { path: named.to_path_buf(), source })?;
    }
    deck(fronts, files(fronts, true)?, back, double_sided)
}

fn deck(
    root: &Path,
    fronts: Vec<PathBuf>,
    back: Option<&Path>,
    double_sided: Option<&Path>,
) -> Result<FolderDeck, FolderError> {
    if fronts.is_empty() {
        return Err(FolderError::Empty(root.to_owned()));
    }
    let back = back.map(common_back).transpose()?.flatten();
    let mut owned = match double_sided {
        Some(dir) => match_backs(root, &fronts, dir, files(dir, true)?)?,
        None => BTreeMap::new(),
    };
    let card = |(i, front): (usize, PathBuf)| {
        let name = relative(&front, root).to_string_lossy().into_owned();
        FolderCard { name, front, back: owned.remove(&i) }
    };
    let cards = fronts.into_iter().enumerate().map(card).collect();
    Ok(FolderDeck { cards, back })
}

fn common_back(dir: &Path) -> Result<Option<PathBuf>, FolderError> {
    let mut found = files(dir, true)?;
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => Err(FolderError::SeveralBacks(found)),
    }
}

/// The own back of each front, by the front's index.
fn match_backs(
    front_dir: &Path,
    fronts: &[PathBuf],
    back_dir: &Path,
    backs: Vec<PathBuf>,
) -> Result<BTreeMap<usize, PathBuf>, FolderError> {
    let names: Vec<PathBuf> = fronts.iter().map(|f| relative(f, front_dir)).collect();
    let mut matched = BTreeMap::new();
    let mut stray = Vec::new();
    for back in backs {
        let name = relative(&back, back_dir);
        match front_named(&names, &name) {
            Some(i) if !matched.contains_key(&i) => {
                matched.insert(i, back);
            }
            _ => stray.push(back),
        }
    }
    if stray.is_empty() { Ok(matched) } else { Err(FolderError::BackWithoutFront(stray)) }
}

/// The front of exactly that name, or else the only one that differs just in its ending.
fn front_named(names: &[PathBuf], wanted: &Path) -> Option<usize> {
    if let Some(exact) = names.iter().position(|n| n == wanted) {
        return Some(exact);
    }
    let stem = wanted.with_extension("");
    let mut similar = names.iter().enumerate().filter(|(_, n)| n.with_extension("") == stem);
    match (similar.next(), similar.next()) {
        (Some((i, _)), None) => Some(i),
        _ => None,
    }
}

fn relative(path: &Path, dir: &Path) -> PathBuf {
    path.strip_prefix(dir).unwrap_or(path).to_owned()
}

/// The pictures in a directory, and below it if asked, in natural order.
fn files(dir: &Path, recursive: bool) -> Result<Vec<PathBuf>, FolderError> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        let failed = |source| FolderError::Read { path: dir.clone(), source };
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if is_passed_over(&entry.file_name().to_string_lossy()) {
                continue;
            }
            // Links to files are followed, links to directories are not: they could form a ring.
            if entry.file_type().map_err(failed)?.is_dir() {
                if recursive {
                    left.push(entry.path());
                }
            } else if entry.path().is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort_by(|a, b| natural(&relative(a, dir).to_string_lossy(), &relative(b, dir).to_string_lossy()));
    Ok(found)
}

fn is_passed_over(name: &str) -> bool {
    let lower = name.to_lowercase();
    let left_behind = ["thumbs.db", "desktop.ini"];
    name.starts_with('.') || lower.ends_with(".md") || lower.ends_with(".txt") || left_behind.contains(&&*lower)
}

/// Compares text as people do: numbers by value, letters without regard to case; what is
/// equal that way is ordered by its bytes.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (Some(x), Some(y)) = (left.chars().next(), right.chars().next()) else {
            return left.len().cmp(&right.len()).then_with(|| a.cmp(b));
        };
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (n, after_n) = number(left);
            let (m, after_m) = number(right);
            (left, right) = (after_n, after_m);
            n.len().cmp(&m.len()).then_with(|| n.cmp(m))
        } else {
            (left, right) = (&left[x.len_utf8()..], &right[y.len_utf8()..]);
            x.to_lowercase().cmp(y.to_lowercase())
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// The digits at the start without leading zeros, and what follows them.
fn number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (text[..end].trim_start_matches('0'), &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        dir
    }

    /// The deck as names below the folder, own backs after a `|`.
    fn check(files: &[&str], cards: &[&str], back: Option<&str>) {
        let dir = folder(files);
        let deck = read_folder(dir.path()).unwrap();
        let shown = |p: &PathBuf| relative(p, dir.path()).display().to_string();
        let found: Vec<String> = deck
            .cards
            .iter()
            .map(|c| c.back.as_ref().map_or(shown(&c.front), |b| format!("{}|{}", shown(&c.front), shown(b))))
            .collect();
        assert_eq!(found, cards);
        assert_eq!(deck.back.as_ref().map(shown).as_deref(), back);
    }

    #[test]
    fn fronts_come_in_natural_order_from_all_subfolders() {
        check(
            &["front/10.png", "front/2.png", "front/B/1.png", "front/a.png", "front/A2.png", "front/a10.png"],
            &["front/2.png", "front/10.png", "front/a.png", "front/A2.png", "front/a10.png", "front/B/1.png"],
            None,
        );
    }

    #[test]
    fn a_folder_without_front_is_a_folder_of_fronts() {
        check(&["2.png", "1.jpg", "sub/3.png", "back/b.png"], &["1.jpg", "2.png"], Some("back/b.png"));
    }

    #[test]
    fn what_is_no_picture_is_passed_over() {
        check(
            &["front/1.png", "front/.DS_Store", "front/README.md", "front/list.TXT", "front/.git/x", "back/.keep"],
            &["front/1.png"],
            None,
        );
    }

    #[test]
    fn own_backs_go_to_the_front_of_their_name() {
        check(
            &["front/a/1.jpg", "front/2.png", "front/2.jpg", "double_sided/a/1.png", "double_sided/2.png"],
            &["front/2.jpg", "front/2.png|double_sided/2.png", "front/a/1.jpg|double_sided/a/1.png"],
            None,
        );
    }

    #[test]
    fn what_cannot_be_a_deck_is_named() {
        let error = |files: &[&str]| read_folder(folder(files).path()).unwrap_err().to_string();
        let several = error(&["front/1.png", "back/a.png", "back/b.png"]);
        assert!(several.contains("a.png") && several.contains("b.png"), "{several}");
        let stray = error(&["front/1.png", "double_sided/9.png"]);
        assert!(stray.contains("9.png"), "{stray}");
        assert!(error(&["front/.keep"]).starts_with("no pictures in"));
        assert!(error(&["front/1.png", "front/1.jpg", "double_sided/1.webp"]).contains("1.webp"));
        assert!(matches!(read_folder(Path::new("/nowhere/at/all")), Err(FolderError::Read { .. })));
    }
}
