//! Child processes that never outlive the test process.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Room for one command and where its child goes.
type Order = (Command, Sender<io::Result<Child>>);

/// Starts a child that the kernel kills when this process ends, however it ends.
///
/// The kernel's signal fires when the *thread* that forked ends, so that one thread which
/// lives as long as the process forks them all.
///
/// # Errors
/// What [`Command::spawn`] says.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    // SAFETY: prctl(2) is one system call, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| {
            let signal = Some(rustix::process::Signal::KILL);
            rustix::process::set_parent_process_death_signal(signal).map_err(io::Error::from)
        });
    }
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = channel();
        std::thread::Builder::new()
            .name("testkit-spawner".into())
            .spawn(move || serve(&inbox))
            .expect("a test process can start one more thread");
        Mutex::new(orders)
    });
    let (reply, child) = channel();
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply))
        .expect("the spawner thread runs as long as the process");
    child.recv().expect("the spawner thread answers every order")
}

fn serve(inbox: &Receiver<Order>) {
    for (mut command, reply) in inbox {
        // Nobody waits for the answer only when the asking test has panicked.
        let _ = reply.send(command.spawn());
    }
}
