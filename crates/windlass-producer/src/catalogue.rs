//! What workers have published about their kinds, to check jobs against before they are enqueued.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use jsonschema::Validator;
use serde_json::Value;
use windlass_jobs::catalogue::KindInfo;
use windlass_jobs::{NewJob, Violation};

use crate::Refusal;

/// Most violations of one job that are listed.
const MAX_VIOLATIONS: usize = 1_000;

/// Kinds by name and alias. It stands still: fetch another one for later news.
#[derive(Debug, Default)]
pub struct Catalogue {
    kinds: BTreeMap<String, Arc<Entry>>,
}

#[derive(Debug)]
struct Entry {
    info: KindInfo,
    /// Built when the first job is checked; `None` for a schema that is none.
    validator: OnceLock<Option<Validator>>,
}

impl Catalogue {
    /// A catalogue of what [`Inspect::kinds`](windlass_broker::Inspect::kinds) answered. A kind's
    /// name counts before another's alias.
    #[must_use]
    pub fn new(kinds: Vec<KindInfo>) -> Self {
        let entries: Vec<Arc<Entry>> =
            kinds.into_iter().map(|info| Arc::new(Entry { info, validator: OnceLock::new() })).collect();
        let aliases = entries.iter().flat_map(|e| e.info.aliases.iter().map(|alias| (alias.clone(), Arc::clone(e))));
        let mut kinds: BTreeMap<String, Arc<Entry>> = aliases.collect();
        kinds.extend(entries.iter().map(|e| (e.info.name.clone(), Arc::clone(e))));
        Self { kinds }
    }

    /// What was published about a kind, by name or alias.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<&KindInfo> {
        self.kinds.get(kind).map(|entry| &entry.info)
    }

    /// Everything in a job's args that its kind's schema does not allow, in the order of the
    /// schema; `None` when no worker ever published the kind. A kind without a schema takes any.
    #[must_use]
    pub fn check(&self, kind: &str, args: &Value) -> Option<Vec<Violation>> {
        let entry = self.kinds.get(kind)?;
        let Some(validator) = entry.validator.get_or_init(|| entry.build()) else { return Some(Vec::new()) };
        let violation = |error: jsonschema::ValidationError<'_>| {
            // The value itself may be large, or secret.
            let message = error.masked_with("the value").to_string();
            Violation::new(error.instance_path().as_str(), error.kind().keyword(), message)
        };
        Some(validator.iter_errors(args).take(MAX_VIOLATIONS).map(violation).collect())
    }

    /// Everything wrong with any of the jobs as far as their kinds say, in order; paths start at
    /// the job (`"/args/width"`).
    #[must_use]
    pub fn check_all(&self, jobs: &[NewJob]) -> Vec<Refusal> {
        let of_one = |(index, job): (usize, &NewJob)| {
            let args = serde_json::from_str(job.args.get()).unwrap_or(Value::Null);
            let violations = match self.check(&job.kind, &args) {
                Some(violations) => violations.into_iter().map(|v| Violation { path: format!("/args{}", v.path), ..v }),
                None => return vec![Refusal { index, violation: unknown() }],
            };
            violations.map(|violation| Refusal { index, violation }).collect()
        };
        jobs.iter().enumerate().flat_map(of_one).collect()
    }
}

fn unknown() -> Violation {
    Violation::new("/kind", "unknown_kind", "no worker has ever published this kind")
}

impl Entry {
    fn build(&self) -> Option<Validator> {
        let schema = self.info.schema.as_ref()?;
        // References to elsewhere are refused: nothing is ever fetched for a schema.
        match jsonschema::draft202012::options().build(schema) {
            Ok(validator) => Some(validator),
            Err(error) => {
                tracing::warn!(kind = %self.info.name, %error, "the published schema is none: args are not checked");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use windlass_jobs::Timestamp;

    fn kind(name: &str, aliases: &[&str], schema: Option<Value>) -> KindInfo {
        KindInfo {
            name: name.into(),
            version: 1,
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            queue: "q".into(),
            schema,
            max_attempts: 3,
            timeout_ms: 1_000,
            isolated: false,
            about: String::new(),
            seen_at: Timestamp(0),
        }
    }

    fn catalogue() -> Catalogue {
        let schema = json!({
            "type": "object", "required": ["who", "times"], "additionalProperties": false,
            "properties": {
                "who": { "type": "string", "maxLength": 5 },
                "times": { "type": "integer", "minimum": 1 },
                "deep": { "type": "array", "items": { "type": "boolean" } },
            },
        });
        let broken = json!({ "type": "no type" });
        let remote = json!({ "$ref": "http://127.0.0.1:1/schema.json" });
        Catalogue::new(vec![
            kind("a.greet", &["old_greet", "b.any"], Some(schema)),
            kind("b.any", &[], None),
            kind("c.broken", &[], Some(broken)),
            kind("d.remote", &[], Some(remote)),
        ])
    }

    #[test]
    fn all_violations_are_told_with_their_place() {
        let check = |args: Value, expected: &[(&str, &str)]| {
            let found = catalogue().check("old_greet", &args).unwrap();
            let mut found: Vec<_> = found.iter().map(|v| (v.path.as_str(), v.code.as_str())).collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{args}");
        };
        check(json!({ "who": "you", "times": 1 }), &[]);
        check(json!({}), &[("", "required"), ("", "required")]);
        check(json!([]), &[("", "type")]);
        check(
            json!({ "who": "too long", "times": 0, "deep": [true, 1], "x": 1 }),
            &[("", "additionalProperties"), ("/deep/1", "type"), ("/times", "minimum"), ("/who", "maxLength")],
        );
    }

    #[test]
    fn a_value_is_not_repeated() {
        let found = catalogue().check("a.greet", &json!({ "who": "geheim!", "times": 1 })).unwrap();
        assert!(!found[0].message.contains("geheim") && found[0].message.contains('5'), "{found:?}");
    }

    #[test]
    fn kinds_without_a_usable_schema_take_anything_and_unknown_ones_nothing() {
        for name in ["b.any", "c.broken", "d.remote"] {
            assert_eq!(catalogue().check(name, &json!([1])), Some(Vec::new()), "{name}");
        }
        assert_eq!(catalogue().check("nobody", &json!({})), None);
        assert_eq!(catalogue().get("b.any").map(|k| k.name.as_str()), Some("b.any"), "a name before an alias");
    }

    #[test]
    fn refusals_name_the_job() {
        let jobs = [
            NewJob::new("a.greet", &json!({ "who": "you", "times": 1 })).unwrap(),
            NewJob::new("a.greet", &json!({ "who": 1, "times": 1 })).unwrap(),
            NewJob::new("nobody", &json!({})).unwrap(),
        ];
        let refusals = catalogue().check_all(&jobs);
        let found: Vec<_> = refusals.iter().map(|r| (r.index, r.violation.path.as_str())).collect();
        assert_eq!(found, [(1, "/args/who"), (2, "/kind")]);
    }
}
