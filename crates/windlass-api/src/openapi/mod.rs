//! `GET /api/openapi.json`: the API as an OpenAPI 3.1 document, made from the route table.
//!
//! Every row of [`ROUTES`](crate::ROUTES) has an [`Op`] here and every `Op` a row (a test); bodies that
//! are read as a type have that type's schema. The tests of this crate hold every answer they get
//! against the document.

mod admin;
mod images;
mod jobs;
mod market;
mod schemas;
mod services;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};
use windlass_worker::schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};

use crate::problem::Code;
use crate::routes::{ROUTES, Route, Sees};
use crate::{Scope, Shared};

/// What a route takes and answers.
pub(crate) struct Op {
    route: (&'static str, &'static str),
    summary: &'static str,
    query: Vec<Value>,
    headers: Vec<Value>,
    body: Option<Value>,
    answers: Vec<(u16, Value)>,
    errors: Vec<Code>,
}

/// An operation by its row in the table.
pub(crate) fn op(method: &'static str, path: &'static str, summary: &'static str) -> Op {
    let (query, headers, answers, errors) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    Op { route: (method, path), summary, query, headers, body: None, answers, errors }
}

/// The schema of a type that bodies are read as.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    SchemaGenerator::new(settings).into_root_schema_for::<T>().to_value()
}

/// A named schema.
pub(crate) fn named(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

impl Op {
    /// Takes a query parameter.
    pub(crate) fn query(mut self, name: &str, schema: Value, about: &str) -> Self {
        self.query.push(json!({ "in": "query", "name": name, "schema": schema, "description": about }));
        self
    }

    /// Takes a query parameter that must be there.
    pub(crate) fn query_needed(mut self, name: &str, schema: Value, about: &str) -> Self {
        self.query
            .push(json!({ "in": "query", "name": name, "schema": schema, "description": about, "required": true }));
        self
    }

    /// Takes `cursor` and `limit`.
    pub(crate) fn paged(self) -> Self {
        let limit = json!({ "type": "integer", "minimum": 1, "maximum": crate::paging::MAX_PAGE });
        self.query("cursor", json!({ "type": "string" }), "`next` of the page before")
            .query("limit", limit, "Entries of the page")
            .fails(&[Code::QueryInvalid, Code::CursorInvalid])
    }

    /// Takes a header.
    pub(crate) fn header(mut self, name: &str, schema: Value, about: &str) -> Self {
        self.headers.push(json!({ "in": "header", "name": name, "schema": schema, "description": about }));
        self
    }

    /// Takes a JSON body.
    pub(crate) fn json(mut self, schema: Value) -> Self {
        self.body = Some(json!({ "required": true, "content": { "application/json": { "schema": schema } } }));
        self.fails(&[Code::JsonInvalid, Code::UnknownField]).reads(Code::MediaTypeUnsupported)
    }

    /// Takes bytes.
    pub(crate) fn bytes(mut self) -> Self {
        let schema = json!({ "type": "string", "format": "binary" });
        // No bytes are bytes, too.
        self.body = Some(json!({ "required": false, "content": { "application/octet-stream": { "schema": schema } } }));
        self.reads(Code::StorageFull)
    }

    /// Takes a multipart body.
    pub(crate) fn multipart(mut self, schema: Value) -> Self {
        self.body = Some(json!({ "required": true, "content": { "multipart/form-data": { "schema": schema } } }));
        self.reads(Code::MediaTypeUnsupported)
    }

    fn reads(self, more: Code) -> Self {
        let body = [Code::BodyUnreadable, Code::BodyTimeout, Code::BodyTooLarge, Code::EncodingUnsupported, Code::Busy];
        self.fails(&body).fails(&[more])
    }

    /// Answers JSON.
    pub(crate) fn answers(mut self, status: u16, about: &str, schema: Value) -> Self {
        let content = json!({ "application/json": { "schema": schema } });
        self.answers.push((status, json!({ "description": about, "content": content })));
        self
    }

    /// Answers bytes of these media types.
    pub(crate) fn sends(mut self, status: u16, about: &str, media_types: &[&str]) -> Self {
        let content: Map<String, Value> =
            media_types.iter().map(|media_type| ((*media_type).to_owned(), json!({}))).collect();
        self.answers.push((status, json!({ "description": about, "content": content })));
        self
    }

    /// Answers without a body.
    pub(crate) fn nothing(mut self, status: u16, about: &str) -> Self {
        self.answers.push((status, json!({ "description": about })));
        self
    }

    /// May fail with these.
    pub(crate) fn fails(mut self, codes: &[Code]) -> Self {
        for code in codes {
            if !self.errors.contains(code) {
                self.errors.push(*code);
            }
        }
        self
    }

    fn into_json(mut self, route: &Route) -> Value {
        let mut everywhere = vec![Code::UrlTooLong, Code::HostRefused, Code::Internal];
        if route.scope != Scope::Public {
            everywhere.extend([Code::Unauthorized, Code::ScopeMissing, Code::RateLimited, Code::OriginRefused]);
        }
        if route.sees == Sees::All {
            everywhere.push(Code::TenantRefused);
        }
        self = self.fails(&everywhere);
        let mut responses: Map<String, Value> =
            self.answers.into_iter().map(|(status, answer)| (status.to_string(), answer)).collect();
        let mut by_status: std::collections::BTreeMap<u16, Vec<&str>> = std::collections::BTreeMap::new();
        for code in &self.errors {
            by_status.entry(code.status().as_u16()).or_default().push(code.as_str());
        }
        for (status, codes) in by_status {
            responses.entry(status.to_string()).or_insert_with(|| problem(&codes.join(", "), route.method));
        }
        responses.insert("default".to_owned(), problem("any other error", route.method));
        let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let path = names.map(|name| {
            json!({ "in": "path", "name": name, "required": true, "schema": { "type": "string", "minLength": 1 } })
        });
        let parameters: Vec<Value> = path.chain(self.query).chain(self.headers).collect();
        let tag = route.path.trim_start_matches("/api").split('/').nth(1).unwrap_or("api");
        let mut operation = json!({
            "operationId": operation_id(route),
            "summary": self.summary,
            "tags": [tag],
            "parameters": parameters,
            "responses": responses,
            "x-scope": route.scope.as_str(),
        });
        operation["security"] = match route.scope {
            Scope::Public => json!([]),
            scope => json!([{ "key": [scope.as_str()] }]),
        };
        if let Some(body) = self.body {
            operation["requestBody"] = body;
        }
        operation
    }
}

fn operation_id(route: &Route) -> String {
    let path: String = route.path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("{}{path}", route.method.to_ascii_lowercase())
}

fn problem(about: &str, method: &str) -> Value {
    if method == "HEAD" {
        return json!({ "description": about });
    }
    let content = json!({ "application/problem+json": { "schema": named("Problem") } });
    json!({ "description": about, "content": content })
}

/// What every route takes and answers.
pub(crate) fn operations() -> Vec<Op> {
    [
        jobs::operations(),
        jobs::queues(),
        jobs::schedules(),
        services::operations(),
        images::operations(),
        market::operations(),
        admin::operations(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The document.
pub(crate) fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations() {
        let (method, path) = operation.route;
        let Some(route) = ROUTES.iter().find(|route| route.method == method && route.path == path) else { continue };
        let item = paths.entry(path.to_owned()).or_insert_with(|| json!({}));
        item[method.to_ascii_lowercase()] = operation.into_json(route);
    }
    let scopes: Map<String, Value> =
        Scope::ALL.iter().map(|scope| (scope.as_str().to_owned(), scope.about().into())).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Windlass",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Background jobs, and caches, locks, sessions and rate limits beside them. Errors are RFC 9457 problems with a stable `code`; `GET /docs/errors/{code}` says what each means.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": { "type": "http", "scheme": "bearer", "description": "An API key, `wl_<id>_<secret>`", "x-scopes": scopes },
            },
            "schemas": schemas::all(),
        },
    })
}

/// `GET /api/openapi.json`.
pub(crate) async fn get(State(shared): State<Shared>) -> Response {
    axum::Json(shared.document.as_ref()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Route table = document: every row once, and nothing else.
    #[test]
    fn every_route_stands_in_the_document() {
        let mut described: Vec<(&str, &str)> = operations().iter().map(|op| op.route).collect();
        let mut table: Vec<(&str, &str)> = ROUTES.iter().map(|route| (route.method, route.path)).collect();
        described.sort_unstable();
        table.sort_unstable();
        assert_eq!(described, table);
        let document = document();
        for route in ROUTES {
            let operation = &document["paths"][route.path][route.method.to_ascii_lowercase()];
            assert_eq!(operation["x-scope"], route.scope.as_str(), "{route:?}");
            // A WebSocket is opened by 101.
            let is_success = |status: &String| status.starts_with('2') || status == "101";
            assert!(operation["responses"].as_object().unwrap().keys().any(is_success), "{route:?}");
        }
    }

    /// Every reference leads somewhere.
    #[test]
    fn references_are_whole() {
        let document = document();
        let text = document.to_string();
        for part in text.split("\"$ref\":\"#").skip(1) {
            let pointer = part.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
