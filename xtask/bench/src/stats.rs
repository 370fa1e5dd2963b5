//! Medians and percentiles.

/// The median; of an even number, the lower of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The value at `p` (0 to 1) by nearest rank; 0 for no values.
pub fn percentile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = ((sorted.len() as f64 * p).ceil() as usize).clamp(1, sorted.len().max(1));
    sorted.get(rank - 1).copied().unwrap_or(0.0)
}

/// Rounded to three digits behind the point, for printing.
pub fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
