//! `windlass top`: queues, workers and running jobs, live in a terminal.

mod draw;
mod look;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use self::draw::Screen;
use self::look::Source;
use super::report;
use crate::cli::Top;
use crate::settings::Settings;

/// How often the thread that reads keys looks whether it is still wanted.
const KEYS_EVERY: Duration = Duration::from_millis(100);
/// Columns and lines of a frame that goes nowhere.
const PLAIN: (u16, u16) = (110, 45);

pub(crate) async fn run(settings: &Settings, args: &Top, as_json: bool) -> anyhow::Result<ExitCode> {
    let source = Source::open(settings, args.api.as_deref()).await?;
    if as_json {
        report::json_line(&source.look().await?.to_json());
        return Ok(ExitCode::SUCCESS);
    }
    if args.once {
        let mut screen = Screen::new(source.place(), settings.health.ready_within);
        screen.take(source.look().await?);
        report::line(plain(&mut screen)?);
        return Ok(ExitCode::SUCCESS);
    }
    if !std::io::stdout().is_terminal() {
        bail!("standard output is no terminal: --once prints one frame as text, --json as JSON");
    }
    let screen = Screen::new(source.place(), settings.health.ready_within);
    let shown = live(source, screen, args.every).await;
    ratatui::restore();
    shown.map(|()| ExitCode::SUCCESS)
}

/// One frame as text.
fn plain(screen: &mut Screen) -> anyhow::Result<String> {
    let width = ratatui::crossterm::terminal::size().map_or(PLAIN.0, |(columns, _)| columns.max(80));
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, PLAIN.1));
    let Ok(frame) = terminal.draw(|frame| screen.draw(frame));
    let rows = frame.buffer.content().chunks(usize::from(width));
    let lines = rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>());
    Ok(lines.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n"))
}

/// Draws until somebody has seen enough.
async fn live(source: Source, mut screen: Screen, every: Duration) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init().context("the terminal")?;
    let mut keys = keys()?;
    // Beside the drawing: a store that hangs stops no key.
    let (looked, mut looks) = mpsc::channel(1);
    let looking = tokio::spawn(async move {
        while looked.send(source.look().await).await.is_ok() {
            tokio::time::sleep(every).await;
        }
    });
    let shown = loop {
        if let Err(error) = terminal.draw(|frame| screen.draw(frame)) {
            break Err(error).context("the terminal");
        }
        tokio::select! {
            Some(look) = looks.recv() => match look {
                Ok(look) => screen.take(look),
                Err(error) => screen.away(format!("{error:#}")),
            },
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if is_end(key) {
                        break Ok(());
                    }
                    screen.key(key.code);
                }
                Some(_) => {}
                None => break Ok(()),
            },
        }
    };
    looking.abort();
    shown
}

fn is_end(key: KeyEvent) -> bool {
    let ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    ctrl_c || key.code == KeyCode::Char('q')
}

/// What is typed, and changes of the terminal's size; it ends with the terminal.
fn keys() -> anyhow::Result<mpsc::Receiver<Event>> {
    let (typed, keys) = mpsc::channel(16);
    let read = move || {
        while !typed.is_closed() {
            match event::poll(KEYS_EVERY) {
                Ok(false) => {}
                Ok(true) => {
                    let Ok(event) = event::read() else { return };
                    if typed.blocking_send(event).is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    };
    std::thread::Builder::new().name("windlass-keys".into()).spawn(read).context("a thread for keys")?;
    Ok(keys)
}
