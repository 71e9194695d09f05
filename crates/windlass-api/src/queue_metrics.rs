//! What the queues hold, in the Prometheus text format: of the last look, at most some seconds old.

use std::fmt::Write as _;

use windlass_jobs::command::Counts;

use crate::dashboard::{QueueSample, Sample};

/// One figure of a queue: name, kind, what it is.
type Figure = (&'static str, &'static str, &'static str, fn(&QueueSample, &Sample) -> f64);

/// A count as a sample's value.
#[expect(clippy::cast_precision_loss, reason = "the format's values are floats")]
const fn value(count: u64) -> f64 {
    count as f64
}

const FIGURES: [Figure; 7] = [
    ("windlass_queue_paused", "gauge", "1 while nothing of the queue is claimed.", |q, _| {
        f64::from(u8::from(q.counts.paused))
    }),
    ("windlass_queue_oldest_seconds", "gauge", "How long the job that is next to run has waited.", |q, sample| {
        q.oldest.map_or(0.0, |at| sample.at.since(at).as_secs_f64())
    }),
    ("windlass_queue_enqueued_total", "counter", "Jobs ever accepted.", |q, _| value(q.counts.enqueued_total)),
    ("windlass_queue_retried_total", "counter", "Runs that failed and were retried.", |q, _| {
        value(q.counts.retried_total)
    }),
    ("windlass_queue_expired_leases_total", "counter", "Leases that ended without a word of their worker.", |q, _| {
        value(q.counts.expired_leases_total)
    }),
    ("windlass_queue_max_waiting", "gauge", "Jobs that may wait at most; +Inf without a bound.", |q, _| {
        q.counts.max_waiting.map_or(f64::INFINITY, value)
    }),
    ("windlass_queue_dead", "gauge", "Failed jobs that are kept.", |q, _| value(q.counts.dead)),
];

/// A part of a count: its word, and how many there are.
type Part = (&'static str, fn(&Counts) -> u64);

/// Where jobs stand now.
const STATES: [Part; 5] = [
    ("pending", |c| c.pending),
    ("scheduled", |c| c.scheduled),
    ("retrying", |c| c.retrying),
    ("running", |c| c.running),
    ("parked", |c| c.parked),
];

/// How jobs ended.
const ENDS: [Part; 3] =
    [("success", |c| c.success_total), ("failure", |c| c.failure_total), ("cancelled", |c| c.cancelled_total)];

/// The figures of a look. A queue's name is `[a-z0-9_-]`: it needs no escaping.
pub(crate) fn render(sample: &Sample) -> String {
    let mut text = String::with_capacity(1024 + sample.queues.len() * 1024);
    // Writing to a String cannot fail.
    let head = |text: &mut String, name: &str, kind: &str, help: &str| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    };
    let up = f64::from(u8::from(!sample.away));
    for (name, help, value) in [
        ("windlass_queue_up", "0 while the queue's store does not answer.", up),
        ("windlass_workers", "Workers heard of lately.", value(sample.workers.len() as u64)),
    ] {
        head(&mut text, name, "gauge", help);
        let _ = writeln!(text, "{name} {value}");
    }
    for (name, kind, help, of) in FIGURES {
        head(&mut text, name, kind, help);
        for queue in &sample.queues {
            let number = of(queue, sample);
            let number = if number.is_infinite() { "+Inf".to_owned() } else { number.to_string() };
            let _ = writeln!(text, "{name}{{queue=\"{}\"}} {number}", queue.name);
        }
    }
    let by = [
        ("windlass_queue_jobs", "gauge", "Jobs that have not ended, by state.", "state", &STATES[..]),
        ("windlass_queue_finished_total", "counter", "Jobs that ended, by how.", "state", &ENDS[..]),
    ];
    for (name, kind, help, label, parts) in by {
        head(&mut text, name, kind, help);
        for queue in &sample.queues {
            for (part, of) in parts {
                let _ = writeln!(text, "{name}{{queue=\"{}\",{label}=\"{part}\"}} {}", queue.name, of(&queue.counts));
            }
        }
    }
    text
}
