//! A real folder, changed as people and programs change folders. A wait here ends when what is waited for
//! is seen; a time limit only keeps a broken test from hanging.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use registry::Resolved;
use tempfile::TempDir;

use super::*;

struct World {
    dir: TempDir,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    handle: Handle,
}

impl World {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in files {
            fs::write(dir.path().join(name), text).expect("a file");
        }
        let (snapshots, handle) = start_manifests(dir.path().to_owned(), None).expect("a source");
        Self {
            dir,
            snapshots,
            handle,
        }
    }

    /// Of an owner that may end soon.
    fn brief() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (snapshots, handle) = start_manifests_briefly(dir.path().to_owned(), None).expect("a source");
        Self {
            dir,
            snapshots,
            handle,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    fn now(&self, name: &str) -> String {
        vip(&self.snapshots.borrow(), name)
    }

    /// Waits until a service has that address; `none` until it is gone.
    fn wait_for(&self, name: &str, address: &str) {
        wait_until(
            || self.now(name) == address,
            || format!("{name} is at {}", self.now(name)),
        );
    }

    fn wait_for_problem(&self, text: &str) {
        let problems = || -> Vec<String> { self.handle.problems().iter().map(ToString::to_string).collect() };
        wait_until(
            || problems().iter().any(|problem| problem.contains(text)),
            || format!("{:?}", problems()),
        );
    }

    fn wait_for_no_problem(&self) {
        wait_until(
            || self.handle.problems().is_empty(),
            || format!("{:?}", self.handle.problems()),
        );
    }
}

fn wait_until(done: impl Fn() -> bool, state: impl Fn() -> String) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{}", state());
        thread::sleep(Duration::from_millis(2));
    }
}

fn vip(snapshot: &Snapshot, name: &str) -> String {
    match snapshot.resolve(&format!("{name}.default")) {
        Some(Resolved::Addresses(addresses)) if addresses.len() == 1 => addresses[0].to_string(),
        None => "none".to_owned(),
        other => format!("{other:?}"),
    }
}

fn service(name: &str, address: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {address}}}\n"
    )
}

#[test]
fn plain_edits_renames_and_deletions() {
    let world = World::new(&[
        ("a.yaml", &service("a", "10.96.0.1")),
        ("notes.txt", "no: {manifest"),
    ]);
    assert_eq!(world.now("a"), "10.96.0.1");
    world.write("a.yaml", &service("a", "10.96.0.2"));
    world.wait_for("a", "10.96.0.2");
    world.write(
        "b.json",
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"b"},"spec":{"clusterIP":"10.96.1.1"}}"#,
    );
    world.wait_for("b", "10.96.1.1");
    // As careful editors write.
    world.write(".a.yaml.new", &service("a", "10.96.0.3"));
    fs::rename(world.path(".a.yaml.new"), world.path("a.yaml")).expect("a rename");
    world.wait_for("a", "10.96.0.3");
    fs::rename(world.path("a.yaml"), world.path("z.yml")).expect("a rename");
    world.write("b.json", &service("b", "10.96.1.2"));
    world.wait_for("b", "10.96.1.2");
    assert_eq!(world.now("a"), "10.96.0.3");
    fs::remove_file(world.path("z.yml")).expect("a removal");
    world.wait_for("a", "none");
    fs::rename(world.path("b.json"), world.path("b.json.off")).expect("a rename");
    world.wait_for("b", "none");
    assert!(world.handle.problems().is_empty());
}

/// As kubelet writes a ConfigMap volume: files are links into `..data`, itself a link that is swapped.
#[test]
fn the_link_of_a_config_map_is_swapped() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let fill = |generation: &str, address: &str| {
        let data = dir.path().join(generation);
        fs::create_dir(&data).expect("a directory");
        fs::write(data.join("a.yaml"), service("a", address)).expect("a file");
    };
    let swap = |generation: &str| {
        symlink(generation, dir.path().join("..data_tmp")).expect("a link");
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).expect("a rename");
    };
    fill("..2026_01", "10.96.0.1");
    swap("..2026_01");
    symlink("..data/a.yaml", dir.path().join("a.yaml")).expect("a link");
    let (snapshots, handle) = start_manifests(dir.path().to_owned(), None).expect("a source");
    let world = World {
        dir,
        snapshots,
        handle,
    };
    assert_eq!(world.now("a"), "10.96.0.1");
    for i in 2..6 {
        let (generation, address) = (format!("..2026_0{i}"), format!("10.96.0.{i}"));
        let data = world.path(&generation);
        fs::create_dir(&data).expect("a directory");
        fs::write(data.join("a.yaml"), service("a", &address)).expect("a file");
        symlink(&generation, world.path("..data_tmp")).expect("a link");
        fs::rename(world.path("..data_tmp"), world.path("..data")).expect("a rename");
        world.wait_for("a", &address);
        fs::remove_dir_all(world.path(&format!("..2026_0{}", i - 1))).expect("a removal");
    }
    assert!(world.handle.problems().is_empty());
}

/// A file that is being written, whole documents at a time, is never seen with the rest missing.
#[test]
fn a_file_that_is_being_written_is_left_alone() {
    use std::io::Write;
    let whole = service("a", "10.96.0.1") + &service("b", "10.96.1.1");
    let mut world = World::new(&[("m.yaml", &whole)]);
    world.snapshots.mark_unchanged();
    for round in 2..6 {
        let mut file = fs::File::create(world.path("m.yaml")).expect("a file");
        world.write("other.yaml", &service("other", &format!("10.96.2.{round}")));
        file.write_all(service("a", &format!("10.96.0.{round}")).as_bytes())
            .expect("a write");
        world.wait_for("other", &format!("10.96.2.{round}"));
        assert_ne!(
            (world.now("a"), world.now("b")),
            ("none".to_owned(), "none".to_owned())
        );
        file.write_all(service("b", "10.96.1.1").as_bytes())
            .expect("a write");
        drop(file);
        world.wait_for("a", &format!("10.96.0.{round}"));
        assert_eq!(world.now("b"), "10.96.1.1");
    }
}

#[test]
fn a_broken_file_keeps_its_objects_and_a_duplicate_names_both_files() {
    let world = World::new(&[("a.yaml", &service("a", "10.96.0.1"))]);
    world.write("a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: a\n");
    world.wait_for_problem("a.yaml: document 1 (line 1): not valid YAML");
    assert_eq!(world.now("a"), "10.96.0.1");
    fs::write(world.path("a.yaml"), b"kind: \xff\xfe").expect("a file");
    world.wait_for_problem("a.yaml: is not UTF-8 text (byte 6)");
    assert_eq!(world.now("a"), "10.96.0.1");
    world.write("b.yaml", &service("a", "10.96.0.2"));
    world.wait_for_problem("b.yaml: document 1 (line 1), Service default/a: the same object is in a.yaml");
    assert_eq!(world.now("a"), "10.96.0.1");
    fs::remove_file(world.path("a.yaml")).expect("a removal");
    world.wait_for("a", "10.96.0.2");
    world.wait_for_no_problem();
}

#[test]
fn the_folder_may_go_away_and_come_back() {
    let world = World::new(&[("a.yaml", &service("a", "10.96.0.1"))]);
    let aside = world.dir.path().with_extension("aside");
    fs::rename(world.dir.path(), &aside).expect("a rename");
    world.wait_for_problem("the manifests folder cannot be read");
    assert_eq!(world.now("a"), "10.96.0.1");
    fs::create_dir(world.dir.path()).expect("a directory");
    world.write("a.yaml", &service("a", "10.96.0.2"));
    world.wait_for("a", "10.96.0.2");
    world.wait_for_no_problem();
    world.write("a.yaml", &service("a", "10.96.0.3"));
    world.wait_for("a", "10.96.0.3");
    fs::remove_dir_all(aside).expect("a removal");
}

/// A thousand changes at full speed: the last one is what holds in the end, and nothing that does not change
/// is ever missing on the way.
#[test]
fn a_thousand_changes() {
    let world = World::new(&[
        ("a.yaml", &service("a", "10.96.0.1")),
        ("still.yaml", &service("still", "10.96.9.9")),
    ]);
    let mut snapshots = world.snapshots.clone();
    let watcher = thread::spawn(move || {
        let mut seen = 0;
        loop {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            assert_eq!(vip(&snapshot, "still"), "10.96.9.9");
            assert_ne!(vip(&snapshot, "a"), "none");
            seen += 1;
            if vip(&snapshot, "a") == "10.97.3.232" {
                return seen;
            }
            while !snapshots.has_changed().expect("the source runs") {
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    for i in 1..=1000 {
        let text = service("a", &format!("10.97.{}.{}", i >> 8, i & 255));
        if i % 2 == 0 {
            world.write("a.yaml", &text);
        } else {
            world.write(".a.new", &text);
            fs::rename(world.path(".a.new"), world.path("a.yaml")).expect("a rename");
        }
    }
    assert!(watcher.join().expect("no snapshot lacked anything") > 1);
}

#[test]
fn a_folder_that_is_none_is_refused() {
    for path in ["/nowhere/at/all", "/etc/hostname"] {
        let error = start_manifests(path.into(), None)
            .map(|_| ())
            .expect_err("an error");
        assert!(error.to_string().contains(path), "{error}");
    }
    let empty = tempfile::tempdir().expect("a temporary directory");
    let (snapshots, handle) = start_manifests(empty.path().to_owned(), None).expect("a source");
    assert!(snapshots.borrow().services.is_empty());
    drop(handle);
    assert!(snapshots.has_changed().is_err(), "the thread has ended");
    let _: &Path = empty.path();
}

/// First it only looks, then it watches, and between the two nothing is missed.
#[test]
fn an_owner_that_may_end_soon_sees_changes_as_any_other() {
    let world = World::brief();
    for last in 1..=15 {
        let address = format!("10.96.0.{last}");
        world.write("a.yaml", &service("a", &address));
        world.wait_for("a", &address);
    }
    fs::remove_file(world.path("a.yaml")).expect("a removal");
    world.wait_for("a", "none");
}
