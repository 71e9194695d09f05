//! What is drawn of a look, and which part of it is chosen.

use std::time::Duration;

use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Row, Table, TableState};
use windlass_jobs::command::{RunningJob, WorkerInfo};

use super::look::{Look, QueueLook};
use crate::commands::report;

/// The three lists, from top to bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pane {
    Queues,
    Workers,
    Jobs,
}

/// Everything on the screen.
pub(super) struct Screen {
    place: String,
    /// How old a canary may be.
    ready_within: Duration,
    now: Option<Look>,
    /// Jobs that ended, a second, since the look before; by queue.
    rates: Vec<f64>,
    /// Why the last look failed.
    away: Option<String>,
    pane: Pane,
    chosen: [TableState; 3],
    /// Only this queue's workers and jobs are shown.
    only: Option<String>,
}

impl Screen {
    pub(super) fn new(place: String, ready_within: Duration) -> Self {
        Self {
            place,
            ready_within,
            now: None,
            rates: Vec::new(),
            away: None,
            pane: Pane::Queues,
            chosen: [TableState::default().with_selected(0), TableState::default(), TableState::default()],
            only: None,
        }
    }

    /// Shows another look.
    pub(super) fn take(&mut self, look: Look) {
        self.rates = match &self.now {
            Some(before) => look.queues.iter().map(|queue| rate(before, &look, queue)).collect(),
            None => Vec::new(),
        };
        self.away = None;
        self.now = Some(look);
        // A list without rows has nothing chosen.
        let chosen = &mut self.chosen[self.pane as usize];
        chosen.select(chosen.selected().or(Some(0)));
    }

    /// Shows that there was none, beside the last one.
    pub(super) fn away(&mut self, why: String) {
        self.away = Some(why);
    }

    /// Moves what is chosen.
    pub(super) fn key(&mut self, key: KeyCode) {
        match key {
            KeyCode::Tab => self.go(1),
            KeyCode::BackTab => self.go(2),
            KeyCode::Down | KeyCode::Char('j') => self.chosen[self.pane as usize].select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.chosen[self.pane as usize].select_previous(),
            KeyCode::Enter if self.pane == Pane::Queues => {
                let chosen = self.chosen[0].selected().unwrap_or(0);
                self.only = self.now.as_ref().and_then(|look| Some(look.queues.get(chosen)?.name.clone()));
            }
            KeyCode::Esc => self.only = None,
            _ => {}
        }
    }

    fn go(&mut self, panes: usize) {
        self.chosen[self.pane as usize].select(None);
        self.pane = [Pane::Queues, Pane::Workers, Pane::Jobs][(self.pane as usize + panes) % 3];
        self.chosen[self.pane as usize].select(Some(0));
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let queues = self.now.as_ref().map_or(0, |look| look.queues.len());
        let workers = self.now.as_ref().map_or(0, |look| look.workers.len());
        let tall = |rows: usize| Constraint::Max(u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(3).max(4));
        let areas = Layout::vertical([
            Constraint::Length(2),
            tall(queues),
            tall(workers),
            Constraint::Min(4),
            Constraint::Length(1),
        ]);
        let [head, queues, workers, jobs, foot] = areas.areas(frame.area());
        frame.render_widget(self.head(), head);
        let help = " q quit   tab list   \u{2191}\u{2193} choose   enter only this queue   esc all queues";
        frame.render_widget(Line::from(help).dim(), foot);
        self.list(frame, queues, Pane::Queues);
        self.list(frame, workers, Pane::Workers);
        self.list(frame, jobs, Pane::Jobs);
    }

    fn head(&self) -> ratatui::text::Text<'static> {
        let mut first = vec![Span::from(" windlass ").bold(), Span::from(self.place.clone())];
        let second = match (&self.away, &self.now) {
            (Some(why), _) => Line::from(format!(" no answer: {why}")).style(Style::new().fg(Color::Red).bold()),
            (None, None) => Line::from(" looking"),
            (None, Some(look)) => {
                first.push(Span::from(format!("  {}", look.at)).dim());
                let all = |of: fn(&QueueLook) -> u64| look.queues.iter().map(of).sum::<u64>();
                let slots: usize = look.workers.iter().map(|worker| worker.slots).sum();
                let ended: f64 = self.rates.iter().sum();
                Line::from(format!(
                    " {} waiting   {} running of {slots} slots   {} scheduled   {} dead   {ended:.1} ended/s",
                    all(|queue| queue.counts.pending + queue.counts.retrying),
                    all(|queue| queue.counts.running),
                    all(|queue| queue.counts.scheduled),
                    all(|queue| queue.counts.dead),
                ))
            }
        };
        vec![Line::from(first), second].into()
    }

    fn list(&mut self, frame: &mut Frame<'_>, area: Rect, pane: Pane) {
        let (title, header, widths, rows) = match pane {
            Pane::Queues => self.queues(),
            Pane::Workers => self.workers(),
            Pane::Jobs => self.jobs(),
        };
        let border = if pane == self.pane { Style::new().fg(Color::Cyan) } else { Style::new().dim() };
        let table = Table::new(rows, widths)
            .header(Row::new(header).style(Style::new().bold()))
            .row_highlight_style(Style::new().reversed())
            .block(Block::bordered().title(title).border_style(border));
        frame.render_stateful_widget(table, area, &mut self.chosen[pane as usize]);
    }

    fn queues(&self) -> Listed {
        let rows = self.now.iter().flat_map(|look| &look.queues).enumerate().map(|(i, queue)| {
            let c = &queue.counts;
            let rate = self.rates.get(i).map_or_else(|| "\u{2013}".to_owned(), |rate| format!("{rate:.1}"));
            let name = if c.paused { format!("{} (paused)", queue.name) } else { queue.name.clone() };
            let cells = [name, rate].into_iter().chain(
                [c.pending, c.running, c.scheduled, c.retrying, c.parked, c.dead, c.success_total, c.failure_total]
                    .map(|n| n.to_string()),
            );
            let style = if c.dead > 0 || c.parked > 0 { Style::new().fg(Color::Yellow) } else { Style::new() };
            Row::new(cells).style(style)
        });
        let header =
            ["queue", "ended/s", "waiting", "running", "scheduled", "retrying", "parked", "dead", "success", "failure"];
        let mut widths = vec![Constraint::Min(16), Constraint::Length(8)];
        widths.extend([Constraint::Length(10); 8]);
        (" Queues ".to_owned(), header.map(str::to_owned).to_vec(), widths, rows.collect())
    }

    fn is_shown(&self, worker: &WorkerInfo) -> bool {
        self.only.as_ref().is_none_or(|only| worker.queues.iter().any(|queue| queue.as_str() == only))
    }

    fn workers(&self) -> Listed {
        let shown = self.now.iter().flat_map(|look| &look.workers).filter(|worker| self.is_shown(worker));
        let rows = shown.map(|worker| {
            let (state, style) = self.state(worker);
            let age = worker
                .canary_age_ms
                .map_or_else(|| "none yet".to_owned(), |ms| report::span(Duration::from_millis(ms)));
            let queues: Vec<&str> = worker.queues.iter().map(windlass_jobs::Queue::as_str).collect();
            Row::new([
                Cell::from(worker.name.clone()),
                Cell::from(format!("{}:{}", worker.host, worker.pid)),
                Cell::from(format!("{} of {}", worker.running, worker.slots)),
                Cell::from(age),
                Cell::from(state).style(style),
                Cell::from(queues.join(",")),
            ])
        });
        let header = ["worker", "host", "slots used", "canary", "state", "queues"].map(str::to_owned).to_vec();
        let widths = [28, 24, 11, 9, 9].map(Constraint::Length).into_iter().chain([Constraint::Min(10)]).collect();
        (self.titled("Workers"), header, widths, rows.collect())
    }

    fn state(&self, worker: &WorkerInfo) -> (&'static str, Style) {
        match worker.canary_age_ms.map(Duration::from_millis) {
            _ if worker.draining => ("draining", Style::new().fg(Color::Yellow)),
            None => ("starting", Style::new()),
            Some(age) if age > self.ready_within => ("cut off", Style::new().fg(Color::Red).bold()),
            Some(_) => ("ready", Style::new().fg(Color::Green)),
        }
    }

    /// Running jobs, the longest first: of each worker those it names.
    fn jobs(&self) -> Listed {
        let workers = self.now.iter().flat_map(|look| &look.workers);
        let is_shown = |job: &RunningJob| self.only.as_ref().is_none_or(|only| job.id.queue.as_str() == only);
        let mut jobs: Vec<(&RunningJob, &str)> =
            workers.flat_map(|worker| worker.jobs.iter().map(|job| (job, worker.name.as_str()))).collect();
        jobs.retain(|(job, _)| is_shown(job));
        jobs.sort_by_key(|(job, _)| std::cmp::Reverse(job.running_ms));
        let rows = jobs.into_iter().map(|(job, worker)| {
            let span = report::span(Duration::from_millis(job.running_ms));
            Row::new([job.id.to_string(), job.kind.clone(), span, worker.to_owned()])
        });
        let header = ["job", "kind", "runs for", "worker"].map(str::to_owned).to_vec();
        let widths = [Constraint::Min(40), Constraint::Length(24), Constraint::Length(14), Constraint::Length(28)];
        (self.titled("Running"), header, widths.to_vec(), rows.collect())
    }

    fn titled(&self, what: &str) -> String {
        match &self.only {
            Some(queue) => format!(" {what} of {queue} "),
            None => format!(" {what} "),
        }
    }
}

/// A list: its title, its header, its widths, its rows.
type Listed = (String, Vec<String>, Vec<Constraint>, Vec<Row<'static>>);

/// Jobs of a queue that ended between two looks, a second.
fn rate(before: &Look, now: &Look, queue: &QueueLook) -> f64 {
    let ended =
        |queue: &QueueLook| queue.counts.success_total + queue.counts.failure_total + queue.counts.cancelled_total;
    let Some(then) = before.queues.iter().find(|then| then.name == queue.name) else { return 0.0 };
    let seconds = now.at.since(before.at).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a difference of a few seconds' jobs")]
    let jobs = ended(queue).saturating_sub(ended(then)) as f64;
    if seconds > 0.0 { jobs / seconds } else { 0.0 }
}
