//! What the process may use of the machine: memory and file descriptors.

mod files;
mod system;

use std::{sync::Arc, time::Duration};

use tracing::{info, warn};

use self::files::Files;
use super::histories::Histories;
use crate::{
    App,
    admission::{Carrier, Counters, Refusal, Room, Snapshot},
    cli::{Failure, values::size},
    feed::{Budget, Pressure},
};

/// How much of the memory may be used, in percent, unless that was said: the rest is for the kernel's part, and for
/// what is used before the next look.
const SHARE: u64 = 75;
/// What the program uses without any viewer, in bytes: some 28 MiB, with two workers.
const IDLE: u64 = 32 << 20;
/// What one of each is taken to cost, in bytes; what the system reports is the check. A connection with TLS and its
/// windows empty, a request that reads a feed, and a session that does.
const COSTS: [(Count, u64); 3] =
    [(|now| now.connections, 48 << 10), (|now| now.requests, 16 << 10), (|now| now.sessions, 24 << 10)];
/// How many there are.
type Count = fn(&Snapshot) -> u64;

/// The smallest history that is proposed, in bytes.
const SMALLEST: u64 = 16 << 10;

/// Between two looks at the memory: near the limit, and with much room.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// `--memory`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Memory {
    Bytes(u64),
    /// Of what there is.
    Percent(u64),
    Off,
    /// Nothing was said.
    #[default]
    Default,
}

pub(super) fn parse(text: &str) -> Result<Memory, String> {
    if text == "off" {
        return Ok(Memory::Off);
    }
    let wrong = || {
        format!(
            "`{text}` is not an amount of memory: write a number of bytes such as 512M, a percentage from 1% to 100%, or off"
        )
    };
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent = percent.parse().ok().filter(|percent| (1..=100).contains(percent));
            percent.map(Memory::Percent).ok_or_else(wrong)
        }
        None => match size(text).map_err(|_| wrong())? as u64 {
            bytes if bytes < IDLE => Err(format!(
                "`{text}` is too little, the server itself needs {}: write more, such as 512M, or off",
                mib(IDLE)
            )),
            bytes => Ok(Memory::Bytes(bytes)),
        },
    }
}

/// What the process may use, and what it uses.
pub(super) struct Resources {
    budget: Option<Budget>,
    files: Arc<Files>,
}

/// What may be used of what there is, if the histories fit; `None` if there is no limit.
pub(super) fn limit(memory: Memory, histories: Histories) -> Result<Option<u64>, Failure> {
    let there = system::memory();
    let limit = match (memory, there) {
        (Memory::Bytes(bytes), _) => Some(bytes),
        (Memory::Percent(percent), Some(there)) => Some(there.bytes / 100 * percent),
        (Memory::Default, Some(there)) => Some(there.bytes / 100 * SHARE),
        (Memory::Percent(_), None) => {
            let text = "how much memory there is cannot be found here: give --memory in bytes, as in 512M";
            return Err(Failure::usage(anyhow::anyhow!(text)));
        }
        (Memory::Off, _) | (Memory::Default, None) => None,
    };
    if let Some(limit) = limit {
        check(limit, memory, there, &histories)?;
    }
    Ok(limit)
}

impl Resources {
    /// Finds out what there is, and whether the histories fit.
    pub(super) fn find(memory: Memory, histories: Histories) -> Result<Self, Failure> {
        let budget = limit(memory, histories)?.map(Budget::new);
        Ok(Self { budget, files: Arc::new(Files::find()) })
    }

    /// The memory, if it has a limit.
    pub(super) fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }

    /// Has the app show and keep to them; gives what the server asks for each connection.
    pub(super) fn install(&self, app: App) -> (App, impl Fn(Carrier) -> Room + Send + Sync + use<>) {
        let app = self.budget.iter().fold(app, App::budget);
        let (used, taken, limit) = (self.files.clone(), self.files.clone(), self.files.limit());
        let app = app.descriptors(move |many| taken.take_for_request(many));
        let app = app.gauge("h3cast_descriptors", "File descriptors in use.", move || used.used() as f64);
        let app = match limit {
            Some(limit) => {
                let help = "File descriptors that may be in use (RLIMIT_NOFILE).";
                app.gauge("h3cast_descriptors_limit", help, move || limit as f64)
            }
            None => app,
        };
        let (budget, files) = (self.budget.clone(), self.files.clone());
        let room = move |carrier| {
            if carrier != Carrier::Quic && !files.take(carrier == Carrier::Plain) {
                return Room::Full(Refusal::Descriptors);
            }
            match budget.as_ref().map_or(Pressure::Low, Budget::pressure) {
                Pressure::Low => Room::Plenty,
                // Until there is room for viewers it may take seconds more: memory that was freed is returned bit by
                // bit. Whoever looks after the server can still ask it what is wrong: places are kept for that.
                Pressure::Critical if budget.as_ref().is_some_and(Budget::is_full) => Room::Full(Refusal::Memory),
                Pressure::High | Pressure::Critical => Room::Little,
            }
        };
        (app, room)
    }

    /// Looks at them for as long as it is polled.
    pub(super) async fn watch(&self, admission: &Counters) {
        let Some(budget) = &self.budget else {
            loop {
                self.files.look();
                tokio::time::sleep(PAUSES.1).await;
            }
        };
        let clients = admission.clone();
        budget.count(move || cost(&clients.snapshot()));
        // Clients may come faster than it is looked at, and take more than they are taken to cost.
        budget.measure(system::resident);
        let mut before = Pressure::Low;
        loop {
            // Both look at files of the kernel, which wait for no disk; a list of many descriptors takes its time.
            self.files.look();
            let pressure = budget.observe(system::resident());
            report(budget, std::mem::replace(&mut before, pressure), pressure);
            let near = budget.used() > budget.limit() / 4;
            tokio::select! {
                () = tokio::time::sleep(if near { PAUSES.0 } else { PAUSES.1 }) => {}
                () = budget.risen() => {}
            }
        }
    }
}

/// What the program and its clients are taken to use.
fn cost(now: &Snapshot) -> u64 {
    IDLE + COSTS.iter().map(|(count, cost)| count(now) * cost).sum::<u64>()
}

fn report(budget: &Budget, before: Pressure, now: Pressure) {
    let (used, limit) = (mib(budget.used()), mib(budget.limit()));
    match now {
        Pressure::High if before == Pressure::Low => {
            warn!(%used, %limit, "memory is short: new viewers are refused. Raise --memory, or give less --history");
        }
        Pressure::Critical if before != now => {
            warn!(%used, %limit, "memory is short: new connections are refused, and the slowest viewers are cut");
        }
        Pressure::Low if before != now => info!(%used, %limit, "there is memory again: new viewers are admitted"),
        _ => {}
    }
}

/// Whether the histories fit.
fn check(limit: u64, memory: Memory, there: Option<system::Found>, histories: &Histories) -> Result<(), Failure> {
    match (excess(limit, memory, there, histories), memory) {
        (None, _) => Ok(()),
        // What was not said is no mistake.
        (Some(text), Memory::Default) => {
            warn!("{text}");
            Ok(())
        }
        (Some(text), _) => Err(Failure::usage(anyhow::anyhow!(text))),
    }
}

/// What is to be said if they do not.
fn excess(limit: u64, memory: Memory, there: Option<system::Found>, histories: &Histories) -> Option<String> {
    // With more, there might never be room again for viewers.
    let room = Budget::for_histories(limit).saturating_sub(IDLE);
    let Histories { bytes, feeds, .. } = *histories;
    if bytes <= room {
        return None;
    }
    let of = match (memory, there) {
        (Memory::Bytes(_), _) | (_, None) => String::new(),
        (Memory::Percent(percent), Some(there)) => format!(" ({percent} % of {there})"),
        (_, Some(there)) => format!(" ({SHARE} % of {there})"),
    };
    let one = if feeds == 1 { "the history of the feed".into() } else { format!("the histories of {feeds} feeds") };
    let fewer = histories.most_within(room).map(|most| format!(", --max-feeds {most} or less")).unwrap_or_default();
    let each = room / feeds.max(1);
    let less = match each {
        SMALLEST.. => format!("--history {} or less{fewer}, or ", mib_flag(each)),
        _ => String::new(),
    };
    Some(format!(
        "{one} may take {}, the server itself needs {}, and --memory is {}{of}: new viewers would be refused for good \
         once it is full. Give {less}--memory {}M or more",
        mib(bytes),
        mib(IDLE),
        mib(limit),
        needed(bytes.saturating_add(IDLE)).div_ceil(1 << 20),
    ))
}

/// The least limit of which so much may be taken for good.
fn needed(bytes: u64) -> u64 {
    // One MiB more than what is rounded down.
    bytes.saturating_mul(100) / Budget::for_histories(100).max(1) + (1 << 20)
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// As `--history` takes it.
fn mib_flag(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{}K", (bytes >> 10).max(1)),
        mib => format!("{mib}M"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_said() {
        assert_eq!(parse("512M"), Ok(Memory::Bytes(512 << 20)));
        assert_eq!(parse("60%"), Ok(Memory::Percent(60)));
        assert_eq!(parse("off"), Ok(Memory::Off));
        for (text, expected) in [("1M", "needs 32 MiB"), ("0%", "percentage"), ("101%", "percentage"), ("x", "512M")] {
            assert!(parse(text).unwrap_err().contains(expected), "{text}");
        }
    }

    #[test]
    fn histories_that_do_not_fit() {
        let find = crate::cli::serve::histories::tests::find;
        let limited = |to: u64, args: &[&str]| {
            check(to << 20, Memory::Bytes(to << 20), None, &find(args)).map_err(|error| format!("{error:?}"))
        };
        assert_eq!(limited(100, &["log=-", "--history=48M"]), Ok(()));
        let error = limited(100, &["a=publish", "b=publish", "--history=40M"]).unwrap_err();
        assert!(
            error.contains("2 feeds may take 80 MiB")
                && error.contains("--history 24M or less, or --memory 141M or more"),
            "{error}"
        );
        // As many as clients may create.
        let error = limited(128, &["chat.*=publish"]).unwrap_err();
        assert!(error.contains("1000 feeds may take 1000 MiB"), "{error}");
        assert!(error.contains("--history 72K or less, --max-feeds 70 or less, or --memory 1291M or more"), "{error}");
        for fits in [["--history=72K", "--max-feeds=1000"], ["--history=1M", "--max-feeds=70"]] {
            assert_eq!(limited(128, &["chat.*=publish", fits[0], fits[1]]), Ok(()), "{fits:?}");
        }
        // With what it says, it fits; where nothing would be left, it does not propose that.
        assert_eq!(limited(141, &["a=publish", "b=publish", "--history=40M"]), Ok(()));
        assert_eq!(limited(1291, &["chat.*=publish"]), Ok(()));
        let error = limited(40, &["x=publish", "--history=3M"]).unwrap_err();
        assert!(error.contains("for good once it is full. Give --memory 45M or more"), "{error}");
        assert_eq!(limited(45, &["x=publish", "--history=3M"]), Ok(()));
        // What was not said is no mistake: a warning, if they do not fit.
        let chat = find(&["chat.*=publish"]);
        assert!(check(768 << 20, Memory::Default, None, &chat).is_ok());
        assert!(excess(768 << 20, Memory::Default, None, &chat).is_some());
        assert_eq!(excess(1536 << 20, Memory::Default, None, &chat), None);
    }
}
