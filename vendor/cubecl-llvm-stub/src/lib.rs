//! Stand-in for `cubecl-llvm` 0.11.3: the names that the CUDA and ROCm runtimes of CubeCL mention,
//! without LLVM behind them.
//!
//! CubeCL compiles a GPU kernel in one of two ways: through LLVM, or as C++ source that the
//! vendor's own compiler (NVRTC, HIP RTC) turns into machine code at run time. Which one is used is
//! a Cargo feature (`cuda-cpp`, `hip-cpp`), but the LLVM way is compiled and linked in any case, and
//! its build script downloads a prebuilt LLVM of several hundred megabytes. This crate lets the C++
//! way be built from the crate registry alone.
//!
//! The types say that there is nothing behind them: the results of a compilation hold an
//! [`Infallible`], so none can exist, and [`PlironCompiler::compile`](Compiler::compile) always
//! answers with an error that says what to do. Every item has the path and the fields that the
//! runtimes use, and no others.
//!
//! It can go as soon as `cubecl-cuda` and `cubecl-hip` make `cubecl-llvm` an optional dependency:
//! delete this folder and the `[patch.crates-io]` entry.

use core::convert::Infallible;
use core::fmt;

use cubecl_core::environment::backtrace::BackTrace;
use cubecl_core::ir::amd::GfxArch;
use cubecl_core::ir::attributes::BufferIOAttr;
#[cfg(feature = "nvptx")]
use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::prelude::KernelDefinition;
use cubecl_core::{CompilationError, Compiler};

/// The processor family that LLVM would generate code for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlvmTarget {
    /// AMD GPUs.
    #[cfg(feature = "amdgpu")]
    AmdGpu,
    /// NVIDIA GPUs.
    #[cfg(feature = "nvptx")]
    Nvptx,
}

/// A compiler that refuses every kernel.
#[derive(Clone, Debug)]
pub struct PlironCompiler {
    /// What the runtime asked for; named in the refusal.
    pub target: LlvmTarget,
}

/// Options of the LLVM way; accepted and not read.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// AMD architecture.
    pub arch: Option<GfxArch>,
    /// NVIDIA architecture.
    #[cfg(feature = "nvptx")]
    pub sm_arch: Option<SmArch>,
    /// Version of the PTX text.
    #[cfg(feature = "nvptx")]
    pub ptx_version: Option<nvptx::ptx_version::PtxVersion>,
    /// Whether scalars travel in the kernel's parameter block.
    pub grid_constants: bool,
}

/// A compiled NVIDIA kernel; no value of it exists.
#[cfg(feature = "nvptx")]
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX text, ending in NUL.
    pub ptx: Vec<core::ffi::c_char>,
    /// LLVM's intermediate text.
    pub ir: String,
    /// Shared memory that a launch needs, in bytes.
    pub shared_memory_size: usize,
    /// What the kernel does with each buffer, in binding order.
    pub io: Vec<BufferIOAttr>,
    /// Keeps the type empty.
    pub never: Infallible,
}

/// A compiled AMD kernel; no value of it exists.
#[cfg(feature = "amdgpu")]
#[derive(Clone, Debug)]
pub struct AmdGpuModule {
    /// The code object, ready to load.
    pub code_object: Vec<u8>,
    /// LLVM's intermediate text.
    pub ir: String,
    /// Shared memory that a launch needs, in bytes.
    pub shared_memory_size: usize,
    /// What the kernel does with each buffer, in binding order.
    pub io: Vec<BufferIOAttr>,
    /// Keeps the type empty.
    pub never: Infallible,
}

/// What a compilation yields; no value of it exists.
#[derive(Clone, Debug)]
pub enum PlironArtifact {
    /// For AMD GPUs.
    #[cfg(feature = "amdgpu")]
    AmdGpuCode(AmdGpuModule),
    /// For NVIDIA GPUs.
    #[cfg(feature = "nvptx")]
    NvptxCode(NvptxModule),
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            #[cfg(feature = "amdgpu")]
            PlironArtifact::AmdGpuCode(ref module) => match module.never {},
            #[cfg(feature = "nvptx")]
            PlironArtifact::NvptxCode(ref module) => match module.never {},
        }
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    /// # Errors
    /// Always: this build has no LLVM.
    fn compile(
        &mut self,
        kernel: KernelDefinition,
        _: &PlironOptions,
    ) -> Result<PlironArtifact, CompilationError> {
        Err(CompilationError::Generic {
            reason: format!(
                "kernel `{}` was to be compiled for {:?} by LLVM, which this program was built \
                 without; build it with the feature `cuda-cpp` or `hip-cpp` of the crate cubecl, \
                 so that kernels are compiled from C++",
                kernel.settings.kernel_name, self.target
            ),
            backtrace: BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}

/// Names that only the NVIDIA runtime mentions.
#[cfg(feature = "nvptx")]
pub mod nvptx {
    /// The version of the PTX text that LLVM would write.
    pub mod ptx_version {
        use core::fmt;

        /// A version of PTX; no value of it exists.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum PtxVersion {}

        impl PtxVersion {
            /// The newest version that a driver loads: none, as nothing writes PTX here.
            pub fn for_driver(_driver: i32) -> Option<Self> {
                None
            }
        }

        impl fmt::Display for PtxVersion {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {}
            }
        }
    }
}

/// Names that both runtimes mention.
pub mod shared {
    /// What a device can do, narrowed to what LLVM has instructions for.
    pub mod lowered_features {
        use cubecl_core::ir::DeviceProperties;
        #[cfg(feature = "amdgpu")]
        use cubecl_core::ir::amd::AmdWmma;

        /// Whose abilities are narrowed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GpuTarget {
            /// An AMD GPU.
            #[cfg(feature = "amdgpu")]
            AmdGpu {
                /// Generation of its matrix instructions, if it has any.
                wmma: Option<AmdWmma>,
            },
            /// An NVIDIA GPU.
            #[cfg(feature = "nvptx")]
            Nvptx,
        }

        /// Leaves the abilities as they are. The runtimes call it only when kernels are to go
        /// through LLVM, and then the first kernel is refused before an ability matters.
        pub fn restrict_features(_: &mut DeviceProperties, _: GpuTarget) {}
    }
}
