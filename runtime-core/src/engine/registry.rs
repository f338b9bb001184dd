//! Containers by id and name. Names are reserved before anything is made, in one step with the check that they are free.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use davit_contracts::id::check_name;

use super::names::generate;
use crate::container::handle::Handle;
use crate::error::RuntimeError;
use crate::nearest::nearest;
use crate::spec::userns::{self, Range};

/// What no container's name begins with.
const POD: &str = "pod:";

fn pod_key(name: &str) -> String {
    format!("{POD}{name}")
}

/// The index. Never held over an await.
#[derive(Debug, Default)]
pub struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: BTreeMap<String, Handle>,
    /// Also those of containers that are being made.
    names: HashMap<String, String>,
    /// Ids of the host that containers have, until nothing is left of them.
    ids: HashMap<String, Vec<Range>>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a name for an id; an empty one is generated. Answers the name.
    pub fn reserve(&self, name: &str, id: &str) -> Result<String, RuntimeError> {
        let mut inner = self.lock();
        let name = if name.is_empty() {
            let mut attempt = 0;
            loop {
                let name = generate(attempt);
                if !inner.names.contains_key(&name) {
                    break name;
                }
                attempt += 1;
            }
        } else {
            let name = name.strip_prefix('/').unwrap_or(name);
            check_name(name)?;
            name.to_owned()
        };
        inner.take(&name, id)?;
        Ok(name)
    }

    /// Reserves `size` ids of the host that no other container has.
    pub fn allocate_ids(&self, id: &str, pool: Range, size: u32) -> Result<Range, RuntimeError> {
        let mut inner = self.lock();
        let taken: Vec<Range> = inner.ids.values().flatten().copied().collect();
        let range = userns::allocate(pool, &taken, size).ok_or_else(|| {
            RuntimeError::Invalid(format!(
                "no {size} user ids are free between {} and {}: remove containers with --userns=auto, or see [userns] in runtimed.toml",
                pool.start,
                u64::from(pool.start) + u64::from(pool.count) - 1
            ))
        })?;
        inner.ids.insert(id.to_owned(), vec![range]);
        Ok(range)
    }

    /// Notes the ids that a container has already, or shares with another.
    pub fn hold_ids(&self, id: &str, ranges: Vec<Range>) {
        if !ranges.is_empty() {
            self.lock().ids.insert(id.to_owned(), ranges);
        }
    }

    /// Nothing with these ids is left.
    pub fn free_ids(&self, id: &str) {
        self.lock().ids.remove(id);
    }

    /// Reserves a name for a pod, whose id is its infra container's; an empty one is generated. Pods have names of their own.
    pub fn reserve_pod(&self, name: &str, id: &str) -> Result<String, RuntimeError> {
        let mut inner = self.lock();
        let free = |name: &String| !inner.names.contains_key(&pod_key(name));
        let name = if name.is_empty() {
            (0..u32::MAX).map(generate).find(free).expect("there are fewer pods")
        } else {
            check_name(name)?;
            name.to_owned()
        };
        if let Some(holder) = inner.names.get(&pod_key(&name)) {
            return Err(RuntimeError::PodNameInUse { name, holder: holder.clone() });
        }
        inner.names.insert(pod_key(&name), id.to_owned());
        Ok(name)
    }

    /// The infra container of a pod, by its name, its id or an unambiguous beginning of it.
    pub fn find_pod(&self, text: &str) -> Result<Handle, RuntimeError> {
        let inner = self.lock();
        let pods = || inner.names.iter().filter_map(|(key, id)| Some((key.strip_prefix(POD)?, id)));
        if let Some(handle) = inner.names.get(&pod_key(text)).and_then(|id| inner.by_id.get(id)) {
            return Ok(handle.clone());
        }
        let mut beginning = pods().filter(|(_, id)| !text.is_empty() && id.starts_with(text));
        match (beginning.next().and_then(|(_, id)| inner.by_id.get(id)), beginning.next()) {
            (Some(handle), None) => Ok(handle.clone()),
            (Some(_), Some(_)) => Err(RuntimeError::Ambiguous(text.to_owned())),
            (None, _) => {
                let near = nearest(text, pods().map(|(name, _)| name));
                Err(RuntimeError::NoPod { name: text.to_owned(), nearest: near })
            }
        }
    }

    /// Makes a container visible; its name is reserved already.
    pub fn insert(&self, handle: Handle) {
        self.lock().by_id.insert(handle.id.clone(), handle);
    }

    /// Forgets a container and frees its name (also one that was only reserved).
    pub fn remove(&self, id: &str) {
        let mut inner = self.lock();
        inner.by_id.remove(id);
        inner.names.retain(|_, holder| holder != id);
    }

    /// Gives a container another name.
    pub fn rename(&self, id: &str, name: &str) -> Result<String, RuntimeError> {
        let name = name.strip_prefix('/').unwrap_or(name);
        check_name(name)?;
        let mut inner = self.lock();
        inner.take(name, id)?;
        inner.names.retain(|n, holder| holder != id || n == name || n.starts_with(POD));
        Ok(name.to_owned())
    }

    /// By full id, name, or unambiguous beginning of an id.
    pub fn find(&self, text: &str) -> Result<Handle, RuntimeError> {
        let inner = self.lock();
        let text = text.strip_prefix('/').unwrap_or(text);
        if let Some(handle) = inner.by_id.get(text) {
            return Ok(handle.clone());
        }
        if let Some(handle) = inner.names.get(text).and_then(|id| inner.by_id.get(id)) {
            return Ok(handle.clone());
        }
        if !text.is_empty() {
            let mut beginning = inner
                .by_id
                .range(text.to_owned()..)
                .take_while(|(id, _)| id.starts_with(text))
                .map(|(_, h)| h);
            match (beginning.next(), beginning.next()) {
                (Some(handle), None) => return Ok(handle.clone()),
                (Some(_), Some(_)) => return Err(RuntimeError::Ambiguous(text.to_owned())),
                (None, _) => {}
            }
        }
        let near = nearest(text, inner.names.keys().map(String::as_str).filter(|n| !n.starts_with(POD)));
        Err(RuntimeError::NoContainer { name: text.to_owned(), nearest: near })
    }

    /// A link (`container:alias`) to a container that must exist. One named by its id is named by the short one from here
    /// on, which resolves on its networks as its name does.
    pub fn link(&self, text: &str) -> Result<String, RuntimeError> {
        let (name, alias) = text.split_once(':').unwrap_or((text, text));
        let (name, alias) =
            (name.strip_prefix('/').unwrap_or(name), alias.strip_prefix('/').unwrap_or(alias));
        let handle = self.find(name)?;
        let by_name = self.lock().names.contains_key(name);
        Ok(format!("{}:{alias}", if by_name { name } else { &handle.id[..12] }))
    }

    /// All of them.
    pub fn all(&self) -> Vec<Handle> {
        self.lock().by_id.values().cloned().collect()
    }

    /// Whether an id is of a container, also of one that is being made.
    pub fn knows(&self, id: &str) -> bool {
        let inner = self.lock();
        inner.by_id.contains_key(id) || inner.names.values().any(|holder| holder == id)
    }
}

impl Inner {
    fn take(&mut self, name: &str, id: &str) -> Result<(), RuntimeError> {
        if let Some(holder) = self.names.get(name) {
            return Err(RuntimeError::NameInUse { name: name.to_owned(), holder: holder.clone() });
        }
        self.names.insert(name.to_owned(), id.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(ids: &[(&str, &str)]) -> Registry {
        let r = Registry::default();
        for (id, name) in ids {
            r.reserve(name, id).unwrap();
            r.insert(Handle::detached(id));
        }
        r
    }

    #[test]
    fn names_are_unique_and_freed() {
        let r = with(&[("aa11", "web")]);
        let e = r.reserve("web", "bb").unwrap_err().to_string();
        assert!(
            e.starts_with("Conflict. The container name \"/web\" is already in use by container \"aa11\""),
            "{e}"
        );
        assert!(r.reserve("/we b", "bb").is_err());
        assert!(!r.reserve("", "cc").unwrap().is_empty());
        r.remove("aa11");
        assert!(!r.knows("aa11"));
        r.reserve("web", "bb").unwrap();
        assert!(r.knows("bb"), "a reserved one is known before it is visible");
    }

    #[test]
    fn containers_are_found_by_id_name_and_beginning() {
        let r = with(&[("aa11", "web"), ("aa22", "db"), ("bb33", "aa")]);
        assert_eq!(r.find("web").unwrap().id, "aa11");
        assert_eq!(r.find("/db").unwrap().id, "aa22");
        assert_eq!(r.find("aa").unwrap().id, "bb33", "a name goes before a beginning");
        assert_eq!(r.find("aa1").unwrap().id, "aa11");
        assert!(matches!(r.find("a"), Err(RuntimeError::Ambiguous(_))));
        assert!(matches!(r.find(""), Err(RuntimeError::NoContainer { .. })));
        let Err(RuntimeError::NoContainer { nearest, .. }) = r.find("wbe") else { panic!() };
        assert_eq!(nearest, ["web"]);
    }

    #[test]
    fn pods_have_names_of_their_own() {
        let r = with(&[("aa11", "web"), ("bb22", "bb22-infra")]);
        assert_eq!(r.reserve_pod("web", "bb22").unwrap(), "web");
        assert!(matches!(r.reserve_pod("web", "cc"), Err(RuntimeError::PodNameInUse { .. })));
        assert_eq!(
            (r.find("web").unwrap().id.as_str(), r.find_pod("web").unwrap().id.as_str()),
            ("aa11", "bb22")
        );
        assert_eq!(r.find_pod("bb").unwrap().id, "bb22");
        let Err(RuntimeError::NoPod { nearest, .. }) = r.find_pod("wbe") else { panic!() };
        assert_eq!(nearest, ["web"]);
        assert!(r.find_pod("aa11").is_err(), "a container is no pod");
        r.remove("bb22");
        r.reserve_pod("web", "cc").unwrap();
    }

    #[test]
    fn renaming_frees_the_old_name() {
        let r = with(&[("aa11", "web"), ("bb", "db")]);
        assert!(r.rename("aa11", "db").is_err());
        r.rename("aa11", "front").unwrap();
        assert_eq!(r.find("front").unwrap().id, "aa11");
        assert!(r.find("web").is_err());
    }
}
