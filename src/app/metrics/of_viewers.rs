//! Viewers, and what they are given.

use std::fmt;

use super::sheet::{Row, Sheet};
use crate::{app::viewing::Shape, counts::Protocol, feed::Delivered};

type Viewing = [(Protocol, Shape, Delivered)];

pub(super) fn write(sheet: &mut Sheet<'_>, viewing: &Viewing) -> fmt::Result {
    let rows = |value: fn(&Delivered) -> u64| {
        viewing.iter().map(move |(protocol, shape, delivered)| {
            let labels = [("transport", protocol.as_str()), ("format", shape.as_str())];
            (labels, Row::from(value(delivered)))
        })
    };
    sheet.family("h3cast_viewers", "Current viewers, by transport and format.", rows(|now| now.viewers))?;
    sheet.family(
        "h3cast_viewers_joined_total",
        "Viewers that have joined, by transport and format.",
        rows(|now| now.joined),
    )?;
    sheet.family(
        "h3cast_sent_chunks_total",
        "Chunks sent to viewers; for a feed that is a file, the pieces in which it is read.",
        rows(|now| now.chunks),
    )?;
    let help = "Bytes sent to viewers, including what the format adds.";
    sheet.family("h3cast_sent_bytes_total", help, rows(|now| now.bytes))?;
    let help = "Time from the publication of a chunk until it is handed to the transport, sampled at most every 100 ms per viewer.";
    sheet.histograms(
        "h3cast_publish_to_send_seconds",
        help,
        Protocol::ALL.map(|protocol| {
            let of = viewing.iter().filter(|(found, ..)| *found == protocol).map(|(_, _, delivered)| delivered);
            (("transport", protocol.as_str()), summed(of))
        }),
    )
}

/// The times of several formats as one distribution.
fn summed<'a>(all: impl Iterator<Item = &'a Delivered>) -> (Vec<(f64, u64)>, f64) {
    all.fold((Vec::new(), 0.0), |(mut buckets, sum), one| {
        if buckets.is_empty() {
            buckets.clone_from(&one.times);
        } else {
            buckets.iter_mut().zip(&one.times).for_each(|((_, count), (_, more))| *count += more);
        }
        (buckets, sum + one.times_sum)
    })
}
