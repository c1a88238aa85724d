//! The kernels, without a GPU.
//!
//! | module | shows |
//! |---|---|
//! | `emulator` | runs kernels on the processor |
//! | `number` | single and half precision in chunks of 16 bytes |
//! | `gather`, `cross`, `dense`, `head` | each family beside a reference in double precision |
//! | `pairs` | the rows of a user with items, word by word |
//! | `topk` | the best items beside a sorted list |
//! | `nvrtc` | that NVIDIA's compiler takes them, and what it makes of them |

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the kernels count in 32 bits, and the shapes of a test are small"
)]

mod emulator;
mod number;

mod compiled;
mod cross;
mod dense;
mod gather;
mod head;
mod nvrtc;
mod pairs;
mod topk;
