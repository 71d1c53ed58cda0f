//! Keys as traffic draws them.

/// Draws ranks by Zipf's law, by inverting the cumulated weights.
pub(crate) struct Zipf {
    cumulated: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new(items: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let cumulated = (1..=items)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        Self { cumulated }
    }

    pub(crate) fn draw(&self, random: &mut fastrand::Rng) -> usize {
        let point = random.f64() * self.cumulated.last().copied().unwrap_or(1.0);
        self.cumulated
            .partition_point(|sum| *sum < point)
            .min(self.cumulated.len() - 1)
    }
}

/// A key of 16 bytes; neighbours in rank are not neighbours in order.
pub(crate) fn key(rank: usize) -> String {
    let scattered = (rank as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
    format!("key:{scattered:012x}")
}
