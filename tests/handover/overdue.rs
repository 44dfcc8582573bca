//! What ends a test that stands still, and says where: waits that each have a bound can follow one another for ever, and
//! a thread that is blocked looks at no clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::Write as _,
    process::Command,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

/// How long a whole test may take.
const LONGEST: Duration = Duration::from_secs(240);

static RUNNING: LazyLock<Mutex<Running>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Running {
    /// What each thread waits for, or waited for last. Those of tests have their names.
    waits: BTreeMap<String, (String, Instant)>,
    servers: BTreeSet<u32>,
}

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn here() -> String {
    thread::current().name().unwrap_or("a thread").to_owned()
}

/// This thread begins to wait.
pub(crate) fn waits(what: &str) {
    running().waits.insert(here(), (what.to_owned(), Instant::now()));
}

/// A server runs.
pub(crate) fn started(pid: u32) {
    running().servers.insert(pid);
}

/// A server has been waited for.
pub(crate) fn ended(pid: u32) {
    running().servers.remove(&pid);
}

/// Watches this test until it is dropped.
pub(crate) struct Watch(#[allow(dead_code, reason = "its end is what counts")] mpsc::Sender<()>);

impl Watch {
    pub(crate) fn begin(said: impl Fn() -> String + Send + 'static) -> Self {
        let (over_tx, over) = mpsc::channel();
        let test = here();
        thread::spawn(move || {
            if over.recv_timeout(LONGEST) == Err(mpsc::RecvTimeoutError::Timeout) {
                end(&test, &said());
            }
        });
        Self(over_tx)
    }
}

/// Ends all tests of this program, since one cannot be ended alone, and their servers.
fn end(test: &str, said: &str) -> ! {
    let running = running();
    let mut text = format!("\n{test} is not done after {LONGEST:?}\n");
    for (thread, (what, since)) in &running.waits {
        let _ = writeln!(text, "{thread}: for {:?} after it began to wait: {what}", since.elapsed());
    }
    text += said;
    // Past what the test harness captures, which is lost.
    let _ = std::io::stderr().write_all(text.as_bytes());
    for pid in &running.servers {
        let _ = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
    }
    std::process::exit(101);
}
