//! Backend primitives with methods and operators: wrappers of float, integer and boolean tensors.
//!
//! Burn's `Tensor` calls the dispatch layer. A backend extension has only the primitives and static
//! methods of its backend. This module wraps the few that the op needs, and does not check ranks.
//! Indices are integers throughout, because 16-bit floats represent integers exactly only up to 2048
//! (f16) or 256 (bf16).

use core::ops::{Add, Mul, Sub};

use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_device_settings};
use burn::tensor::{IndexingUpdateOp, Shape, Slice, TensorData, read_sync};

/// A float tensor primitive of backend `B`.
#[derive(Clone, Debug)]
pub(crate) struct Prim<B: Backend>(pub FloatTensor<B>);

impl<B: Backend> Prim<B> {
    pub fn dims<const D: usize>(&self) -> [usize; D] {
        self.0.shape().dims()
    }

    /// Zeros with the device and data type of `self`.
    pub fn zeros<const D: usize>(&self, dims: [usize; D]) -> Self {
        Self(B::float_zeros(Shape::from(dims), &self.0.device(), self.0.dtype().into()))
    }

    /// `[0, 1, .., n - 1]` on the device of `self`.
    pub fn iota(&self, n: usize) -> Ints<B> {
        let device = self.0.device();
        let dtype = get_device_settings::<B>(&device).int_dtype;
        Ints(B::int_arange(0..n as i64, &device, dtype))
    }

    /// A tensor filled with the integer `value`, on the device of `self`.
    pub fn integers<const D: usize>(&self, value: usize, dims: [usize; D]) -> Ints<B> {
        let device = self.0.device();
        let dtype = get_device_settings::<B>(&device).int_dtype;
        Ints(B::int_full(Shape::from(dims), (value as i64).into(), &device, dtype))
    }

    /// These integers, on the device of `self`.
    pub fn ints<const D: usize>(&self, values: Vec<i64>, dims: [usize; D]) -> Ints<B> {
        let device = self.0.device();
        let dtype = get_device_settings::<B>(&device).int_dtype;
        Ints(B::int_from_data(TensorData::new(values, dims).convert_dtype(dtype.into()), &device))
    }

    /// The elements in row-major order, on the host.
    ///
    /// # Panics
    ///
    /// If the backend fails to compute or to deliver them, as `Tensor::into_data` does.
    pub fn to_host(&self) -> Vec<f64> {
        let data = read_sync(B::float_into_data(self.0.clone()));
        data.expect("elements of a tensor").iter().collect()
    }

    pub fn reshape<const D: usize>(self, dims: [usize; D]) -> Self {
        Self(B::float_reshape(self.0, Shape::from(dims)))
    }

    pub fn expand<const D: usize>(self, dims: [usize; D]) -> Self {
        Self(B::float_expand(self.0, Shape::from(dims)))
    }

    pub fn swap(self, dim1: usize, dim2: usize) -> Self {
        Self(B::float_swap_dims(self.0, dim1, dim2))
    }

    /// The elements `start..end` along `dim`.
    pub fn narrow(&self, dim: usize, start: usize, end: usize) -> Self {
        Self(B::float_slice(self.0.clone(), &slices(&self.0.shape(), dim, start, end)))
    }

    /// Overwrites the elements `start..end` along `dim`.
    pub fn assign(self, dim: usize, start: usize, end: usize, value: Self) -> Self {
        let slices = slices(&self.0.shape(), dim, start, end);
        Self(B::float_slice_assign(self.0, &slices, value.0))
    }

    /// The rows `indices` of a matrix.
    pub fn rows(&self, indices: Ints<B>) -> Self {
        Self(B::float_select(self.0.clone(), 0, indices.0))
    }

    /// The elements `indices` `[b, n]` of each row of a matrix.
    pub fn gather(self, indices: Ints<B>) -> Self {
        Self(B::float_gather(1, self.0, indices.0))
    }

    /// Adds `value` to rows `indices` of a matrix.
    pub fn add_rows(self, indices: Ints<B>, value: Self) -> Self {
        Self(B::float_select_assign(self.0, 0, indices.0, value.0, IndexingUpdateOp::Add))
    }

    pub fn cat(parts: Vec<Self>, dim: usize) -> Self {
        Self(B::float_cat(parts.into_iter().map(|p| p.0).collect(), dim))
    }

    pub fn matmul(self, rhs: Self) -> Self {
        Self(B::float_matmul(self.0, rhs.0))
    }

    pub fn scale(self, factor: f64) -> Self {
        Self(B::float_mul_scalar(self.0, factor.into()))
    }

    /// [`scale`](Self::scale), without an operation if the factor is 1.
    pub fn scaled(self, factor: f64) -> Self {
        if factor == 1.0 { self } else { self.scale(factor) }
    }

    pub fn shift(self, term: f64) -> Self {
        Self(B::float_add_scalar(self.0, term.into()))
    }

    pub fn neg(self) -> Self {
        Self(B::float_neg(self.0))
    }

    pub fn recip(self) -> Self {
        Self(B::float_recip(self.0))
    }

    pub fn exp(self) -> Self {
        Self(B::float_exp(self.0))
    }

    pub fn tanh(self) -> Self {
        Self(B::float_tanh(self.0))
    }

    /// The logistic function, computed from tanh: Burn's default sigmoid computes in f32 for every data
    /// type.
    pub fn sigmoid(self) -> Self {
        self.scale(0.5).tanh().shift(1.0).scale(0.5)
    }

    /// The derivative of tanh from its value: `1 - self^2`.
    pub fn tanh_slope(self) -> Self {
        (self.clone() * self).neg().shift(1.0)
    }

    /// The derivative of the sigmoid from its value: `self (1 - self)`.
    pub fn sigmoid_slope(self) -> Self {
        self.clone() * self.neg().shift(1.0)
    }

    pub fn relu(self) -> Self {
        Self(B::relu(self.0))
    }

    /// One if an element is above zero, otherwise zero.
    pub fn positive(self) -> Self {
        let dtype = get_device_settings::<B>(&self.0.device()).bool_dtype;
        let float = self.0.dtype().into();
        Self(B::bool_into_float(B::float_greater_elem(self.0, 0.0.into(), dtype), float))
    }

    /// The mask of `self == other`, for equal shapes.
    pub fn equal(self, other: Self) -> Mask<B> {
        let dtype = get_device_settings::<B>(&self.0.device()).bool_dtype;
        Mask(B::float_equal(self.0, other.0, dtype))
    }

    /// The mask of NaN elements.
    pub fn nan_mask(self) -> Mask<B> {
        let dtype = get_device_settings::<B>(&self.0.device()).bool_dtype;
        Mask(B::float_is_nan(self.0, dtype))
    }

    /// Replaces the elements under the mask by `value`.
    pub fn fill(self, mask: Mask<B>, value: f64) -> Self {
        Self(B::float_mask_fill(self.0, mask.0, value.into()))
    }

    /// The sum along `dim`, which remains with size 1.
    pub fn sum(self, dim: usize) -> Self {
        Self(B::float_sum_dim(self.0, dim))
    }

    /// The maximum along `dim`, which remains with size 1.
    pub fn max(self, dim: usize) -> Self {
        Self(B::float_max_dim(self.0, dim))
    }
}

fn slices(shape: &Shape, dim: usize, start: usize, end: usize) -> Vec<Slice> {
    let mut slices: Vec<Slice> = (0..shape.num_dims()).map(|d| Slice::from(0..shape[d])).collect();
    slices[dim] = Slice::from(start..end);
    slices
}

/// A boolean tensor primitive of backend `B`.
#[derive(Clone, Debug)]
pub(crate) struct Mask<B: Backend>(BoolTensor<B>);

/// An integer tensor primitive of backend `B`.
#[derive(Clone, Debug)]
pub(crate) struct Ints<B: Backend>(pub IntTensor<B>);

impl<B: Backend> Ints<B> {
    pub fn dims<const D: usize>(&self) -> [usize; D] {
        self.0.shape().dims()
    }

    pub fn reshape<const D: usize>(self, dims: [usize; D]) -> Self {
        Self(B::int_reshape(self.0, Shape::from(dims)))
    }

    pub fn expand<const D: usize>(self, dims: [usize; D]) -> Self {
        Self(B::int_expand(self.0, Shape::from(dims)))
    }

    /// The elements `start..end` along `dim`.
    pub fn narrow(&self, dim: usize, start: usize, end: usize) -> Self {
        Self(B::int_slice(self.0.clone(), &slices(&self.0.shape(), dim, start, end)))
    }

    /// Overwrites the elements `start..end` along `dim`.
    pub fn assign(self, dim: usize, start: usize, end: usize, value: Self) -> Self {
        let slices = slices(&self.0.shape(), dim, start, end);
        Self(B::int_slice_assign(self.0, &slices, value.0))
    }

    pub fn cat(parts: Vec<Self>, dim: usize) -> Self {
        Self(B::int_cat(parts.into_iter().map(|p| p.0).collect(), dim))
    }

    pub fn scale(self, factor: usize) -> Self {
        Self(B::int_mul_scalar(self.0, (factor as i64).into()))
    }

    /// Returns the remainder of a division by `divisor`.
    pub fn remainder(self, divisor: usize) -> Self {
        Self(B::int_remainder_scalar(self.0, (divisor as i64).into()))
    }

    /// The mask of `self == other`, for equal shapes.
    pub fn equal(self, other: Self) -> Mask<B> {
        let dtype = get_device_settings::<B>(&self.0.device()).bool_dtype;
        Mask(B::int_equal(self.0, other.0, dtype))
    }

    /// Replaces the elements under the mask by `value`.
    pub fn fill(self, mask: Mask<B>, value: usize) -> Self {
        Self(B::int_mask_fill(self.0, mask.0, (value as i64).into()))
    }

    /// Replaces the elements under the mask by those of `values`.
    pub fn replace(self, mask: Mask<B>, values: Self) -> Self {
        Self(B::int_mask_where(self.0, mask.0, values.0))
    }

    /// The minimum along `dim`, which remains with size 1.
    pub fn min(self, dim: usize) -> Self {
        Self(B::int_min_dim(self.0, dim))
    }
}

impl<B: Backend> Add for Ints<B> {
    type Output = Self;
    fn add(self, rhs: Self) -> Self {
        Self(B::int_add(self.0, rhs.0))
    }
}

impl<B: Backend> Add for Prim<B> {
    type Output = Self;
    fn add(self, rhs: Self) -> Self {
        Self(B::float_add(self.0, rhs.0))
    }
}

impl<B: Backend> Sub for Prim<B> {
    type Output = Self;
    fn sub(self, rhs: Self) -> Self {
        Self(B::float_sub(self.0, rhs.0))
    }
}

impl<B: Backend> Mul for Prim<B> {
    type Output = Self;
    fn mul(self, rhs: Self) -> Self {
        Self(B::float_mul(self.0, rhs.0))
    }
}
