//! A thin handle that lets backend primitives be written as arithmetic.
//!
//! Burn's `Tensor` speaks to the dispatch layer; inside a backend extension only the backend's own
//! primitives and its static methods exist. This wraps the few that the op needs, ranks unchecked.

use core::ops::{Add, Mul, Sub};

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_device_settings};
use burn::tensor::{IndexingUpdateOp, Shape, Slice};

/// A float tensor primitive of backend `B`.
#[derive(Clone, Debug)]
pub(crate) struct Prim<B: Backend>(pub FloatTensor<B>);

impl<B: Backend> Prim<B> {
    pub fn dims<const D: usize>(&self) -> [usize; D] {
        self.0.shape().dims()
    }

    /// Zeros on the device and in the data type of `self`.
    pub fn zeros<const D: usize>(&self, dims: [usize; D]) -> Self {
        Self(B::float_zeros(Shape::from(dims), &self.0.device(), self.0.dtype().into()))
    }

    /// `[0, 1, .., n - 1]` as floats, on the device and in the data type of `self`.
    pub fn iota(&self, n: usize) -> Self {
        let device = self.0.device();
        let ints = B::int_arange(0..n as i64, &device, get_device_settings::<B>(&device).int_dtype);
        Self(B::int_into_float(ints, self.0.dtype().into()))
    }

    pub fn to_int(&self) -> IntTensor<B> {
        let dtype = get_device_settings::<B>(&self.0.device()).int_dtype;
        B::float_into_int(self.0.clone(), dtype)
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

    /// `start..end` along `dim`.
    pub fn narrow(&self, dim: usize, start: usize, end: usize) -> Self {
        Self(B::float_slice(self.0.clone(), &self.slices(dim, start, end)))
    }

    /// Overwrites `start..end` along `dim`.
    pub fn assign(self, dim: usize, start: usize, end: usize, value: Self) -> Self {
        let slices = self.slices(dim, start, end);
        Self(B::float_slice_assign(self.0, &slices, value.0))
    }

    fn slices(&self, dim: usize, start: usize, end: usize) -> Vec<Slice> {
        let shape = self.0.shape();
        let mut slices: Vec<Slice> =
            (0..shape.num_dims()).map(|d| Slice::from(0..shape[d])).collect();
        slices[dim] = Slice::from(start..end);
        slices
    }

    /// Rows `indices` of a matrix.
    pub fn rows(&self, indices: IntTensor<B>) -> Self {
        Self(B::float_select(self.0.clone(), 0, indices))
    }

    /// Adds `value` to rows `indices` of a matrix.
    pub fn add_rows(self, indices: IntTensor<B>, value: Self) -> Self {
        Self(B::float_select_assign(self.0, 0, indices, value.0, IndexingUpdateOp::Add))
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

    /// [`scale`](Self::scale) without an operation where the factor is 1.
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

    /// By way of tanh: Burn's default sigmoid computes in f32 whatever the data type is.
    pub fn sigmoid(self) -> Self {
        self.scale(0.5).tanh().shift(1.0).scale(0.5)
    }

    /// `1 - self^2`: the derivative of tanh from its value.
    pub fn tanh_slope(self) -> Self {
        (self.clone() * self).neg().shift(1.0)
    }

    /// `self (1 - self)`: the derivative of the sigmoid from its value.
    pub fn sigmoid_slope(self) -> Self {
        self.clone() * self.neg().shift(1.0)
    }

    pub fn relu(self) -> Self {
        Self(B::relu(self.0))
    }

    /// One where `self` is above zero, zero elsewhere.
    pub fn positive(self) -> Self {
        let dtype = get_device_settings::<B>(&self.0.device()).bool_dtype;
        let float = self.0.dtype().into();
        Self(B::bool_into_float(B::float_greater_elem(self.0, 0.0.into(), dtype), float))
    }

    /// `value` where `self == other` (same shape), `otherwise` elsewhere.
    pub fn select_equal(self, other: Self, value: Self, otherwise: Self) -> Self {
        let dtype = get_device_settings::<B>(&self.0.device()).bool_dtype;
        let mask = B::float_equal(self.0, other.0, dtype);
        Self(B::float_mask_where(otherwise.0, mask, value.0))
    }

    /// `value` where `self == other` (same shape), `self_value` elsewhere.
    pub fn fill_equal(self, index: Self, other: Self, value: f64) -> Self {
        let dtype = get_device_settings::<B>(&self.0.device()).bool_dtype;
        let mask = B::float_equal(index.0, other.0, dtype);
        Self(B::float_mask_fill(self.0, mask, value.into()))
    }

    pub fn clamp_max(self, max: f64) -> Self {
        Self(B::float_clamp_max(self.0, max.into()))
    }

    /// Sum along `dim`, which stays with size 1.
    pub fn sum(self, dim: usize) -> Self {
        Self(B::float_sum_dim(self.0, dim))
    }

    /// Largest along `dim`, which stays with size 1.
    pub fn max(self, dim: usize) -> Self {
        Self(B::float_max_dim(self.0, dim))
    }

    /// Smallest along `dim`, which stays with size 1.
    pub fn min(self, dim: usize) -> Self {
        Self(B::float_min_dim(self.0, dim))
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
