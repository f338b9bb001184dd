//! The root of a second crate: netd's readers of outside bytes alone, for the fuzz targets in `fuzz/`, which would
//! otherwise build the whole daemon with instrumentation. Nothing of the daemon refers to this file.
#![allow(dead_code, missing_docs, unused_imports)] // the daemon uses the rest

pub mod dns {
    pub mod answer;
    pub mod cache;
    #[path = "../../../contracts/src/nameserver.rs"]
    pub mod nameserver;
    pub mod resolvconf;
    pub mod services;
    pub mod wire;
    pub mod zone;
}

pub mod driver {
    pub mod cni {
        pub type Object = serde_json::Map<String, serde_json::Value>;
        pub const PATH_OPTION: &str = "plugin-path";
        pub mod list;
    }
}
