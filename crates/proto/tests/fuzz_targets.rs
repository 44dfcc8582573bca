//! The fuzz targets of `fuzz/`, on random bytes: they keep compiling, and what takes no guidance to find is found.
#![allow(missing_docs, unreachable_pub, reason = "written for another crate")]

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

use proptest::prelude::*;

proptest! {
    #[test]
    fn take_any_bytes(data in prop::collection::vec(any::<u8>(), 0..300)) {
        targets::frames(&data);
        targets::fields(&data);
        targets::capsules(&data);
        targets::datagrams(&data);
        targets::values(&data);
        targets::feeds(&data);
        targets::proxies(&data);
    }

    /// Random bytes are hardly ever a cursor.
    #[test]
    fn take_what_resembles_a_cursor(text in "[0-9a-f+-]{0,9}(-end)?") {
        targets::feeds(text.as_bytes());
    }
}
