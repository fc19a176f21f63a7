//! The Rust of the book, compiled as documentation tests. It is here because this crate has all features that the pages
//! use. A page with Rust that is not here fails the step `documents` of `.ci/run`. A block marked `rs` is not compiled here:
//! it needs the features of a remote server, and the example `remote` makes its calls.

macro_rules! pages {
    ($($name:ident: $file:literal,)*) => {$(
        #[doc = include_str!(concat!("../../../docs/src/", $file))]
        mod $name {}
    )*};
}

pages! {
    data_parallel: "data-parallel.md",
    devices: "devices.md",
    getting_started: "getting-started.md",
    layer: "layer.md",
    migration: "migration.md",
    on_gpu: "on-gpu.md",
    padding: "padding.md",
    retrieval: "retrieval.md",
    stacks: "stacks.md",
    streams: "streams.md",
    weights: "weights.md",
}
