//! A network as a parser read it, before an engine is made from it.

use std::{ffi::c_int, ptr::NonNull};

use crate::{
    Builder, Error, Tensor,
    sys::{self, call},
    tensor,
};

/// A network, with the parser that read it: the weights are the parser's.
#[derive(Debug)]
pub struct Network {
    raw: NonNull<sys::trt_network>,
    parser: Option<NonNull<sys::trt_parser>>,
    builder: Builder,
}

// SAFETY: Networks and parsers are tied to no thread; each call takes the builder's turn.
unsafe impl Send for Network {}
// SAFETY: As above.
unsafe impl Sync for Network {}

impl Network {
    /// An empty network of `builder`'s.
    pub(crate) fn new(builder: &Builder) -> Result<Self, Error> {
        Ok(Self { raw: builder.create_network()?, parser: None, builder: builder.clone() })
    }

    /// Takes the parser that has filled the network.
    pub(crate) fn keep(&mut self, parser: NonNull<sys::trt_parser>) {
        self.parser = Some(parser);
    }

    /// The inputs, in the order of the ONNX graph.
    pub fn inputs(&self) -> Result<Vec<Tensor>, Error> {
        let shim = self.builder.shim();
        self.tensors(
            // SAFETY: The network is alive and this thread's turn; `count` is the caller's, as in what follows.
            |count| unsafe { call!(shim, network_inputs(self.raw(), count)) },
            // SAFETY: As above.
            |index, tensor| unsafe { call!(shim, network_input(self.raw(), index, tensor)) },
        )
    }

    /// The outputs, in the order of the ONNX graph.
    pub fn outputs(&self) -> Result<Vec<Tensor>, Error> {
        let shim = self.builder.shim();
        self.tensors(
            // SAFETY: The network is alive and this thread's turn; `count` is the caller's, as in what follows.
            |count| unsafe { call!(shim, network_outputs(self.raw(), count)) },
            // SAFETY: As above.
            |index, tensor| unsafe { call!(shim, network_output(self.raw(), index, tensor)) },
        )
    }

    fn tensors(
        &self,
        count: impl FnOnce(*mut c_int) -> sys::trt_status,
        get: impl Fn(c_int, *mut sys::trt_tensor) -> sys::trt_status,
    ) -> Result<Vec<Tensor>, Error> {
        let _turn = self.builder.turn();
        let logger = self.builder.logger();
        let mut tensors = 0;
        logger.outcome(count(&raw mut tensors), "count a network's tensors")?;
        let one = |index| {
            let mut raw = tensor::empty();
            logger.outcome(get(index, &raw mut raw), "describe a network's tensor")?;
            // SAFETY: The network, whose tensor it is, is alive.
            unsafe { Tensor::from_raw(&raw) }
        };
        (0..tensors).map(one).collect()
    }

    pub(crate) fn builder(&self) -> &Builder {
        &self.builder
    }

    pub(crate) fn raw(&self) -> *mut sys::trt_network {
        self.raw.as_ptr()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _turn = self.builder.turn();
        if let Some(parser) = self.parser {
            // SAFETY: It was made by this shim and is destroyed here alone; nothing is built from the network any more.
            unsafe { call!(self.builder.shim(), parser_destroy(parser.as_ptr())) }
        }
        // SAFETY: It was made by this shim and is destroyed here alone, before its builder.
        unsafe { call!(self.builder.shim(), network_destroy(self.raw())) }
    }
}
