//! `windlass top` in a terminal: what is drawn, and what keys do.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use windlass_testkit::shared_redis;

use crate::faults::{Direct, sleep_job};
use crate::harness::{Home, SOON, binary, wait};

const ROWS: u16 = 40;
const COLUMNS: u16 = 130;

/// The program in a terminal of its own.
struct Terminal {
    child: Child,
    master: std::fs::File,
    drawn: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn start(home: &Home, args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let end = || -> OwnedFd { std::fs::OpenOptions::new().read(true).write(true).open(&name).unwrap().into() };
        let slave = end();
        tcsetwinsize(&slave, Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        // A session of its own: whoever runs the tests may have a terminal of another size.
        let program = home.command(args);
        let mut command = Command::new("setsid");
        command.arg(binary()).args(args).current_dir(home.path()).env_clear();
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("TERM", "xterm-256color");
        command.stdin(Stdio::from(end())).stdout(Stdio::from(end())).stderr(Stdio::from(end()));
        let child = windlass_testkit::spawn(command).unwrap();
        let drawn = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let mut reader = std::fs::File::from(rustix::io::dup(&master).unwrap());
        let screen = Arc::clone(&drawn);
        std::thread::spawn(move || {
            // Held open, so that the end of the program is no end of the terminal.
            let _slave = slave;
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut bytes) {
                screen.lock().unwrap().process(&bytes[..n]);
            }
        });
        Self { child, master: master.into(), drawn }
    }

    fn text(&self) -> String {
        self.drawn.lock().unwrap().screen().contents()
    }

    /// The lines that are shown in reverse: what is chosen.
    fn chosen(&self) -> String {
        let drawn = self.drawn.lock().unwrap();
        let screen = drawn.screen();
        let is_chosen = |row: &u16| screen.cell(*row, 1).is_some_and(vt100::Cell::inverse);
        (0..ROWS).filter(is_chosen).map(|row| screen.contents_between(row, 0, row, COLUMNS)).collect()
    }

    #[track_caller]
    fn shows(&self, parts: &[&str]) {
        let begun = std::time::Instant::now();
        while !parts.iter().all(|part| self.text().contains(part)) {
            assert!(begun.elapsed() < SOON, "{parts:?} are not all in\n{}", self.text());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Queues, workers and the running job are drawn and kept live; keys choose, filter and end it.
#[test]
fn top_is_live_in_a_terminal() {
    let home = Home::on(shared_redis());
    let _worker = home.worker("probe", &["--slots", "3"]);
    let other = Direct::to(&home, "other");
    other.enqueue(&[sleep_job(1), sleep_job(1)]);
    let probe = Direct::to(&home, "probe");
    let mut top = Terminal::start(&home, &["top", "--every", "200ms"]);
    top.shows(&["windlass", "Queues", "Workers", "Running", "other", "probe", "of 3", "ready"]);
    assert!(top.chosen().contains("other"), "{}", top.text());
    let id = probe.enqueue(&[sleep_job(60_000)]).remove(0);
    top.shows(&[&id.ulid.to_string(), "probe.sleep", "1 of 3", "1 running of 3 slots"]);
    top.type_in("\x1b[B");
    wait(SOON, "the second queue is chosen", || top.chosen().contains("probe"));
    top.type_in("\x1b[A\r");
    top.shows(&["Running of other"]);
    wait(SOON, "its jobs are hidden", || !top.text().contains(&id.ulid.to_string()));
    top.type_in("\x1b");
    wait(SOON, "all are shown again", || top.text().contains(&id.ulid.to_string()));
    top.type_in("\t");
    wait(SOON, "a worker is chosen", || top.chosen().contains("1 of 3"));
    top.type_in("q");
    let mut status = None;
    wait(SOON, "it ends", || {
        status = top.child.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success(), "{}", top.text());
}

/// It outlives a store that is away, and says so.
#[test]
fn top_says_that_the_store_is_away() {
    let server = windlass_testkit::RedisServer::start();
    let home = Home::on(&server);
    Direct::to(&home, "probe").enqueue(&[sleep_job(1)]);
    let mut top = Terminal::start(&home, &["top", "--every", "100ms"]);
    top.shows(&["probe", "1 waiting"]);
    server.kill();
    top.shows(&["no answer", "probe"]);
    server.restart();
    wait(SOON, "it is back", || !top.text().contains("no answer"));
    top.type_in("\x03");
    wait(SOON, "it ends", || top.child.try_wait().unwrap().is_some());
}

/// One frame as text, by the store and by an API; and that there is no terminal is said.
#[test]
fn top_prints_a_frame_once() {
    let home =
        Home::embedded().with("WINDLASS_LOOPBACK_ACCESS", "none").with("WINDLASS_API_KEYS", "k".repeat(20).as_str());
    home.enqueue("probe.noop", "{}", &["--delay", "1h"]);
    let ran = home.run(&["top", "--once"]);
    assert!(ran.status.success(), "{ran:?}");
    for part in ["queue.db", "Queues", "probe", "1 scheduled", "Workers", "Running"] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    let (_api, url) = home.serve(&["api"]);
    let refused = home.run(&["top", "--once", "--api", &url]);
    assert!(!refused.status.success() && refused.stderr.contains("WINDLASS_API_KEY"), "{refused:?}");
    let home = home.with("WINDLASS_API_KEY", &"k".repeat(20));
    let ran = home.run(&["top", "--once", "--api", &url]);
    assert!(ran.stdout.contains("1 scheduled") && ran.stdout.contains(&url), "{ran:?}");
    let seen = home.json(&["top", "--api", &url]);
    assert_eq!(seen["queues"][0]["name"], "probe", "{seen:#}");
    let ran = home.run(&["top"]);
    assert!(!ran.status.success() && ran.stderr.contains("--once"), "{ran:?}");
}
