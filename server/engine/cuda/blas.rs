//! Products of matrices by cuBLASLt: how it is told of one, which ways it offers, and the call itself.

use std::{
    ffi::{c_int, c_void},
    mem::MaybeUninit,
    ptr,
};

use cudarc::{
    cublaslt::{
        result::{self, CublasError},
        sys,
    },
    driver::sys::CUstream,
};

use super::{
    device::{Address, DeviceError, Precision, Product},
    plan::WORKSPACE_BYTES,
};

/// What cuBLASLt wants to know of a product. It counts along columns, so what is a row here is a column there: the output,
/// `[outputs]` a column, is the transposed weights, `[inputs]` a column, times the input, `[inputs]` a column.
pub(super) struct Descriptors {
    operation: Operation,
    weights: MatrixLayout,
    input: MatrixLayout,
    output: MatrixLayout,
}

/// One of the ways in which cuBLASLt computes a product.
#[derive(Clone, Copy)]
pub(super) struct Algorithm {
    algorithm: sys::cublasLtMatmulAlgo_t,
    pub(super) workspace_bytes: usize,
}

type Found = [MaybeUninit<sys::cublasLtMatmulHeuristicResult_t>; CANDIDATES];

impl Descriptors {
    pub(super) fn new(product: &Product) -> Result<Self, DeviceError> {
        let layout = |rows, columns| MatrixLayout::new(product.precision, rows, columns);
        Ok(Self {
            operation: Operation::new(product)?,
            weights: layout(product.inputs, product.outputs)?,
            input: layout(product.inputs, product.rows)?,
            output: layout(product.outputs, product.rows)?,
        })
    }

    /// The ways that cuBLASLt offers, the one that it holds for the best first; at least one. Where it has none that uses the
    /// workspace, those that use none.
    pub(super) fn candidates(&self, handle: sys::cublasLtHandle_t) -> Result<Vec<Algorithm>, DeviceError> {
        let found = self.candidates_within(WORKSPACE_BYTES, handle);
        match found {
            Ok(ways) if !ways.is_empty() => Ok(ways),
            _ => {
                let ways = self.candidates_within(0, handle)?;
                let none = || CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED);
                if ways.is_empty() { Err(failed(HEURISTIC)(none())) } else { Ok(ways) }
            }
        }
    }

    fn candidates_within(
        &self,
        workspace_bytes: usize,
        handle: sys::cublasLtHandle_t,
    ) -> Result<Vec<Algorithm>, DeviceError> {
        let preference = Preference::new(workspace_bytes)?;
        let mut found: Found = [const { MaybeUninit::zeroed() }; CANDIDATES];
        let mut count = 0;
        // SAFETY: All of them were made before and are not destroyed, and there is room for as many as are asked for.
        let status = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                handle,
                self.operation.0,
                self.weights.0,
                self.input.0,
                self.output.0,
                self.output.0,
                preference.0,
                c_int::try_from(CANDIDATES).expect("a few"),
                found.as_mut_ptr().cast(),
                &raw mut count,
            )
        };
        status.result().map_err(failed(HEURISTIC))?;
        let count = usize::try_from(count).unwrap_or(0).min(CANDIDATES);
        // SAFETY: So many were written.
        let found = found[..count].iter().map(|found| unsafe { found.assume_init() });
        let usable = found.filter(|found| found.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS);
        Ok(usable
            .map(|found| Algorithm { algorithm: found.algo, workspace_bytes: found.workspaceSize })
            .collect())
    }

    /// # Safety
    /// The caller answers for the memory that `product` names, for as long as the stream works on it.
    pub(super) unsafe fn run(
        &self,
        product: &Product,
        algorithm: &Algorithm,
        (handle, stream): (sys::cublasLtHandle_t, CUstream),
    ) -> Result<(), DeviceError> {
        let Self { operation, weights, input, output } = self;
        let (one, zero) = (1.0_f32, 0.0_f32);
        // SAFETY: All of them were made before and are not destroyed, the memory is as the layouts say by the caller's word, and
        // the factors are copied.
        let done = unsafe {
            result::matmul(
                handle,
                operation.0,
                ptr::from_ref(&one).cast(),
                ptr::from_ref(&zero).cast(),
                device_pointer(product.weights),
                weights.0,
                device_pointer(product.input),
                input.0,
                device_pointer(product.output),
                output.0,
                device_pointer(product.output),
                output.0,
                &raw const algorithm.algorithm,
                device_pointer(product.workspace),
                WORKSPACE_BYTES,
                stream.cast(),
            )
        };
        done.map_err(failed("cublasLtMatmul"))
    }
}

/// An address as cuBLASLt takes it, which never looks there from the host.
fn device_pointer(address: Address) -> *mut c_void {
    ptr::without_provenance_mut(usize::try_from(address.0).expect("addresses are of 64 bits"))
}

/// A matrix that is a piece of memory without gaps.
struct MatrixLayout(sys::cublasLtMatrixLayout_t);

impl MatrixLayout {
    fn new(precision: Precision, rows: usize, columns: usize) -> Result<Self, DeviceError> {
        let pitch = i64::try_from(rows).expect("the plan has counted it");
        let layout = result::create_matrix_layout(number_type(precision), rows as u64, columns as u64, pitch);
        layout.map(Self).map_err(failed("cublasLtMatrixLayoutCreate"))
    }
}

impl Drop for MatrixLayout {
    fn drop(&mut self) {
        // SAFETY: Nobody else has it.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// What is done: a product with bias, and `ReLU` where it is asked for, summed in single precision.
struct Operation(sys::cublasLtMatmulDesc_t);

impl Operation {
    fn new(product: &Product) -> Result<Self, DeviceError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let sums = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let operation = result::create_matmul_desc(sums, sys::cudaDataType_t::CUDA_R_32F);
        let operation = Self(operation.map_err(failed("cublasLtMatmulDescCreate"))?);
        let epilogue = if product.relu {
            sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_RELU_BIAS
        } else {
            sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS
        };
        operation.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
        operation.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        operation.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &product.bias.0)?;
        Ok(operation)
    }

    fn set<T>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: &T) -> Result<(), DeviceError> {
        let value: *const T = value;
        // SAFETY: It is this operation, and the value, which is copied, is of the size that is said.
        let set =
            unsafe { result::set_matmul_desc_attribute(self.0, attribute, value.cast(), size_of::<T>()) };
        set.map_err(failed("cublasLtMatmulDescSetAttribute"))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: Nobody else has it.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// What the choice of a kernel must keep to.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    /// So much workspace, and sums that are never put together from numbers of the output's precision.
    fn new(workspace_bytes: usize) -> Result<Self, DeviceError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = result::create_matmul_pref().map_err(failed("cublasLtMatmulPreferenceCreate"))?;
        let preference = Self(preference);
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &REDUCTIONS)?;
        Ok(preference)
    }

    fn set<T>(
        &self,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        value: &T,
    ) -> Result<(), DeviceError> {
        let value: *const T = value;
        // SAFETY: It is this preference, and the value, which is copied, is of the size that is said.
        let set =
            unsafe { result::set_matmul_pref_attribute(self.0, attribute, value.cast(), size_of::<T>()) };
        set.map_err(failed("cublasLtMatmulPreferenceSetAttribute"))
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: Nobody else has it.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

fn number_type(precision: Precision) -> sys::cudaDataType_t {
    match precision {
        Precision::Single => sys::cudaDataType_t::CUDA_R_32F,
        Precision::Half => sys::cudaDataType_t::CUDA_R_16F,
    }
}

pub(super) fn failed(call: &'static str) -> impl FnOnce(CublasError) -> DeviceError {
    move |error| DeviceError { call, reason: format!("{:?}", error.0) }
}

/// `CUBLAS_OP_T`.
const TRANSPOSED: i32 = 1;

/// `CUBLASLT_REDUCTION_SCHEME_INPLACE` and `CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE`, without the one of the output's type.
const REDUCTIONS: u32 = 1 | 2;

/// Ways that are asked for.
const CANDIDATES: usize = 16;

const HEURISTIC: &str = "cublasLtMatmulAlgoGetHeuristic";
