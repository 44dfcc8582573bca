//! Numbers as a registry of `prometheus-client` encodes them.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, info::Info},
    registry::Unit,
};

use crate::app::numbers::{Added, Sample};

/// Numbers are written on it under their whole names, as documented: a name that ends with `_total` is a counter,
/// and one that ends with a unit before that has this unit.
pub(super) struct Sheet<'a>(DescriptorEncoder<'a>);

/// A number of one set of labels.
#[derive(Debug, Clone, Copy)]
pub(super) enum Row {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Row {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<f64> for Row {
    fn from(value: f64) -> Self {
        // Up to here each is exact; they are easier to read.
        const EXACT: f64 = (1_u64 << 53) as f64;
        match value.fract() == 0.0 && (0.0..EXACT).contains(&value) {
            true => Self::Whole(value as u64),
            false => Self::Real(value),
        }
    }
}

impl Row {
    fn encode(self, kind: MetricType, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match kind {
            MetricType::Counter => match self {
                Self::Whole(value) => counter(encoder, &value),
                Self::Real(value) => counter(encoder, &value),
            },
            _ => match self {
                Self::Whole(value) => gauge(encoder, &value),
                Self::Real(value) => gauge(encoder, &value),
            },
        }
    }
}

fn counter(encoder: &mut MetricEncoder<'_>, value: &impl EncodeCounterValue) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, _, f64>(value, None)
}

fn gauge(encoder: &mut MetricEncoder<'_>, value: &impl EncodeGaugeValue) -> fmt::Result {
    encoder.encode_gauge(value)
}

/// A name, without what the encoder adds to it.
fn split(name: &str) -> (&str, Option<Unit>, MetricType) {
    let (name, kind) = match name.strip_suffix("_total") {
        Some(name) => (name, MetricType::Counter),
        None => (name, MetricType::Gauge),
    };
    let unit = |suffix, unit| Some((name.strip_suffix(suffix)?, unit));
    match unit("_seconds", Unit::Seconds).or_else(|| unit("_bytes", Unit::Bytes)) {
        Some((name, unit)) => (name, Some(unit), kind),
        None => (name, None, kind),
    }
}

impl<'a> Sheet<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// A number without labels; a counter, if its name is that of one.
    pub(super) fn one(&mut self, name: &str, help: &str, value: impl Into<Row>) -> fmt::Result {
        let (name, unit, kind) = split(name);
        let mut encoder = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        value.into().encode(kind, &mut encoder)
    }

    /// A number that the program has added, which may have given it any name.
    pub(super) fn added(&mut self, added: &Added, sample: &Sample) -> fmt::Result {
        match sample {
            Sample::Counter(value) => self.one(added.name, added.help, *value),
            Sample::Counters(label, values) => {
                let rows = values.iter().map(|(of, value)| ([(*label, *of)], Row::from(*value)));
                self.family(added.name, added.help, rows)
            }
            Sample::Histogram(buckets, sum) => self.histogram(added.name, added.help, buckets, *sum),
            Sample::Gauge(value) => {
                let mut encoder = self.0.encode_descriptor(added.name, added.help, None, MetricType::Gauge)?;
                Row::from(*value).encode(MetricType::Gauge, &mut encoder)
            }
        }
    }

    /// A number for each set of labels. Nothing when there is none.
    pub(super) fn family<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([(&'static str, impl AsRef<str>); N], Row)>,
    ) -> fmt::Result {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let (name, unit, kind) = split(name);
        let mut encoder = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, row) in rows {
            let labels = labels.each_ref().map(|(name, value)| (*name, value.as_ref()));
            row.encode(kind, &mut encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A distribution: the upper bound of each bucket, and how many values are in it and in none before; their sum.
    pub(super) fn histogram(&mut self, name: &str, help: &str, buckets: &[(f64, u64)], sum: f64) -> fmt::Result {
        let (name, unit, _) = split(name);
        let mut encoder = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
    }

    /// The same for each value of a label.
    pub(super) fn histograms<'s>(
        &mut self,
        name: &str,
        help: &str,
        all: impl IntoIterator<Item = ((&'static str, &'s str), (Vec<(f64, u64)>, f64))>,
    ) -> fmt::Result {
        let (name, unit, _) = split(name);
        let mut encoder = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
        for (label, (buckets, sum)) in all {
            let count = buckets.iter().map(|(_, count)| count).sum();
            encoder.encode_family(&[label])?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    /// A text about the whole, as a label.
    pub(super) fn info(&mut self, name: &str, help: &str, label: &str, value: &str) -> fmt::Result {
        let info = Info::new([(label, value)]);
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Info)?;
        info.encode(encoder)
    }
}
