//! `--device`: names to Burn devices.

use std::panic::catch_unwind;

use burn::prelude::Device;
use burn::tensor::DeviceType;

use crate::failure::Failure;

/// A backend of this program, best first.
struct Backend {
    name: &'static str,
    compiled: bool,
    kind: Option<DeviceType>,
}

fn backends() -> Vec<Backend> {
    vec![
        Backend {
            name: "cuda",
            compiled: cfg!(feature = "cuda"),
            #[cfg(feature = "cuda")]
            kind: Some(DeviceType::Cuda),
            #[cfg(not(feature = "cuda"))]
            kind: None,
        },
        Backend {
            name: "rocm",
            compiled: cfg!(feature = "rocm"),
            #[cfg(feature = "rocm")]
            kind: Some(DeviceType::Rocm),
            #[cfg(not(feature = "rocm"))]
            kind: None,
        },
        Backend {
            name: "metal",
            compiled: cfg!(feature = "metal"),
            #[cfg(feature = "metal")]
            kind: Some(DeviceType::Metal),
            #[cfg(not(feature = "metal"))]
            kind: None,
        },
        Backend {
            name: "vulkan",
            compiled: cfg!(feature = "vulkan"),
            #[cfg(feature = "vulkan")]
            kind: Some(DeviceType::Vulkan),
            #[cfg(not(feature = "vulkan"))]
            kind: None,
        },
        Backend {
            name: "cpu",
            compiled: true,
            kind: Some(DeviceType::Flex),
        },
    ]
}

/// A device that answers.
pub struct Found {
    /// As `--device` takes it.
    pub name: String,
    /// The device.
    pub device: Device,
}

/// Every device that answers, best first; a program that imitates a GPU comes after the CPU. A
/// backend whose driver is missing panics inside; that counts as no answer.
pub fn all() -> Vec<Found> {
    let mut found = Vec::new();
    for backend in backends() {
        let Some(kind) = backend.kind else { continue };
        if backend.name == "cpu" {
            found.push(Found {
                name: "cpu".into(),
                device: Device::flex(),
            });
            continue;
        }
        let devices = quietly(move || {
            Device::enumerate(kind)
                .iter()
                .cloned()
                .collect::<Vec<Device>>()
        });
        for (i, device) in devices.unwrap_or_default().into_iter().enumerate() {
            found.push(Found {
                name: format!("{}:{i}", backend.name),
                device,
            });
        }
    }
    found.sort_by_key(|found| imitates_gpu(&found.device));
    found
}

/// Whether a device is a Vulkan driver that runs on the processor, such as Mesa's lavapipe: far
/// slower than the CPU backend, and of use only to who names it.
#[cfg(feature = "vulkan")]
fn imitates_gpu(device: &Device) -> bool {
    *device == Device::vulkan(burn::tensor::DeviceKind::Cpu)
}

#[cfg(not(feature = "vulkan"))]
fn imitates_gpu(_: &Device) -> bool {
    false
}

/// Runs something that may panic, without its message on standard error.
fn quietly<T>(run: impl FnOnce() -> T + std::panic::UnwindSafe) -> Option<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(run);
    std::panic::set_hook(hook);
    result.ok()
}

/// Backends that were compiled in, and those that were not.
pub fn compiled() -> (Vec<&'static str>, Vec<&'static str>) {
    let (yes, no): (Vec<_>, Vec<_>) = backends().into_iter().partition(|b| b.compiled);
    (
        yes.iter().map(|b| b.name).collect(),
        no.iter().map(|b| b.name).collect(),
    )
}

/// The devices that training may use: one if the name says which, else all of that kind.
pub fn of_kind(name: &str) -> Result<Vec<Device>, Failure> {
    let first = find(name)?;
    if name.contains(':') || first.name == "cpu" {
        return Ok(vec![first.device]);
    }
    let kind = |name: &str| name.split(':').next().map(str::to_owned);
    let wanted = kind(&first.name);
    let same = all()
        .into_iter()
        .filter(|found| kind(&found.name) == wanted);
    Ok(same.map(|found| found.device).collect())
}

/// Finds the device that a name means: `auto`, `cpu`, `cuda`, `cuda:1`, …
pub fn find(name: &str) -> Result<Found, Failure> {
    if name == "cpu" {
        return Ok(Found {
            name: "cpu".into(),
            device: Device::flex(),
        });
    }
    if name == "auto" {
        return all()
            .into_iter()
            .next()
            .ok_or_else(|| Failure::new("no device answers, not even the CPU"));
    }
    let (backend, index) = match name.split_once(':') {
        Some((backend, index)) => (backend, index.parse::<usize>().ok()),
        None => (name, Some(0)),
    };
    let known = backends();
    let names: Vec<&str> = known.iter().map(|b| b.name).collect();
    let Some(entry) = known.iter().find(|b| b.name == backend) else {
        return Err(
            Failure::new(format!("no device is called `{name}`")).hint(format!(
                "use auto, or one of {}; `cuda:1` is the second CUDA device",
                names.join(", ")
            )),
        );
    };
    let Some(index) = index else {
        return Err(Failure::new(format!("`{name}` does not say which device"))
            .hint(format!("write `{backend}` or `{backend}:0`")));
    };
    if !entry.compiled {
        return Err(
            Failure::new(format!("this program was built without {backend}")).hint(format!(
                "build it with `cargo build --release --features {backend}`"
            )),
        );
    }
    let wanted = format!("{backend}:{index}");
    let found = all().into_iter().find(|found| found.name == wanted);
    found.ok_or_else(|| {
        Failure::new(format!("no device answers as `{wanted}`"))
            .hint("`opabinia doctor` lists the devices and says what is wrong")
    })
}
