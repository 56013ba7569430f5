//! The kinds of object that say something to a proxy. All others are passed over; of one that was meant to be
//! one of these, or that other meshes read, that is told.

use model::problem::Severity;

use runtime::nearest::nearest;

/// The kinds of object that say something to a proxy; all others are passed over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Endpoints.
    Endpoints,
    /// `v1` Pod.
    Pod,
    /// `weir.dev/v1alpha1` MeshConfig, of which there is one, whatever its name.
    MeshConfig,
}

/// Kinds of Kubernetes that are one edit or two away from ours, and are no mistake.
const OTHERS: [&str; 4] = ["PodList", "ServiceList", "Node", "List"];

/// API groups of kinds that say to other meshes where traffic goes. Their users expect that they are read.
const OTHER_MESHES: [&str; 5] = [
    "networking.istio.io",
    "security.istio.io",
    "gateway.networking.k8s.io",
    "linkerd.io",
    "policy.linkerd.io",
];

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Service,
        Self::EndpointSlice,
        Self::Endpoints,
        Self::Pod,
        Self::MeshConfig,
    ];

    /// The word in manifests and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
            Self::Pod => "Pod",
            Self::MeshConfig => "MeshConfig",
        }
    }

    /// The apiVersion that is read.
    fn api_version(self) -> &'static str {
        match self {
            Self::Service | Self::Endpoints | Self::Pod => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::MeshConfig => "weir.dev/v1alpha1",
        }
    }

    pub(super) fn of(api_version: &str, kind: &str) -> Option<Self> {
        let is_it = |known: &Self| known.api_version() == api_version && known.as_str() == kind;
        Self::ALL.into_iter().find(is_it)
    }
}

/// What is to be said of an object of another kind, if anything is.
pub(super) fn passed_over(api_version: &str, kind: &str) -> Option<(Severity, String)> {
    let group = |api_version: &str| {
        api_version
            .rsplit_once('/')
            .map_or("", |(group, _)| group)
            .to_owned()
    };
    let asked = group(api_version);
    let same_word = |known: &Kind| known.as_str() == kind;
    if let Some(known) = Kind::ALL.into_iter().find(same_word)
        && (asked.is_empty() || asked == group(known.api_version()))
    {
        return Some((
            Severity::Warning,
            format!(
                "is passed over: the apiVersion of {kind} that is read is `{}`, and this one has `{api_version}`",
                known.api_version()
            ),
        ));
    }
    if asked == group(Kind::MeshConfig.api_version()) {
        return Some((
            Severity::Warning,
            format!(
                "Weir has no kind {api_version} {kind}; what there is, is `weir.dev/v1alpha1` MeshConfig"
            ),
        ));
    }
    let ours = Kind::ALL
        .into_iter()
        .filter(|known| group(known.api_version()) == asked);
    let words: Vec<_> = ours.map(Kind::as_str).collect();
    if let Some(near) = nearest(kind, &words)
        && !OTHERS.contains(&kind)
    {
        return Some((
            Severity::Warning,
            format!("is passed over: {kind} is no kind that is read; did you mean `{near}`?"),
        ));
    }
    OTHER_MESHES.contains(&group(api_version).as_str()).then(|| {
        (
            Severity::Note,
            format!(
                "is passed over: Weir does not read {kind} of {}",
                group(api_version)
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_to_be_ours_or_is_read_by_other_meshes_is_told() {
        let table = [
            ("v1", "Servcie", Some("did you mean `Service`")),
            ("v1", "service", Some("did you mean `Service`")),
            ("v1", "Endpoint", Some("did you mean `Endpoints`")),
            (
                "discovery.k8s.io/v1",
                "EndpointSlices",
                Some("did you mean `EndpointSlice`"),
            ),
            (
                "discovery.k8s.io/v1beta1",
                "EndpointSlice",
                Some("`discovery.k8s.io/v1`"),
            ),
            ("v1", "EndpointSlice", Some("`discovery.k8s.io/v1`")),
            ("v2", "Service", Some("that is read is `v1`")),
            ("weir.dev/v1", "MeshConfig", Some("`weir.dev/v1alpha1`")),
            ("weir.dev/v1alpha1", "Mesh", Some("Weir has no kind")),
            (
                "networking.istio.io/v1",
                "VirtualService",
                Some("does not read VirtualService"),
            ),
            (
                "gateway.networking.k8s.io/v1",
                "HTTPRoute",
                Some("does not read HTTPRoute"),
            ),
            ("serving.knative.dev/v1", "Service", None),
            ("apps/v1", "Deployment", None),
            ("v1", "ConfigMap", None),
            ("v1", "Secret", None),
            ("v1", "Node", None),
            ("v1", "ServiceAccount", None),
            ("v1", "PodTemplate", None),
            ("", "", None),
        ];
        for (api_version, kind, said) in table {
            let told = passed_over(api_version, kind).map(|(_, text)| text);
            match said {
                Some(said) => assert!(
                    told.as_deref().is_some_and(|text| text.contains(said)),
                    "{kind}: {told:?}"
                ),
                None => assert_eq!(told, None, "{api_version} {kind}"),
            }
        }
    }
}
