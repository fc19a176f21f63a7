//! The backends of Burn that compute.

use burn::tensor::Device;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::error::usage;
use crate::values::name;

/// A backend of Burn. The cargo features of the same names decide which ones a build has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Burn's portable CPU backend
    Flex,
    /// Burn's older CPU backend, gone in Burn 0.23
    Ndarray,
    /// Any GPU, the graphics interface chosen by wgpu
    Wgpu,
    /// A GPU through Vulkan
    Vulkan,
    /// A GPU through Metal
    Metal,
    /// A GPU through WebGPU
    Webgpu,
    /// A GPU through CUDA
    Cuda,
    /// A GPU through ROCm
    Rocm,
    /// The CPU through CubeCL
    Cpu,
    /// LibTorch on the CPU
    Tch,
}

impl Backend {
    /// Returns whether this build has the backend.
    pub fn is_compiled(self) -> bool {
        match self {
            Self::Flex => cfg!(feature = "flex"),
            Self::Ndarray => cfg!(feature = "ndarray"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Webgpu => cfg!(feature = "webgpu"),
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Rocm => cfg!(feature = "rocm"),
            Self::Cpu => cfg!(feature = "cpu"),
            Self::Tch => cfg!(feature = "tch"),
        }
    }

    /// Returns whether the backend computes on a GPU, or on a software adapter in its place.
    pub fn is_gpu(self) -> bool {
        use Backend::{Cuda, Metal, Rocm, Vulkan, Webgpu, Wgpu};
        matches!(self, Wgpu | Vulkan | Metal | Webgpu | Cuda | Rocm)
    }

    /// Returns the backend that is used when none is asked for: the first that this build has.
    ///
    /// # Errors
    ///
    /// If this build has no backend.
    pub fn preferred() -> anyhow::Result<Self> {
        let mut compiled = Self::value_variants().iter().filter(|backend| backend.is_compiled());
        compiled.next().copied().ok_or_else(|| {
            usage!(
                "this build has no backend; build it with a cargo feature such as `--features flex`"
            )
        })
    }

    /// Returns the backend's name, which is also that of its cargo feature.
    pub fn name(self) -> String {
        name(self)
    }

    /// Returns the backend's default device, without autodiff.
    ///
    /// # Errors
    ///
    /// If the build does not have the backend, or if there is no such device.
    pub fn device(self) -> anyhow::Result<Device> {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => Ok(Device::flex()),
            #[cfg(feature = "ndarray")]
            // Deprecated in favour of flex, and still half of the CPUs this program promises to serve.
            #[allow(deprecated)]
            Self::Ndarray => Ok(Device::ndarray()),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => wgpu::device(None),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => wgpu::device(Some(wgpu::Api::Vulkan)),
            #[cfg(feature = "metal")]
            Self::Metal => wgpu::device(Some(wgpu::Api::Metal)),
            #[cfg(feature = "webgpu")]
            Self::Webgpu => wgpu::device(Some(wgpu::Api::WebGpu)),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(Device::cuda(0usize)),
            #[cfg(feature = "rocm")]
            Self::Rocm => Ok(Device::rocm(0usize)),
            #[cfg(feature = "cpu")]
            Self::Cpu => Ok(Device::cpu()),
            #[cfg(feature = "tch")]
            // Deprecated, but there for those who have it.
            #[allow(deprecated)]
            Self::Tch => Ok(Device::libtorch()),
            #[allow(unreachable_patterns)] // with every feature on
            _ => Err(self.not_compiled()),
        }
    }

    /// Makes this backend the one behind `Device::default()`, which Burn uses to read an optimiser's
    /// state: its own choice may be a GPU that this machine does not have.
    pub fn make_default(self) {
        // SAFETY: the program calls this before it starts any other thread, so none reads the
        // environment at the same time.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var("BURN_DEVICE", self.name());
        }
    }

    fn not_compiled(self) -> anyhow::Error {
        let compiled: Vec<String> = Self::value_variants()
            .iter()
            .filter(|backend| backend.is_compiled())
            .map(|backend| backend.name())
            .collect();
        usage!(
            "this build does not have the backend {0}; it has {1}; add `--features {0}` to the cargo \
             command to get it",
            self.name(),
            compiled.join(", "),
        )
    }
}

/// Whether Burn's own SIMD and threads are compiled in (cargo feature `simd`). The layer's CPU kernel has its own.
pub const BURN_SIMD: bool = cfg!(feature = "simd");

/// Returns the name of a GPU, as its driver gives it; `None` for other devices.
#[cfg(feature = "gpu")]
pub fn device_name(device: &Device) -> Option<String> {
    device.identity().map(|identity| identity.name)
}

/// Returns `None`: this build has no GPU backend.
#[cfg(not(feature = "gpu"))]
pub fn device_name(_: &Device) -> Option<String> {
    None
}

#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "webgpu"))]
mod wgpu {
    use burn::tensor::Device;
    pub use burn::tensor::wgpu::WgpuBackend as Api;

    /// The default adapter. Asking for it here gives an error that can be told; a missing driver would
    /// otherwise be a panic at the first use.
    pub fn device(api: Option<Api>) -> anyhow::Result<Device> {
        let options = Device::wgpu_options();
        let options = match api {
            Some(api) => options.graphics_api(api),
            None => options,
        };
        options.init().map_err(|error| {
            anyhow::anyhow!(
                "there is no GPU that wgpu can use ({error}); install a Vulkan driver (on Debian and Ubuntu \
                 mesa-vulkan-drivers has one that runs on the CPU) or take --backend flex"
            )
        })
    }
}
