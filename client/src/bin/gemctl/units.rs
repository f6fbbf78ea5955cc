//! Sizes as people read them.

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Bytes, in the largest unit of which there is at least one, cut after the third digit or the
/// point. At most eight characters.
pub fn size(bytes: u64) -> String {
    let power = (bytes.max(1).ilog2() / 10) as usize;
    let unit = UNITS.get(power).unwrap_or(&"");
    if power == 0 {
        return format!("{bytes} {unit}");
    }
    let tenths = (u128::from(bytes) * 10) >> (power * 10);
    match tenths {
        0..1000 => format!("{}.{} {unit}", tenths / 10, tenths % 10),
        _ => format!("{} {unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_cut_not_rounded_up() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (4096, "4.0 KiB"),
            (102_399, "99.9 KiB"),
            (102_400, "100 KiB"),
            ((1 << 20) - 1, "1023 KiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
