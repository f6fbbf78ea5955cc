//! Finds the ACPI root pointer the way ACPI prescribes for BIOS machines (ACPI 6.5, 5.2.5.1):
//! on 16-byte boundaries in the first KiB of the EBDA and in 0xE0000 to 0xFFFFF.

use core::ops::Range;

use crate::PhysicalMemory;

const SIGNATURE: &[u8] = b"RSD PTR ";
const EBDA_SEGMENT: u64 = 0x40E;
const EBDA_SEARCHED: u64 = 1024;
const BIOS: Range<u64> = 0xE_0000..0x10_0000;
/// Of revision 0, and the part that the first checksum covers.
const OLD_SIZE: usize = 20;
/// From revision 2 on.
const SIZE: usize = 36;
const REVISION: usize = 15;

/// Where the root pointer lies, or `None` where there is no valid one.
pub fn find(memory: &impl PhysicalMemory) -> Option<Range<u64>> {
    let segment = memory.bytes(EBDA_SEGMENT, 2)?;
    let ebda = u64::from(u16::from_le_bytes([segment[0], segment[1]])) << 4;
    search(memory, ebda..ebda + EBDA_SEARCHED).or_else(|| search(memory, BIOS))
}

fn search(memory: &impl PhysicalMemory, range: Range<u64>) -> Option<Range<u64>> {
    range
        .step_by(16)
        .find_map(|address| Some(address..address + valid(memory, address)?))
}

/// The size of the root pointer at `address`, if there is a valid one.
fn valid(memory: &impl PhysicalMemory, address: u64) -> Option<u64> {
    let old = memory.bytes(address, OLD_SIZE)?;
    if !old.starts_with(SIGNATURE) || !sums_to_zero(old) {
        return None;
    }
    if old[REVISION] < 2 {
        return Some(OLD_SIZE as u64);
    }
    sums_to_zero(memory.bytes(address, SIZE)?).then_some(SIZE as u64)
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Memory(Vec<u8>);

    impl PhysicalMemory for Memory {
        fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
            let start = usize::try_from(address).ok()?;
            self.0.get(start..start.checked_add(length)?)
        }
    }

    fn with_rsdp(address: usize) -> Memory {
        let mut memory = Memory(vec![0; 0x10_0000]);
        memory.0[address..address + 8].copy_from_slice(SIGNATURE);
        let sum: u8 = SIGNATURE
            .iter()
            .fold(0, |sum, &byte| sum.wrapping_add(byte));
        memory.0[address + 8] = sum.wrapping_neg();
        memory
    }

    #[test]
    fn the_root_pointer_is_found_among_the_bios() {
        assert_eq!(find(&with_rsdp(0xF_5AD0)), Some(0xF_5AD0..0xF_5AE4));
    }

    #[test]
    fn the_root_pointer_is_found_in_the_ebda() {
        let mut memory = with_rsdp(0x9_FC10);
        memory.0[0x40E..0x410].copy_from_slice(&0x9FC0u16.to_le_bytes());
        assert_eq!(find(&memory), Some(0x9_FC10..0x9_FC24));
    }

    #[test]
    fn a_wrong_checksum_is_no_root_pointer() {
        let mut memory = with_rsdp(0xF_0000);
        memory.0[0xF_0009] ^= 1;
        assert_eq!(find(&memory), None);
    }
}
