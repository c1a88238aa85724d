//! The shim's functions as bindgen reads them from kernels/tensorrt/shim.h, and the one way to call them.

#![allow(missing_docs, non_camel_case_types, non_upper_case_globals, unreachable_pub)]

use std::{ffi::CStr, ptr};

include!(concat!(env!("OUT_DIR"), "/shim.rs"));

/// What a call said that did not succeed.
pub(crate) enum Failure {
    /// TensorRT said no, or threw, with the shim's text where it has one.
    Refused(String),
    /// The flavour has no such function.
    Absent,
}

/// The outcome of a call into `shim` that has just returned `status` on this thread.
pub(crate) fn outcome(shim: &trt_shim, status: trt_status) -> Result<(), Failure> {
    match status {
        TRT_OK => Ok(()),
        TRT_ABSENT => Err(Failure::Absent),
        status => {
            debug_assert!(matches!(status, TRT_REFUSED | TRT_THREW), "the shim has no other status");
            let error = shim.error.expect("the table is full");
            // SAFETY: The shim's `error` takes nothing and can be called at any time.
            let text = unsafe { error() };
            // SAFETY: It answers with this thread's text, which ends with a NUL and is left alone until the next call.
            let text = unsafe { CStr::from_ptr(text) };
            Err(Failure::Refused(text.to_string_lossy().into_owned()))
        }
    }
}

/// What `name` points to, copied; empty where it is null.
///
/// # Safety
/// `name` is null or points to text that ends with a NUL.
pub(crate) unsafe fn text(name: *const std::ffi::c_char) -> String {
    if ptr::eq(name, ptr::null()) {
        return String::new();
    }
    // SAFETY: The caller's.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

/// Calls a function of the shim's table, and gives [`outcome`].
///
/// The expansion has no `unsafe` block of its own: the caller says why the call is sound.
macro_rules! call {
    ($shim:expr, $function:ident($($argument:expr),* $(,)?)) => {
        ($shim.$function.expect("the table is full"))($($argument),*)
    };
}
pub(crate) use call;
