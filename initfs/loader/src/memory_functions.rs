//! The memory functions that compiled code calls. The host's prebuilt `compiler_builtins` leaves
//! them to libc, which is not here.

use core::arch::asm;

/// C's `memcpy`.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(target: *mut u8, source: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the caller vouches for both ranges; the direction flag is clear by the ABI.
    unsafe {
        asm!("rep movsb", inout("rdi") target => _, inout("rsi") source => _, inout("rcx") length => _);
    }
    target
}

/// C's `memmove`.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(target: *mut u8, source: *const u8, length: usize) -> *mut u8 {
    if (target as usize).wrapping_sub(source as usize) >= length {
        // SAFETY: copying upwards is right: the target does not begin inside the source.
        return unsafe { memcpy(target, source, length) };
    }
    // SAFETY: the caller vouches for both ranges, and `length` is not 0 here; the direction flag
    // is clear again afterwards.
    unsafe {
        asm!(
            "std", "rep movsb", "cld",
            inout("rdi") target.add(length - 1) => _,
            inout("rsi") source.add(length - 1) => _,
            inout("rcx") length => _,
        );
    }
    target
}

/// C's `memset`.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(target: *mut u8, byte: i32, length: usize) -> *mut u8 {
    // SAFETY: the caller vouches for the range.
    unsafe {
        asm!("rep stosb", inout("rdi") target => _, in("al") byte as u8, inout("rcx") length => _);
    }
    target
}

/// C's `memcmp`.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    let mut index = 0;
    while index < length {
        // SAFETY: the caller vouches for both ranges.
        let (left, right) = unsafe { (left.add(index).read(), right.add(index).read()) };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
        index += 1;
    }
    0
}

/// What compilers call for `memcmp(..) != 0`.
///
/// # Safety
///
/// As [`memcmp`].
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    // SAFETY: as the caller vouches.
    unsafe { memcmp(left, right, length) }
}
