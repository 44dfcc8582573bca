//! Keeps chunks of 200 bytes on disk with one engine or another, for `benches/store/measure`:
//!
//! ```text
//! engines write ENGINE DIR --count N --batch N --sync never|each|100ms [--paced]   figures on standard output
//! engines read ENGINE DIR                                            opens, reads all, prints how many
//! engines retain ENGINE DIR --keep N                                 removes all but the last N chunks
//! ```
//!
//! A batch is one record: key = number of the first chunk, value = count and chunks. While it writes, `write`
//! prints each acknowledged number with `--tell`, so that what a crash or a copy lost can be counted.

mod engine;

use std::{
    env,
    error::Error,
    fs,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

pub(crate) use engine::{CHUNK, Engine, Sync};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + std::marker::Sync>>;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().collect();
    let option = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let number = |name: &str, default: u64| option(name).and_then(|value| value.parse().ok()).unwrap_or(default);
    let [_, verb, engine, dir, ..] = &args[..] else { return Err("engines VERB ENGINE DIR".into()) };
    let sync = match option("--sync").map(String::as_str) {
        Some("each") => Sync::Each,
        Some("100ms") => Sync::Interval,
        _ => Sync::Never,
    };
    let began = Instant::now();
    let engine = engine::open(engine, Path::new(dir), sync)?;
    let opened = began.elapsed();
    match verb.as_str() {
        "write" => {
            let (count, batch) = (number("--count", 100_000), number("--batch", 1));
            write(engine, count, batch, sync, args.iter().any(|arg| arg == "--tell"))?;
        }
        "read" => {
            let began = Instant::now();
            let (chunks, last) = engine.read()?;
            let rate = chunks as f64 / began.elapsed().as_secs_f64();
            println!("{{\"opened_ms\":{:.1},\"chunks\":{chunks},\"last\":{last},\"read_per_s\":{rate:.0},\"rss_mb\":{}}}", opened.as_secs_f64() * 1e3, rss());
        }
        "retain" => {
            let began = Instant::now();
            engine.retain(number("--keep", 0))?;
            let before = began.elapsed();
            let mut sizes = Vec::new();
            for _ in 0..5 {
                std::thread::sleep(Duration::from_secs(1));
                sizes.push(size(Path::new(dir)) >> 20);
            }
            println!("{{\"retain_ms\":{:.1},\"mb_each_second\":{sizes:?}}}", before.as_secs_f64() * 1e3);
        }
        other => return Err(format!("unknown verb {other}").into()),
    }
    Ok(())
}

fn write(engine: Arc<dyn Engine>, count: u64, batch: u64, sync: Sync, tell: bool) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let flusher = (sync == Sync::Interval).then(|| {
        let (engine, stop) = (engine.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
                engine.sync().expect("synced");
            }
        })
    });
    let first = engine.next()?;
    let mut spent = Vec::with_capacity((count / batch) as usize);
    let began = Instant::now();
    let mut failed = 0_u64;
    let mut seq = first;
    while seq < first + count {
        let at = Instant::now();
        match engine.append(seq, batch) {
            Ok(()) => {
                seq += batch;
                if tell {
                    println!("{}", seq - 1);
                }
            }
            Err(error) => {
                failed += 1;
                if failed == 1 || failed % 50 == 0 {
                    eprintln!("after {} chunks: {error}", seq - first);
                }
                if failed > 100 {
                    println!("{{\"failed_after\":{},\"goes_on\":false}}", seq - first);
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        spent.push(at.elapsed());
    }
    let all = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    if let Some(flusher) = flusher {
        flusher.join().expect("no panic");
    }
    spent.sort();
    let at = |part: f64| spent[((spent.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    let written = fs::read_to_string("/proc/self/io")?;
    let written: f64 = written.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap_or("0").parse()?;
    println!(
        "{{\"chunks_per_s\":{:.0},\"p50_us\":{:.1},\"p99_us\":{:.1},\"max_us\":{:.0},\"amplification\":{:.2},\"rss_mb\":{},\"failed\":{failed}}}",
        count as f64 / all.as_secs_f64(), at(0.5), at(0.99), at(1.0),
        written / (count as f64 * CHUNK as f64), rss(),
    );
    std::io::stdout().flush()?;
    Ok(())
}

/// Resident, in MB.
fn rss() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) >> 10
}

/// What a folder takes on disk.
fn size(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size(&entry.path()),
            Ok(found) => found.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
