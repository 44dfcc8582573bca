//! Sends QUIC Initials from many addresses of 127.0.0.0/8, as an attacker would who spoofs them, and answers
//! nothing. Loopback only. What was done is printed as one line of JSON.
//!
//! ```text
//! h3cast-flood initials  127.0.0.1:4433 --rate 10000 --seconds 10 --sources 256
//! h3cast-flood keepalive 127.0.0.1:4433 --connections 1000 --every 1 --seconds 15
//! ```
//!
//! `initials`: each packet begins another connection. `keepalive`: each connection begins once, and is then kept
//! by Initials of 60 bytes; `late_replies` counts datagrams that the server sent in the last fifth of the time.

mod initial;

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::ExitCode,
    time::{Duration, Instant},
};

use initial::{HalfOpen, Hello, Hellos};

const SMALL: usize = 60;
const HELLOS: usize = 64;

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    target: SocketAddr,
    rate: f64,
    seconds: f64,
    sources: usize,
    connections: usize,
    every: f64,
}

fn run(arguments: &[String]) -> Result<String, String> {
    let [mode, target, rest @ ..] = arguments else {
        return Err("usage: h3cast-flood initials|keepalive ADDR:PORT [--rate N] [--seconds N] [--sources N] \
                    [--connections N] [--every SECONDS]"
            .into());
    };
    let target: SocketAddr = target.parse().map_err(|error| format!("{target}: {error}"))?;
    if !target.ip().is_loopback() {
        return Err(format!("{target} is not a loopback address: this program attacks this machine only"));
    }
    let mut options = Options { target, rate: 1000.0, seconds: 1.0, sources: 64, connections: 100, every: 1.0 };
    for pair in rest.chunks(2) {
        let [name, value] = pair else { return Err(format!("{} needs a value", pair[0])) };
        let number: f64 = value.parse().map_err(|error| format!("{name} {value}: {error}"))?;
        match name.as_str() {
            "--rate" => options.rate = number,
            "--seconds" => options.seconds = number,
            "--sources" => options.sources = (number as usize).clamp(1, 10_000),
            "--connections" => options.connections = number as usize,
            "--every" => options.every = number,
            _ => return Err(format!("unknown option {name}")),
        }
    }
    match mode.as_str() {
        "initials" => initials(&options),
        "keepalive" => keepalive(&options),
        _ => return Err(format!("unknown mode {mode}: expected initials or keepalive")),
    }
    .map_err(|error| format!("{mode}: {error}"))
}

/// Sockets at many addresses of the loopback network, none of them 127.0.0.1.
fn sources(count: usize) -> std::io::Result<Vec<UdpSocket>> {
    (0..count)
        .map(|i| {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 66, (i / 250) as u8, (i % 250 + 1) as u8), 0))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .collect()
}

fn hellos() -> (Hellos, Vec<Hello>) {
    let maker = Hellos::new();
    let hellos = (0..HELLOS).map(|_| maker.hello()).collect();
    (maker, hellos)
}

fn initials(options: &Options) -> std::io::Result<String> {
    let sockets = sources(options.sources)?;
    let (maker, hellos) = hellos();
    let total = (options.rate * options.seconds) as usize;
    // All are made before the first is sent, so that the rate is kept.
    let first = |i: usize| {
        let hello = &hellos[i % hellos.len()];
        HalfOpen::new(maker.id(), hello).first(hello)
    };
    let datagrams: Vec<_> = (0..total).map(first).collect();
    let began = Instant::now();
    let (mut sent, mut refused) = (0usize, 0usize);
    while sent + refused < total {
        let elapsed = began.elapsed().as_secs_f64();
        // A sender that cannot keep up stops in time all the same.
        if elapsed > options.seconds * 1.5 {
            break;
        }
        let due = ((elapsed * options.rate) as usize).min(total);
        if sent + refused >= due {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        while sent + refused < due {
            let i = sent + refused;
            match sockets[i % sockets.len()].send_to(&datagrams[i], options.target) {
                Ok(_) => sent += 1,
                Err(_) => refused += 1,
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(format!(
        r#"{{"sent": {sent}, "not_sent": {refused}, "seconds": {seconds:.2}, "rate": {:.0}}}"#,
        sent as f64 / seconds
    ))
}

fn keepalive(options: &Options) -> std::io::Result<String> {
    let sockets = sources(options.sources)?;
    let (maker, hellos) = hellos();
    let began = Instant::now();
    let end = Duration::from_secs_f64(options.seconds);
    let mut connections: Vec<_> = (0..options.connections)
        .map(|i| {
            let hello = &hellos[i % hellos.len()];
            let mut connection = HalfOpen::new(maker.id(), hello);
            let first = connection.first(hello);
            // Slow enough that the server's socket takes each.
            std::thread::sleep(Duration::from_micros(200));
            sockets[i % sockets.len()].send_to(&first, options.target).map(|_| connection)
        })
        .collect::<Result<_, _>>()?;
    let (mut sent, mut replies, mut late) = (0usize, 0usize, 0usize);
    let mut next = Duration::ZERO;
    while began.elapsed() < end {
        if began.elapsed() >= next {
            next = began.elapsed() + Duration::from_secs_f64(options.every);
            for (i, connection) in connections.iter_mut().enumerate() {
                let small = connection.small(SMALL);
                sent += usize::from(sockets[i % sockets.len()].send_to(&small, options.target).is_ok());
            }
        }
        let mut buffer = [0; 2048];
        for socket in &sockets {
            while socket.recv_from(&mut buffer).is_ok() {
                replies += 1;
                late += usize::from(began.elapsed() > end.mul_f64(0.8));
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(format!(
        r#"{{"connections": {}, "small": {sent}, "replies": {replies}, "late_replies": {late}}}"#,
        connections.len()
    ))
}
