//! How much of a shared memory zone nginx's slab allocator leaves to one large allocation.

/// nginx's slab gives whole pages to large requests.
const PAGE: usize = 4096;

/// The size of a zone that can hand out so many bytes: they, the slab's header, and an entry for
/// each page.
pub fn smallest(bytes: usize) -> usize {
    (bytes + bytes / 64 + 8 * PAGE).next_multiple_of(PAGE)
}

/// How many bytes a zone of `size` can hand out.
pub fn largest(size: usize) -> usize {
    (size.saturating_sub(9 * PAGE) / 65 * 64) & !(PAGE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_zone_hands_out_fits_into_it() {
        for size in (40 << 10..8 << 20).step_by(5000) {
            assert!(smallest(largest(size)) <= size || largest(size) == 0, "{size}");
        }
    }
}
