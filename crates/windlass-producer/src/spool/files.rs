//! The files of a spool: `jobs-<ulid>.spool` with a line per job, `….sent` beside it with how many
//! bytes of it are forwarded, and `….refused` with lines that no queue takes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// One file, which this process alone holds.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    /// Kept open for its lock.
    file: File,
    bytes: u64,
}

impl Segment {
    /// A new file; the folder is made where it is missing.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join(format!("jobs-{}.spool", windlass_jobs::new_ulid()));
        let file = OpenOptions::new().read(true).append(true).create_new(true).open(&path)?;
        file.lock()?;
        // The name has to last as long as what is in the file.
        File::open(dir)?.sync_all()?;
        Ok(Self { path, file, bytes: 0 })
    }

    /// Takes over a file that no process holds; `None` when one does.
    fn adopt(path: PathBuf) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().read(true).append(true).open(&path)?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let bytes = file.metadata()?.len();
        Ok(Some(Self { path, file, bytes }))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes lines to the disk; after an error none of them is in the file.
    pub(super) fn append(&mut self, lines: &[String]) -> io::Result<()> {
        let text = lines.concat();
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What cannot be cut off is broken by its checksum or forwarded although it was
            // refused: the caller was told that it is not known.
            let _ = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Reads what is not forwarded yet.
    pub(super) fn reader(&mut self) -> io::Result<Reader> {
        let sent = std::fs::read_to_string(self.beside("sent")).unwrap_or_default();
        let at = sent.lines().filter_map(|line| line.trim().parse().ok()).max().unwrap_or(0);
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(at))?;
        Ok(Reader { lines: BufReader::new(file), line: None, at, path: self.path.clone() })
    }

    /// Notes that everything up to here is forwarded.
    pub(super) fn passed(&self, at: u64) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(self.beside("sent"))?;
        writeln!(file, "{at}")?;
        file.sync_data()
    }

    /// Where [`Segment::refuse`] writes.
    pub(super) fn refused(&self) -> PathBuf {
        self.beside("refused")
    }

    /// Keeps lines that no queue takes, for somebody to look at.
    pub(super) fn refuse(&self, lines: &[String]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(self.refused())?;
        file.write_all(lines.concat().as_bytes())?;
        file.sync_data()
    }

    /// All of it is forwarded.
    pub(super) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)?;
        match std::fs::remove_file(self.beside("sent")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        self.path.with_extension(ending)
    }
}

/// The files in a folder that no process holds, oldest first.
pub(super) fn orphans(dir: &Path) -> io::Result<Vec<Segment>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "spool") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        match Segment::adopt(path) {
            Ok(segment) => found.extend(segment),
            // Its process has just forwarded it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// Lines one after the other.
pub(super) struct Reader {
    lines: BufReader<File>,
    line: Option<String>,
    at: u64,
    path: PathBuf,
}

impl Reader {
    /// Up to where lines were taken, in bytes.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next line with its line break, left where it is.
    pub(super) fn peek(&mut self) -> io::Result<Option<&str>> {
        if self.line.is_none() {
            let mut bytes = Vec::new();
            if self.lines.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(None);
            }
            let text = String::from_utf8(bytes).unwrap_or_else(|e| "?".repeat(e.into_bytes().len()));
            self.line = Some(text);
        }
        Ok(self.line.as_deref())
    }

    /// The line that was looked at.
    pub(super) fn take(&mut self) -> String {
        let line = self.line.take().unwrap_or_default();
        self.at += line.len() as u64;
        line
    }

    /// Passes a line whose checksum is wrong: the last one of a process that was killed while it
    /// wrote, which nobody was told is accepted.
    pub(super) fn skip_broken(&mut self) {
        let (at, line) = (self.at, self.take());
        tracing::warn!(file = %self.path.display(), at, bytes = line.len(), "a torn line in the spool is passed over");
    }
}
