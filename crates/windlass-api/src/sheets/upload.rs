//! Multipart bodies: files become blobs, fields become texts.

use axum::extract::{FromRequest as _, Multipart, Request};
use axum::http::header;
use windlass_store::Digest;

use crate::problem::{Code, Problem};
use crate::{Shared, body};

/// Most parts of a body.
const MAX_PARTS: usize = 4_100;
/// The longest text field, in bytes.
const MAX_FIELD_BYTES: usize = 256 * 1024;

/// A file that has been stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// As the caller named it, without a path.
    pub(crate) name: String,
    pub(crate) digest: Digest,
}

/// What a body held, in its order.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    files: Vec<(String, File)>,
    fields: Vec<(String, String)>,
}

impl Upload {
    /// Takes the files of a part's name.
    pub(crate) fn files(&mut self, part: &str) -> Vec<File> {
        let (taken, left) = std::mem::take(&mut self.files).into_iter().partition(|(name, _)| name == part);
        self.files = left;
        let taken: Vec<(String, File)> = taken;
        taken.into_iter().map(|(_, file)| file).collect()
    }

    /// Takes a field's text; the last one counts.
    pub(crate) fn field(&mut self, name: &str) -> Option<String> {
        let index = self.fields.iter().rposition(|(known, _)| known == name)?;
        Some(self.fields.remove(index).1)
    }

    /// Whether anything was uploaded.
    pub(crate) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }
}

/// Reads a multipart body whose parts have these names. Each file is stored as it comes; a body
/// that is refused leaves nothing behind but blobs that expire.
pub(crate) async fn read(
    shared: &Shared,
    request: Request,
    files: &[&str],
    fields: &[&str],
) -> Result<Upload, Problem> {
    let (parts, whole) = request.into_parts();
    let is_multipart = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.to_ascii_lowercase().starts_with("multipart/form-data"));
    if !is_multipart {
        return Err(Problem::new(Code::MediaTypeUnsupported, "send files as multipart/form-data"));
    }
    let whole = body::read(shared, &parts.headers, whole, shared.options.multipart_bytes).await?;
    let request = Request::from_parts(parts, axum::body::Body::from(whole.bytes.clone()));
    let unreadable = |detail: String| Problem::new(Code::BodyUnreadable, format!("the multipart body: {detail}"));
    let mut multipart = Multipart::from_request(request, &()).await.map_err(|e| unreadable(e.body_text()))?;
    let mut upload = Upload::default();
    let mut count = 0;
    while let Some(part) = multipart.next_field().await.map_err(|e| unreadable(e.body_text()))? {
        count += 1;
        if count > MAX_PARTS {
            return Err(Problem::new(Code::BodyTooLarge, format!("at most {MAX_PARTS} parts are taken")));
        }
        let name = part.name().unwrap_or_default().to_owned();
        let file_name = part.file_name().map(str::to_owned);
        let bytes = part.bytes().await.map_err(|e| unreadable(e.body_text()))?;
        if files.contains(&name.as_str()) {
            // A form without a chosen file sends an empty part without a name.
            if bytes.is_empty() && file_name.as_deref().unwrap_or_default().is_empty() {
                continue;
            }
            if bytes.len() > shared.options.blob_bytes {
                let detail = format!("{name}: a file has at most {} bytes", shared.options.blob_bytes);
                return Err(Problem::new(Code::BodyTooLarge, detail));
            }
            let digest = shared.services.artifacts.put(bytes).await?;
            let name_only = super::form::plain_name(file_name.as_deref().unwrap_or_default());
            upload.files.push((name, File { name: name_only, digest }));
        } else if fields.contains(&name.as_str()) {
            if bytes.len() > MAX_FIELD_BYTES {
                return Err(Problem::new(
                    Code::BodyTooLarge,
                    format!("{name}: a field has at most {MAX_FIELD_BYTES} bytes"),
                ));
            }
            let text = String::from_utf8(bytes.into()).map_err(|_| unreadable(format!("{name} is not UTF-8")))?;
            upload.fields.push((name, text));
        } else {
            let shown: String = name.chars().take(64).collect();
            let known = [files, fields].concat().join(", ");
            return Err(Problem::new(Code::UnknownField, format!("part {shown:?} is not known; there are {known}")));
        }
    }
    drop(whole);
    Ok(upload)
}
