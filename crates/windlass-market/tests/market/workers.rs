//! Workers as processes of this binary, killed and replaced at random.

use std::process::{Child, Command, Stdio};

/// Processes that run one test each, until they have ended by themselves.
pub(crate) struct Workers {
    test: &'static str,
    variable: &'static str,
    url: String,
    all: Vec<Child>,
    kills: usize,
}

impl Workers {
    /// So many that run `test`, with the database's URL in `variable`.
    pub(crate) fn start(count: usize, test: &'static str, variable: &'static str, url: &str) -> Self {
        let mut workers = Self { test, variable, url: url.to_owned(), all: Vec::new(), kills: 0 };
        workers.all = (0..count).map(|_| workers.one()).collect();
        workers
    }

    fn one(&self) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", self.test])
            .env(self.variable, &self.url)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    pub(crate) fn are_at_work(&mut self) -> bool {
        self.all.iter_mut().any(|worker| worker.try_wait().unwrap().is_none())
    }

    pub(crate) const fn kills(&self) -> usize {
        self.kills
    }

    /// Kills one, if it is at work and fewer than `most` were killed; another one takes its place.
    pub(crate) fn kill_one(&mut self, most: usize) {
        let victim = fastrand::usize(..self.all.len());
        match self.all[victim].try_wait().unwrap() {
            Some(status) => assert!(status.success(), "a worker failed by itself: {status}"),
            None if self.kills < most => {
                self.all[victim].kill().unwrap();
                self.all[victim].wait().unwrap();
                self.all[victim] = self.one();
                self.kills += 1;
            }
            None => {}
        }
    }
}
