//! What things cost in memory, as the allocators of common systems round it.

/// Blocks from this size on have pages of their own.
const MAPPED: usize = 128 << 10;
const PAGE: usize = 4 << 10;

/// A block of that many bytes on the heap: glibc keeps 8 bytes with each, and gives 32 at least, in steps of 16.
pub(crate) const fn block(bytes: usize) -> usize {
    match bytes + 8 {
        more if more >= MAPPED => (more + PAGE).next_multiple_of(PAGE),
        more if more <= 32 => 32,
        more => more.next_multiple_of(16),
    }
}

/// A [`Bytes`](bytes::Bytes) of that length that has been cloned: what it points to, and what counts its clones.
pub(crate) const fn buffer(bytes: usize) -> usize {
    /// Address, capacity, count.
    const SHARED: usize = 3 * size_of::<usize>();
    match bytes {
        0 => 0,
        _ => block(bytes) + block(SHARED),
    }
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_rounded_up() {
        for (bytes, cost) in [(1, 32), (24, 32), (25, 48), (40, 48), (41, 64), (1 << 20, (1 << 20) + 8192)] {
            assert_eq!(block(bytes), cost, "{bytes}");
        }
        assert_eq!((buffer(0), buffer(16)), (0, 64));
    }
}
