//! The kernels, without a GPU.
//!
//! | module | shows |
//! |---|---|
//! | `emulator` | runs kernels on the processor |
//! | `number` | single and half precision in chunks of 16 bytes |
//! | `gather`, `head` | each family beside a reference in double precision |
//! | `nvrtc` | that NVIDIA's compiler takes them, and what it makes of them |

mod emulator;
mod number;

mod gather;
mod head;
mod nvrtc;
