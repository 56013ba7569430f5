//! What files together come to: joined objects, last good states, duplicates, and what is told of them.

use std::net::IpAddr;

use registry::{Resolved, Snapshot, Table};

use super::*;
use crate::parse::{parse, unreadable};

/// A catalog and the table it tells.
#[derive(Default)]
struct World {
    catalog: Catalog,
    table: Table,
}

impl World {
    fn put(&mut self, file: &str, text: &str) -> Arc<Snapshot> {
        self.catalog.put(file, parse(file, text));
        self.told()
    }

    fn remove(&mut self, file: &str) -> Arc<Snapshot> {
        self.catalog.remove(file);
        self.told()
    }

    fn told(&mut self) -> Arc<Snapshot> {
        for update in self.catalog.updates() {
            self.table.apply(update);
        }
        self.table.snapshot()
    }

    fn problems(&self) -> Vec<String> {
        self.catalog.problems().iter().map(ToString::to_string).collect()
    }
}

/// Addresses of the first port of `default/web`, with what their readiness says.
fn endpoints(snapshot: &Snapshot) -> Vec<String> {
    let clusters = snapshot.clusters_of(&ObjectName::new("default", "web"));
    let Some(cluster) = clusters.first() else {
        return Vec::new();
    };
    let mut all: Vec<String> = cluster
        .targets
        .iter()
        .map(|t| format!("{} {}", t.address, t.condition.as_str()))
        .collect();
    all.sort();
    all
}

fn service(name: &str, spec: &str) -> String {
    format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn web(spec: &str) -> String {
    service(
        "web",
        &format!("{{clusterIP: 10.96.0.1, ports: [{{port: 80, {spec}}}], selector: {{app: web}}}}"),
    )
}

fn slice(name: &str, address: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{name: {name}, labels: {{kubernetes.io/service-name: web}}}}\n\
         ports: [{{port: 8080}}]\nendpoints: [{{addresses: [{address}]}}]\n"
    )
}

fn old_endpoints(address: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Endpoints\nmetadata: {{name: web}}\n\
         subsets: [{{addresses: [{{ip: {address}}}], ports: [{{port: 8080}}]}}]\n"
    )
}

fn pod(name: &str, address: &str, rest: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web, x: y}}{rest}}}\n\
         spec: {{containers: [{{name: c, ports: [{{name: http, containerPort: 8080}}]}}]}}\n\
         status: {{podIP: {address}, phase: Running}}\n"
    )
}

#[test]
fn endpoints_come_from_slices_then_endpoints_then_pods() {
    let mut world = World::default();
    world.put("web.yaml", &web("targetPort: http"));
    let pods = world.put(
        "pods.yaml",
        &(pod("a", "10.1.0.1", "") + &pod("b", "10.1.0.2", "")),
    );
    assert_eq!(endpoints(&pods), ["10.1.0.1:8080 READY", "10.1.0.2:8080 READY"]);
    let old = world.put("old.yaml", &old_endpoints("10.1.0.3"));
    assert_eq!(endpoints(&old), ["10.1.0.3:8080 READY"]);
    let slices = world.put("new.yaml", &(slice("s1", "10.1.0.4") + &slice("s2", "10.1.0.5")));
    assert_eq!(endpoints(&slices), ["10.1.0.4:8080 READY", "10.1.0.5:8080 READY"]);
    let fewer = world.put("new.yaml", &slice("s2", "10.1.0.5"));
    assert_eq!(endpoints(&fewer), ["10.1.0.5:8080 READY"]);
    assert_eq!(endpoints(&world.remove("new.yaml")), ["10.1.0.3:8080 READY"]);
    assert_eq!(endpoints(&world.remove("old.yaml")).len(), 2);
    assert_eq!(endpoints(&world.remove("pods.yaml")), Vec::<String>::new());
    assert!(world.problems().is_empty(), "{:?}", world.problems());
}

#[test]
fn pods_as_endpoints() {
    let mut world = World::default();
    world.put("web.yaml", &web("targetPort: http"));
    let leaving = pod("l", "10.1.0.3", ", deletionTimestamp: \"2026-08-03T10:04:11Z\"");
    let ended = pod("e", "10.1.0.4", "").replace("Running", "Succeeded");
    let unready = pod("u", "10.1.0.5", "").replace(
        "phase: Running",
        "conditions: [{type: Initialized, status: \"True\"}, {type: Ready, status: \"False\"}]",
    );
    let other_port = pod("p", "10.1.0.6", "").replace("name: http", "name: other");
    let other_label = pod("o", "10.1.0.7", "").replace("app: web", "app: other");
    let dual =
        pod("d", "10.1.0.8", "").replace("podIP: 10.1.0.8", "podIPs: [{ip: 10.1.0.8}, {ip: \"fd01::8\"}]");
    let all = [
        pod("a", "10.1.0.1", ""),
        leaving,
        ended,
        unready,
        other_port,
        other_label,
        dual,
    ]
    .concat();
    let snapshot = world.put("pods.yaml", &all);
    assert_eq!(
        endpoints(&snapshot),
        [
            "10.1.0.1:8080 READY",
            "10.1.0.3:8080 TERMINATING",
            "10.1.0.5:8080 NOT READY",
            "10.1.0.8:8080 READY"
        ]
    );
    assert_eq!(snapshot.workloads.len(), 7);
    // A number needs no container port of that name; a dual-stack service takes both addresses.
    let dual_stack =
        "{clusterIPs: [10.96.0.1, \"fd00::1\"], ports: [{port: 80}], selector: {app: web, x: y}}";
    let snapshot = world.put("web.yaml", &service("web", dual_stack));
    assert!(endpoints(&snapshot).contains(&"[fd01::8]:80 READY".to_owned()));
    assert!(endpoints(&snapshot).contains(&"10.1.0.6:80 READY".to_owned()));
    let no_selector = service("web", "{clusterIP: 10.96.0.1, ports: [{port: 80}]}");
    assert!(endpoints(&world.put("web.yaml", &no_selector)).is_empty());
}

#[test]
fn the_last_good_state_stays_for_each_object() {
    let mut world = World::default();
    let two = web("targetPort: 1") + &slice("s", "10.1.0.1");
    world.put("m.yaml", &two);
    // One object went bad: it stays as it was, the other follows.
    let snapshot = world.put("m.yaml", &(web("targetPort: [bad]") + &slice("s", "10.1.0.2")));
    assert_eq!(endpoints(&snapshot), ["10.1.0.2:8080 READY"]);
    assert_eq!(world.problems().len(), 1);
    // A document that cannot be read at all may be any of those that are missing.
    let snapshot = world.put("m.yaml", &(web("targetPort: 1") + "---\n{broken"));
    assert_eq!(endpoints(&snapshot), ["10.1.0.2:8080 READY"]);
    world
        .catalog
        .put("m.yaml", unreadable("m.yaml", "cannot be read".to_owned()));
    assert_eq!(endpoints(&world.told()), ["10.1.0.2:8080 READY"]);
    assert_eq!(world.problems(), ["m.yaml: cannot be read [WEIR-MANIFEST-FILE]"]);
    // Removed from a good file, or with it, an object is gone.
    assert!(endpoints(&world.put("m.yaml", &web("targetPort: 1"))).is_empty());
    assert_eq!(world.told().services.len(), 1);
    world.put("m.yaml", "{broken");
    assert_eq!(world.told().services.len(), 1);
    assert_eq!(world.remove("m.yaml").services.len(), 0);
    assert!(world.problems().is_empty());
}

#[test]
fn one_object_in_two_files_is_an_error_that_names_both() {
    let mut world = World::default();
    let vip = |snapshot: &Snapshot| snapshot.resolve("web.default");
    let at = |ip: &str| {
        Some(Resolved::Addresses(vec![
            ip.parse::<IpAddr>().expect("an address"),
        ]))
    };
    let of = |ip: &str| service("web", &format!("{{clusterIP: {ip}}}"));
    assert_eq!(vip(&world.put("b.yaml", &of("10.96.0.2"))), at("10.96.0.2"));
    // The first that had it stays in use, whatever the names of the files.
    assert_eq!(vip(&world.put("a.yaml", &of("10.96.0.1"))), at("10.96.0.2"));
    assert_eq!(
        world.problems(),
        [
            "a.yaml: document 1 (line 1), Service default/web: the same object is in b.yaml, document 1 (line 1), which is used; remove one of the two [WEIR-MANIFEST-TWICE]"
        ]
    );
    assert_eq!(vip(&world.put("b.yaml", &of("10.96.0.3"))), at("10.96.0.3"));
    assert_eq!(vip(&world.remove("b.yaml")), at("10.96.0.1"));
    assert!(world.problems().is_empty());

    let mesh = |name: &str, retries: u32| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: {name}}}\nspec: {{retries: {retries}}}"
        )
    };
    assert_eq!(world.put("m.yaml", &mesh("one", 7)).settings.policy.retries, 7);
    assert_eq!(world.put("n.yaml", &mesh("two", 8)).settings.policy.retries, 7);
    assert!(world.problems()[0].starts_with("n.yaml: document 1 (line 1), MeshConfig"));
    assert_eq!(world.remove("m.yaml").settings.policy.retries, 8);
    assert_eq!(
        world.remove("n.yaml").settings.policy.retries,
        model::settings::RETRIES
    );
}

#[test]
fn a_service_without_an_address_is_given_one() {
    let mut world = World::default();
    let of = |snapshot: &Snapshot| match snapshot.resolve("web.default") {
        Some(Resolved::Addresses(addresses)) => addresses,
        other => panic!("{other:?}"),
    };
    let plain = service("web", "{ports: [{port: 80}]}");
    let given = of(&world.put("web.yaml", &plain));
    assert_eq!(given.len(), 1);
    assert!(given[0].to_string().starts_with("240.240."));
    assert_eq!(of(&world.put("web.yaml", &(plain + "# more"))), given);
    let both = of(&world.put(
        "web.yaml",
        &service("web", "{ipFamilies: [IPv6, IPv4], ports: [{port: 80}]}"),
    ));
    assert_eq!(both[1], given[0]);
    assert!(both[0].to_string().starts_with("2001:2::"));
    let own = of(&world.put("web.yaml", &service("web", "{clusterIP: 10.96.0.1}")));
    assert_eq!(own[0].to_string(), "10.96.0.1");
}

/// Services of the namespace `default` that both have 240.240.237.154 where they are alone.
const MEETING: [&str; 2] = ["s256", "s690"];

#[test]
fn automatic_addresses_hang_on_the_manifests_and_not_on_their_order() {
    let others = (0..40).map(|i| format!("t{i}"));
    let files: Vec<(String, String)> = others
        .chain(MEETING.map(str::to_owned))
        .map(|name| {
            let text = service(&name, "{ports: [{port: 80}]}");
            (format!("{name}.yaml"), text)
        })
        .collect();
    let gathered = |order: &mut dyn Iterator<Item = &(String, String)>| {
        let mut catalog = Catalog::default();
        for (file, text) in order {
            catalog.put(file, parse(file, text));
        }
        let mut addresses = BTreeMap::new();
        for update in catalog.updates() {
            if let Update::Service(service) = update {
                addresses.insert(service.name, service.kind);
            }
        }
        addresses
    };
    let forward = gathered(&mut files.iter());
    assert_eq!(forward.len(), 42);
    assert_eq!(gathered(&mut files.iter().rev()), forward);
}

#[test]
fn an_older_service_has_the_address_that_a_younger_one_also_hashes_to() {
    let at = |name: &str, time: &str| {
        service(name, "{ports: [{port: 80}]}").replace(
            &format!("{{name: {name}}}"),
            &format!("{{name: {name}, creationTimestamp: {time}}}"),
        )
    };
    let mut world = World::default();
    let text = at(MEETING[0], "2024-01-02T00:00:00Z") + &at(MEETING[1], "2024-01-01T00:00:00Z");
    let snapshot = world.put("m.yaml", &text);
    let of = |name: &str| snapshot.resolve(&format!("{name}.default"));
    let mut alone = World::default();
    let alone = alone.put("m.yaml", &at(MEETING[1], "2024-01-01T00:00:00Z"));
    assert_eq!(of(MEETING[1]), alone.resolve(&format!("{}.default", MEETING[1])));
    assert_ne!(of(MEETING[0]), of(MEETING[1]));
}

#[test]
fn automatic_addresses_can_be_turned_off() {
    let mut world = World::default();
    let plain = service("web", "{ports: [{port: 80}]}");
    let given = world.put("web.yaml", &plain).resolve("web.default");
    assert!(matches!(&given, Some(Resolved::Addresses(all)) if all.len() == 1));
    let off = "apiVersion: weir.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: m}\nspec: {automaticAddresses: false}\n";
    let without = world.put("m.yaml", off).resolve("web.default");
    assert_eq!(without, Some(Resolved::Addresses(Vec::new())));
    assert_eq!(world.remove("m.yaml").resolve("web.default"), given);
}

#[test]
fn what_did_not_change_is_not_told_again() {
    let mut world = World::default();
    let text = web("targetPort: 1") + &slice("s", "10.1.0.1") + &pod("a", "10.1.0.9", "");
    let first = world.put("m.yaml", &text);
    let again = world.put("m.yaml", &format!("# a comment\n{text}"));
    assert!(Arc::ptr_eq(&first, &again));
    assert!(world.catalog.updates().is_empty());
    // Moved to another file in one go: never gone in between.
    world.catalog.put("n.yaml", parse("n.yaml", &text));
    world.catalog.remove("m.yaml");
    assert!(Arc::ptr_eq(&first, &world.told()));
}

#[test]
fn port_names_that_do_not_meet_are_told() {
    let mut world = World::default();
    let named =
        "{clusterIP: 10.96.0.1, ports: [{name: http, port: 80, targetPort: http}], selector: {app: web}}";
    world.put("web.yaml", &service("web", named));
    assert!(world.problems().is_empty(), "no pod is selected yet");
    world.put(
        "pods.yaml",
        &pod("a", "10.1.0.1", "").replace("name: http", "name: htpp"),
    );
    assert_eq!(
        world.problems(),
        [
            "web.yaml: document 1 (line 1), Service default/web, spec.ports: no selected pod has a TCP container port named `http`, so that port has no endpoints; name it in the pod, or give its number [WEIR-MANIFEST-MISMATCH]"
        ]
    );
    world.put("slice.yaml", &slice("s", "10.1.0.1"));
    assert_eq!(
        world.problems(),
        [
            "slice.yaml: document 1 (line 1), EndpointSlice default/s, ports: Service default/web has no TCP port named `` (it has `http`), so these endpoints are not used [WEIR-MANIFEST-MISMATCH]"
        ]
    );
    world.put(
        "slice.yaml",
        &slice("s", "10.1.0.1").replace("{port: 8080}", "{name: http, port: 8080}"),
    );
    assert!(world.problems().is_empty(), "{:?}", world.problems());
}

#[test]
fn an_address_that_two_services_claim_is_told() {
    let mut world = World::default();
    let text = service("a", "{clusterIP: 10.96.0.1}") + &service("b", "{clusterIP: 10.96.0.1}");
    world.put("m.yaml", &text);
    assert_eq!(
        world.problems(),
        [
            "m.yaml: document 2 (line 6), Service default/b, spec.clusterIP: 10.96.0.1 is also the address of Service default/a, which comes first by name, neither being older, and so has the ports that both have; give one of the two another [WEIR-ADDRESS-TWICE]"
        ]
    );
    let made = |text: &str, name: &str, time: &str| {
        text.replace(
            &format!("{{name: {name}}}"),
            &format!("{{name: {name}, creationTimestamp: {time}}}"),
        )
    };
    let (old, new) = ("\"2025-01-01T00:00:00Z\"", "\"2026-01-01T00:00:00Z\"");
    world.put("m.yaml", &made(&made(&text, "a", new), "b", old));
    assert_eq!(
        world.problems(),
        [
            "m.yaml: document 1 (line 1), Service default/a, spec.clusterIP: 10.96.0.1 is also the address of Service default/b, which is older and so has the ports that both have; give one of the two another [WEIR-ADDRESS-TWICE]"
        ]
    );
    world.put("m.yaml", &text.replacen("10.96.0.1", "10.96.0.2", 1));
    assert!(world.problems().is_empty());
}
