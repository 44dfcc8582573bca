//! Standard error and standard output, written by a thread of their own: a full disk, a closed pipe or a
//! terminal that is stopped holds up nobody else.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::Level;

use crate::{cli::standard::write_all, fault};

/// How much waits to be written, in bytes; what comes then is dropped, and counted.
const MOST: usize = 1 << 20;
/// What a piece of it costs besides its bytes.
const OVERHEAD: usize = 64;
/// Pieces that were dropped or could not be written, of all streams.
static LOST: AtomicU64 = AtomicU64::new(0);

/// How many pieces were dropped or could not be written since the process began, of all streams.
pub(in crate::cli) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// With how much waiting the stream is behind.
const BEHIND: usize = 4 << 10;

/// What is written to it is queued, or dropped when too much waits already. It never blocks or fails.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Outlet(Arc<Pipe>);

#[derive(Default)]
struct Pipe {
    queue: Mutex<Backlog>,
    /// There is something to write.
    more: Condvar,
    /// All has been written.
    done: Condvar,
    /// Where the stream must not have a word about itself.
    tell: Option<Mutex<Tell>>,
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").field("queue", &self.queue).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Backlog {
    pieces: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// How many were dropped since one was taken last.
    dropped: u64,
    /// How many were taken to be written.
    taken: u64,
    /// The thread has a piece that it writes.
    writing: bool,
    /// Why the last piece could not be written.
    error: Option<String>,
}

impl Pipe {
    /// Says elsewhere that lines are lost. Whether it does.
    fn tell(&self, lines: u64, error: Option<&io::Error>) -> bool {
        let Some(tell) = &self.tell else { return false };
        tell.lock().unwrap_or_else(PoisonError::into_inner)(lines, error);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlet {
    /// Starts the thread that writes to `stream`. It ends with the process.
    pub(in crate::cli) fn start(name: &'static str, stream: impl Write + Send + 'static) -> io::Result<Self> {
        Self::start_telling(name, stream, None)
    }

    /// The same for a stream that has no words in it about lines that are lost: `tell` is called with how many more
    /// were, and why they could not be written if it was not for want of room in the queue. It must not block.
    pub(in crate::cli) fn start_telling(
        name: &'static str,
        stream: impl Write + Send + 'static,
        tell: Option<Tell>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Pipe { tell: tell.map(Mutex::new), ..Pipe::default() });
        let outlet = Self(shared.clone());
        thread::Builder::new().name(name.into()).spawn(move || run(name, &shared, stream))?;
        Ok(outlet)
    }

    /// Queues a piece, in most cases a line.
    pub(in crate::cli) fn write(&self, piece: &[u8]) {
        let mut queue = self.0.lock();
        let cost = piece.len() + OVERHEAD;
        // One that is larger than all is still taken when it is alone.
        if queue.bytes + cost > MOST && !queue.pieces.is_empty() {
            LOST.fetch_add(1, Ordering::Relaxed);
            match self.0.tell.is_some() {
                true => drop(queue),
                false => queue.dropped += 1,
            }
            self.0.tell(1, None);
            return;
        }
        // Where they are missing.
        if let Some(notice) = notice(std::mem::take(&mut queue.dropped)) {
            queue.bytes += notice.len() + OVERHEAD;
            queue.pieces.push_back(notice);
        }
        queue.bytes += cost;
        queue.pieces.push_back(piece.into());
        drop(queue);
        self.0.more.notify_one();
    }

    /// The same for what only makes sense at once: it is left out when the stream is behind.
    pub(in crate::cli) fn write_now(&self, piece: &[u8]) {
        if self.0.lock().bytes < BEHIND {
            self.write(piece);
        }
    }

    /// Has it told how many lines were lost that nobody was told of.
    pub(in crate::cli) fn settle(&self) {
        self.0.tell(0, None);
    }

    /// Waits until all is written, no longer than `most`. Whether it was; an error says why not.
    pub(in crate::cli) fn flush(&self, most: Duration) -> Result<(), String> {
        self.flush_while_read(most, most)
    }

    /// The same, and no longer than `pause` without a piece that is written.
    pub(in crate::cli) fn flush_while_read(&self, pause: Duration, most: Duration) -> Result<(), String> {
        let began = Instant::now();
        let mut queue = self.0.lock();
        let (mut taken, mut since) = (queue.taken, began);
        while queue.writing || !queue.pieces.is_empty() || queue.dropped > 0 {
            if queue.taken != taken {
                (taken, since) = (queue.taken, Instant::now());
            }
            let left = pause.saturating_sub(since.elapsed()).min(most.saturating_sub(began.elapsed()));
            if left.is_zero() {
                return Err("it is not being read".into());
            }
            queue = self.0.done.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        match &queue.error {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }
}

/// Says that lines are missing.
fn notice(lost: u64) -> Option<Box<[u8]>> {
    let lines = if lost == 1 { "line" } else { "lines" };
    let text = || match super::json::is_chosen() {
        true => super::json::plain(Level::WARN, &format!("{lost} {lines} lost here, which could not be written")),
        false => format!("h3cast: {lost} {lines} lost here, which could not be written\n"),
    };
    (lost > 0).then(|| text().into_bytes().into())
}

/// Called with how many more lines were lost, and why if they could not be written; at last, with none.
pub(in crate::cli) type Tell = Box<dyn FnMut(u64, Option<&io::Error>) + Send>;

fn run(name: &str, shared: &Pipe, mut stream: impl Write) {
    // Those that failed; and whether the last one got half-way, so that the next begins a line.
    let (mut failed, mut torn) = (0, false);
    loop {
        let piece = next(shared);
        fault::point(name);
        let mut error = None;
        if let Some(notice) = notice(failed)
            && write(&mut stream, &notice, &mut torn).is_ok()
        {
            failed = 0;
        }
        if let Err(cause) = write(&mut stream, &piece, &mut torn) {
            LOST.fetch_add(1, Ordering::Relaxed);
            if !shared.tell(1, Some(&cause)) {
                failed += 1;
            }
            error = Some(cause.to_string());
        }
        let mut queue = shared.lock();
        queue.writing = false;
        queue.error = error;
        if queue.pieces.is_empty() {
            shared.done.notify_all();
        }
    }
}

/// Waits for the next piece.
fn next(shared: &Pipe) -> Box<[u8]> {
    let mut queue = shared.lock();
    loop {
        if let Some(piece) = queue.pieces.pop_front() {
            queue.bytes -= piece.len() + OVERHEAD;
            queue.taken += 1;
            queue.writing = true;
            return piece;
        }
        if let Some(notice) = notice(std::mem::take(&mut queue.dropped)) {
            queue.writing = true;
            return notice;
        }
        queue = shared.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Writes a piece whole.
fn write(stream: &mut impl Write, piece: &[u8], torn: &mut bool) -> io::Result<()> {
    if piece.is_empty() {
        // A file may be asked to be opened again.
        return stream.write(piece).map(drop);
    }
    if *torn {
        write_all(stream, b"\n").0?;
        *torn = false;
    }
    let (written, at) = write_all(stream, piece);
    *torn = written.is_err() && at > 0;
    written
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A stream that takes what it is asked for: some bytes, or an error.
    struct Valve {
        answers: mpsc::Receiver<io::Result<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Valve {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Without a test it takes all.
            let most = self.answers.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            self.written.lock().unwrap().extend_from_slice(&bytes[..most]);
            Ok(most)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const SOON: Duration = Duration::from_secs(20);

    type Sunk = Arc<Mutex<Vec<u8>>>;

    fn valve() -> (Outlet, mpsc::Sender<io::Result<usize>>, Sunk) {
        let (open, answers) = mpsc::channel();
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let outlet = Outlet::start("test", Valve { answers, written: written.clone() }).unwrap();
        (outlet, open, written)
    }

    #[test]
    fn what_is_too_much_is_dropped_and_counted() {
        let (outlet, open, written) = valve();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let most = MOST / (line.len() + OVERHEAD);
        for _ in 0..most + 500 {
            outlet.write(&line);
        }
        assert!(outlet.flush(Duration::from_millis(10)).is_err());
        drop(open);
        outlet.flush(SOON).unwrap();
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let (lines, notices): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('x'));
        // One may have been on its way already.
        assert!((most..=most + 1).contains(&lines.len()), "{} lines", lines.len());
        let lost = most + 500 - lines.len();
        assert_eq!(notices, [format!("h3cast: {lost} lines lost here, which could not be written")]);
        // And it is as before.
        outlet.write(b"after\n");
        outlet.flush(SOON).unwrap();
        assert!(written.lock().unwrap().ends_with(b"written\nafter\n"));
    }

    #[test]
    fn what_fails_is_counted_and_a_torn_line_stands_alone() {
        let (outlet, open, written) = valve();
        // Room for three bytes of the first line, none for the second.
        for answer in [Ok(3), Err(io::ErrorKind::StorageFull.into()), Err(io::ErrorKind::StorageFull.into())] {
            open.send(answer).unwrap();
        }
        outlet.write(b"first\n");
        outlet.write(b"second\n");
        // For the notice of the second's try, which fails with it.
        open.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        assert!(outlet.flush(SOON).is_err());
        drop(open);
        outlet.write(b"third\n");
        outlet.flush(SOON).unwrap();
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "fir\nh3cast: 2 lines lost here, which could not be written\nthird\n");
    }
}
